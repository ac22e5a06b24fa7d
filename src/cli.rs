//! The command line.
//!
//! Owns: commands, flags, help text, exit codes. Never: reads settings from anywhere but the flags (see
//! [`settings`](crate::settings)).

use std::net::IpAddr;
use std::path::PathBuf;

use bgp_proto::IpPrefix;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

#[cfg(feature = "capture")]
use crate::capture::DecodeArgs;
use crate::model::CommunityValue;
use crate::settings::{DaemonFlags, NodeFlags, RunDirFlag, list};

/// Everything went as asked.
pub const EXIT_OK: u8 = 0;
/// It could not be done, or `check` found an error.
pub const EXIT_FAILED: u8 = 1;
/// Wrong arguments or settings.
pub const EXIT_USAGE: u8 = 2;
/// A defect of this program: a part of it that must not fail has failed.
pub const EXIT_DEFECT: u8 = 70;

const EXIT_STATUSES: &str = "
Exit status:
  0   done; for run: stopped by SIGTERM or SIGINT
  1   it could not be done, or check found an error
  2   wrong arguments or settings
  70  a defect of calico-bgpd";

/// The command line with the words of every setting (see [`list`]).
pub fn command() -> clap::Command {
    list::describe(Cli::command()).after_long_help(list::environment_help() + EXIT_STATUSES)
}

/// The BGP daemon of a Calico node, in the place of confd and BIRD.
///
/// It reads the Calico datastore, peers with other nodes and routers over BGP, advertises this node's address blocks,
/// and writes the routes that it learns into the kernel.
#[derive(Parser, Debug)]
#[command(
    name = "calico-bgpd",
    version,
    after_help = "Use --help for the environment variables and exit statuses."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the daemon in the foreground
    Run(Run),
    /// Read the datastore once and say what is wrong with it; exit status 1 where something is
    Check(ReadOnce),
    /// Read the datastore once and print what this node would do
    Intent(IntentArgs),
    /// Say what becomes of a route: through the rules of a session, and into the kernel
    ///
    /// The rules are those of the datastore as it is; no table is asked. Next hops are not resolved: the interface and
    /// all else that a rule may ask for is said by flags.
    Evaluate(Evaluate),
    /// Say what would change for sessions, routes and the kernel, from one set of resources to another
    ///
    /// Each is a file or a folder of resources. With one of them the other, the older one, is the datastore as it is,
    /// which a running daemon follows. The exit status is 0 whether or not anything differs.
    Diff(Diff),
    /// Beside a BIRD that runs here: say what would be other if calico-bgpd stood in its place
    ///
    /// BIRD's own table and sessions (show route all, show protocols all over its control sockets) and the datastore go
    /// through the production rules; what would come out is compared with the kernel's routes of protocol 12 and with what
    /// BIRD sends to each neighbour (show route export). Only differences are printed. Nothing is written and no session is
    /// opened. The exit status is 0 where nothing would change, 1 where something would or BIRD could not be asked.
    Shadow(ShadowArgs),
    /// Ask the running daemon
    #[command(subcommand)]
    Show(ShowCommand),
    /// Have a peer send its routes again (route refresh); the session stays up
    ///
    /// What the peer does not announce again is removed where it marks the refresh (RFC 7313). The exit status is 1
    /// where a session cannot: it is down, or the peer does not offer route refresh.
    Refresh(RefreshArgs),
    /// Remove the routes that calico-bgpd or BIRD left in the kernel; without --yes they are only listed
    ///
    /// For a node that runs neither of them any more: kernel routes stay when the daemon ends, so that it can be
    /// restarted without loss. All routes of protocol 12 (bird) in table main are meant. Refused with --yes while a
    /// daemon of this run directory, or BIRD, runs.
    Cleanup(Cleanup),
    #[cfg(feature = "capture")]
    /// Describe BGP messages as JSON, one object a line: raw octets, hexadecimal, pcap, pcapng or MRT
    ///
    /// Each object says what the message holds (type, and its fields), what is wrong with it (errors) and
    /// what a session would do (outcome: accept, attribute-discard, treat-as-withdraw, session-reset;
    /// incomplete where the input ends inside a message). Errors in the input are part of the output: the
    /// exit status is 0 whatever the octets are.
    Decode(DecodeArgs),
}

/// `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// Node and datastore.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Run directory.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
    /// Logs, threads, Felix's files.
    #[command(flatten)]
    pub daemon: DaemonFlags,
}

/// `check`, and what `intent` and others have in common with it.
#[derive(Args, Debug)]
pub struct ReadOnce {
    /// Node and datastore.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Run directory, for the last known release.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
    /// Give up on the datastore after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `shadow`.
#[derive(Args, Debug)]
pub struct ShadowArgs {
    /// BIRD's control socket for IPv4 [default: bird.ctl in the run directory]
    #[arg(long, value_name = "PATH")]
    pub bird: Option<PathBuf>,
    /// BIRD's control socket for IPv6 [default: bird6.ctl in the run directory, where it is there]
    #[arg(long, value_name = "PATH")]
    pub bird6: Option<PathBuf>,
    /// Node and datastore.
    #[command(flatten)]
    pub once: ReadOnce,
}

/// `intent`.
#[derive(Args, Debug)]
pub struct IntentArgs {
    /// Print it as text for people, as JSON, or as a configuration of BIRD 1.6 (bird: IPv4, bird6: IPv6)
    #[arg(long, value_enum, default_value = "text", conflicts_with = "json")]
    pub format: IntentFormat,
    /// Print passwords in BIRD's configuration, which has a comment in their place otherwise
    #[arg(long)]
    pub with_passwords: bool,
    /// Node and datastore.
    #[command(flatten)]
    pub once: ReadOnce,
}

/// Forms of the intent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum IntentFormat {
    /// A table for people.
    Text,
    /// The same as `--json`.
    Json,
    /// Configuration of `bird`.
    Bird,
    /// Configuration of `bird6`.
    Bird6,
}

/// `diff`.
#[derive(Args, Debug)]
pub struct Diff {
    /// The resources as they would be; with two of them, those as they are
    #[arg(value_name = "RESOURCES")]
    pub first: String,
    /// The resources as they would be
    #[arg(value_name = "NEWER")]
    pub second: Option<String>,
    /// Node and datastore.
    #[command(flatten)]
    pub once: ReadOnce,
}

/// `evaluate`.
#[derive(Args, Debug)]
pub struct Evaluate {
    /// The route's prefix
    pub prefix: IpPrefix,
    /// The session that it is received on, by name or address
    #[arg(long, value_name = "PEER")]
    pub from: Option<String>,
    /// The session that it is sent on, by name or address
    #[arg(long, value_name = "PEER")]
    pub to: Option<String>,
    /// Where a route that is not received comes from
    #[arg(long, value_enum, default_value = "static", conflicts_with = "from")]
    pub source: SourceWord,
    /// The interface that it leaves through
    #[arg(long, value_name = "NAME", default_value = "")]
    pub interface: String,
    /// Metric of a route of the kernel
    #[arg(long, value_name = "NUMBER")]
    pub metric: Option<u32>,
    /// LOCAL_PREF of a received route
    #[arg(long, value_name = "NUMBER", requires = "from")]
    pub local_pref: Option<u32>,
    /// AS_PATH of a received route, as "65001 65002"
    #[arg(long, value_name = "ASNS", default_value = "", requires = "from")]
    pub as_path: String,
    /// A community of a received route, as 64512:7 or 64512:7:1; may be repeated
    #[arg(long = "community", value_name = "COMMUNITY", requires = "from")]
    pub communities: Vec<CommunityValue>,
    /// Next hop of a received route [default: the peer's address]
    #[arg(long, value_name = "ADDRESS", requires = "from")]
    pub next_hop: Option<IpAddr>,
    /// Print each rule that applied, in the words of its resource
    #[arg(long)]
    pub trace: bool,
    /// Node and datastore.
    #[command(flatten)]
    pub once: ReadOnce,
}

/// Where a route comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum SourceWord {
    /// This node: blocks, services.
    Static,
    /// An interface of this node.
    Direct,
    /// The kernel.
    Kernel,
}

/// How answers are printed.
#[derive(Args, Debug, Clone, Copy)]
pub struct OutputArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `show`.
#[derive(Subcommand, Debug)]
pub enum ShowCommand {
    /// Sessions: state, since when, and why one is down
    Peers(ShowPeers),
    /// Routes, with the best of each prefix and what the kernel has
    Routes(ShowRoutes),
    /// Kernel routes: what is wanted, what is there, and why the two differ where they do
    Kernel(ShowKernel),
    /// The daemon: datastore, listening sockets, release, problems
    Status(ShowStatus),
    /// What is wrong in the datastore, or not done, each with its code
    Problems(ShowStatus),
}

/// `refresh`.
#[derive(Args, Debug)]
pub struct RefreshArgs {
    /// Name or address of the session as in show peers, or all
    pub peer: String,
    /// Run directory.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `show peers`.
#[derive(Args, Debug)]
pub struct ShowPeers {
    /// Only the session of this name or address
    pub peer: Option<String>,
    /// Run directory.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `show routes`.
#[derive(Args, Debug)]
pub struct ShowRoutes {
    /// Only one family
    #[arg(long, value_enum)]
    pub family: Option<FamilyWord>,
    /// Run directory.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `show kernel`.
#[derive(Args, Debug)]
pub struct ShowKernel {
    /// Only one family
    #[arg(long, value_enum)]
    pub family: Option<FamilyWord>,
    /// Run directory.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cleanup`.
#[derive(Args, Debug)]
pub struct Cleanup {
    /// Remove the routes; without it they are only listed
    #[arg(long)]
    pub yes: bool,
    /// Run directory, where the lock of a running daemon is.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
}

/// `show status`.
#[derive(Args, Debug)]
pub struct ShowStatus {
    /// Run directory.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// An address family as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FamilyWord {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_of_a_setting_is_in_the_list_of_settings() {
        let command = command();
        let run = command.find_subcommand("run").unwrap();
        for arg in
            run.get_arguments().filter(|arg| !["help", "version", "dry_run"].contains(&arg.get_id().as_str()))
        {
            let flag = arg.get_long().map(|long| format!("--{long}")).unwrap_or_default();
            let known = list::SETTINGS.iter().any(|setting| setting.flag == Some(flag.as_str()));
            assert!(known, "{flag} is not in src/settings/list.rs");
        }
    }
}
