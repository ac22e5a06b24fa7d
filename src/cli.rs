//! The command line.
//!
//! Owns: commands, flags, help text, exit codes. Never: reads settings from anywhere but the flags (see
//! [`settings`](crate::settings)).

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::decode::DecodeArgs;
use crate::settings::{DaemonFlags, NodeFlags, RunDirFlag};

/// Everything went as asked.
pub const EXIT_OK: u8 = 0;
/// It could not be done, or `check` found an error.
pub const EXIT_FAILED: u8 = 1;
/// Wrong arguments or settings.
pub const EXIT_USAGE: u8 = 2;
/// A defect of this program: a part of it that must not fail has failed.
pub const EXIT_DEFECT: u8 = 70;

const AFTER_HELP: &str = "\
Environment (a flag of the same meaning wins):
  NODENAME                      name of this node's Node resource
  DATASTORE_TYPE                etcdv3 or file
  DATASTORE_PATH                file or directory of resources, YAML or JSON (file)
  ETCD_ENDPOINTS                comma-separated http:// URLs (etcdv3)
  ETCD_USERNAME, ETCD_PASSWORD  user of etcd
  CALICO_ROUTER_ID              BGP identifier, or \"hash\"
  CALICO_BGPD_RUN_DIR           sockets, lock and state; default /var/run/calico
  CALICO_BGPD_CLUSTER_RELEASE   auto, or a Calico release such as v3.29
  CALICO_BGPD_STRICT            true: keep a session down whose password cannot be had
  CALICO_BGPD_MISSING_TUNNEL    what IPIP routes do without tunl0: wait (default) or underlay
  CALICO_BGPD_SEND_HOLD_TIME    seconds after which a peer that takes nothing is let go, or off
  CALICO_BGPD_MAX_PREFIXES      LIMIT, LIMIT:close or LIMIT:restart=SECONDS for what a peer may send
  CALICO_BGPD_NOTIFICATION_GR   true: graceful restart also after a NOTIFICATION (RFC 8538)
  CALICO_BGPD_ACCEPT_AS_SET     true: take paths with an AS_SET, as BIRD does
  CALICO_BGPD_STRIP_ATTRIBUTES  attribute codes taken from routes of external peers, or none
  CALICO_BGPD_LOG               log level; else BGP_LOGSEVERITYSCREEN, else the BGPConfiguration
  CALICO_BGPD_LOG_FORMAT        text or json
  CALICO_BGPD_WORKERS           worker threads
  CALICO_NETWORKING_BACKEND     none or vxlan: this node speaks no BGP, run ends at once
  CALICO_NODENAME_FILE          read where NODENAME is not set; default /var/lib/calico/nodename
  NAMESPACE                     namespace of password Secrets; default kube-system
  USE_POD_CIDR                  true: pod CIDRs of the Node take the place of IPAM blocks
Settings of the datastore are also read with the prefix CALICO_, which wins.

Exit status:
  0   done; for run: stopped by SIGTERM or SIGINT
  1   it could not be done, or check found an error
  2   wrong arguments or settings
  70  a defect of calico-bgpd";

/// The BGP daemon of a Calico node, in the place of confd and BIRD.
///
/// It reads the Calico datastore, peers with other nodes and routers over BGP, advertises this node's address blocks,
/// and writes the routes that it learns into the kernel.
#[derive(Parser, Debug)]
#[command(name = "calico-bgpd", version, after_long_help = AFTER_HELP, after_help = "Use --help for the environment variables and exit statuses.")]
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
    Intent(ReadOnce),
    /// Ask the running daemon
    #[command(subcommand)]
    Show(Show),
    /// Have a peer send its routes again (route refresh); the session stays up
    ///
    /// What the peer does not announce again is removed where it marks the refresh (RFC 7313). The exit status is 1
    /// where a session cannot: it is down, or the peer does not offer route refresh.
    Refresh(Refresh),
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

/// `check` and `intent`.
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
    pub output: Output,
}

/// How answers are printed.
#[derive(Args, Debug, Clone, Copy)]
pub struct Output {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `show`.
#[derive(Subcommand, Debug)]
pub enum Show {
    /// Sessions: state, since when, and why one is down
    Peers(ShowPeers),
    /// Routes, with the best of each prefix and what the kernel has
    Routes(ShowRoutes),
    /// The daemon: datastore, listening sockets, release, problems
    Status(ShowStatus),
}

/// `refresh`.
#[derive(Args, Debug)]
pub struct Refresh {
    /// Name or address of the session as in show peers, or all
    pub peer: String,
    /// Run directory.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
    /// How it is printed.
    #[command(flatten)]
    pub output: Output,
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
    pub output: Output,
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
    pub output: Output,
}

/// `show status`.
#[derive(Args, Debug)]
pub struct ShowStatus {
    /// Run directory.
    #[command(flatten)]
    pub run_dir: RunDirFlag,
    /// How it is printed.
    #[command(flatten)]
    pub output: Output,
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
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
