//! `calico-bgpd`: arguments, settings, runtime; then [`app`](calico_bgpd::app), or one answer.
//!
//! Owns: exit statuses and what goes to standard output. Never: has logic of its own beyond that.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bgp_proto::wire::{AsPath, Attributes};
use bgp_proto::{Afi, Asn};
#[cfg(feature = "capture")]
use calico_bgpd::capture::DecodeArgs;
use calico_bgpd::cli::{
    Cleanup, Cli, Command, Diff, EXIT_DEFECT, EXIT_FAILED, EXIT_OK, EXIT_USAGE, Evaluate, FamilyWord,
    IntentArgs, IntentFormat, ReadOnce, RefreshArgs, Run, ShadowArgs, ShowCommand, SourceWord,
};
use calico_bgpd::control::show::{
    Client, ShowError, kernel_table, peer_text, peers_table, refresh_text, routes_table, status_text,
};
use calico_bgpd::desired::{DesiredState, Unready};
use calico_bgpd::evaluate::Question;
use calico_bgpd::fib::linux::LinuxKernel;
use calico_bgpd::model::problem;
use calico_bgpd::net::incumbent;
use calico_bgpd::policy::program::{Community, SourceClass};
use calico_bgpd::random::random;
use calico_bgpd::settings::{NodeFlags, Process, SettingError, resolve, resolve_node, resolve_run_dir};
use calico_bgpd::shadow::Incumbent;
use calico_bgpd::telemetry::log::{Log, log_panics};
use calico_bgpd::{app, cli, datastore, desired, fib, runtime, shadow};
use clap::FromArgMatches as _;

/// How long the last log lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let result = match parse().command {
        Command::Run(args) => run(&args),
        Command::Check(args) => check(&args),
        Command::Intent(args) => intent(&args),
        Command::Evaluate(args) => evaluate(&args),
        Command::Diff(args) => diff(&args),
        Command::Shadow(args) => shadow(&args),
        Command::Show(what) => show(what),
        Command::Refresh(args) => refresh(&args),
        Command::Cleanup(args) => cleanup(&args),
        #[cfg(feature = "capture")]
        Command::Decode(args) => decode(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let usage = error.downcast_ref::<SettingError>().is_some();
            // Standard error may be closed; then there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "calico-bgpd: {error:#}");
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}

/// The arguments, or the help or the error that clap prints for them; both end the process.
fn parse() -> Cli {
    let matches = cli::command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn run(args: &Run) -> anyhow::Result<u8> {
    let settings = resolve(&args.run_dir, &args.node, &args.daemon, &Process)?;
    if let Some(backend) = &settings.no_bgp {
        print(&format!("CALICO_NETWORKING_BACKEND={backend}: this node speaks no BGP\n"))?;
        return Ok(EXIT_OK);
    }
    let log = Arc::new(Log::start(&settings.log_level, settings.log_format)?);
    log_panics();
    let runtime = runtime::build(settings.workers)?;
    let result = runtime.block_on(app::run(settings, log.clone()));
    runtime.shutdown_timeout(LAST_LINES);
    let code = match result {
        Ok(()) => EXIT_OK,
        Err(app::AppError::Defect) => EXIT_DEFECT,
        Err(error) => {
            tracing::error!("{error}");
            EXIT_FAILED
        }
    };
    log.flush(LAST_LINES);
    Ok(code)
}

/// What the datastore says now, compiled.
fn compile_once(args: &ReadOnce) -> anyhow::Result<Result<DesiredState, Unready>> {
    compile_from(&args.node, args)
}

/// The same of the datastore that these flags name.
fn compile_from(node: &NodeFlags, args: &ReadOnce) -> anyhow::Result<Result<DesiredState, Unready>> {
    let settings = resolve_node(node, &args.run_dir, &Process)?;
    let limit = Duration::from_secs(args.timeout);
    let runtime = runtime::build(Some(1))?;
    let read = runtime.block_on(async {
        let read = datastore::read_once(&settings.datastore, &settings.facts.node_name);
        tokio::time::timeout(limit, read).await
    });
    runtime.shutdown_background();
    let snapshot = match read {
        Ok(read) => read.map_err(anyhow::Error::msg)?,
        Err(_) => {
            anyhow::bail!("{} did not answer within {} s", settings.datastore.backend, args.timeout)
        }
    };
    Ok(desired::compile(&snapshot, &settings.facts))
}

fn unready(unready: &Unready) -> anyhow::Error {
    let check = desired::view::check(Err(unready));
    anyhow::anyhow!("nothing can be configured\n{}", check.to_string().trim_end())
}

fn check(args: &ReadOnce) -> anyhow::Result<u8> {
    let compiled = compile_once(args)?;
    let check = desired::view::check(compiled.as_ref());
    print(&if args.output.json { json(&check)? } else { check.to_string() })?;
    if let Some(who) = another_bird(&resolve_run_dir(&args.run_dir, &Process)?)? {
        let _ = writeln!(std::io::stderr(), "calico-bgpd would configure nothing before {who}");
    }
    Ok(check.exit_code())
}

fn intent(args: &IntentArgs) -> anyhow::Result<u8> {
    let state = compile_once(&args.once)?.map_err(|why| unready(&why))?;
    print(&match args.format {
        IntentFormat::Json => json(&desired::view(&state))?,
        IntentFormat::Text if args.once.output.json => json(&desired::view(&state))?,
        IntentFormat::Text => desired::render_text(&state),
        IntentFormat::Bird => desired::bird_text(&state, Afi::Ipv4, args.with_passwords),
        IntentFormat::Bird6 => desired::bird_text(&state, Afi::Ipv6, args.with_passwords),
    })?;
    Ok(EXIT_OK)
}

/// Compares the resources of a folder with those of another, or with the datastore's.
fn diff(args: &Diff) -> anyhow::Result<u8> {
    let folder = |path: &String| NodeFlags {
        datastore_type: Some("file".to_owned()),
        datastore_path: Some(path.clone()),
        etcd_endpoints: None,
        ..args.once.node.clone()
    };
    let (old, new) = match &args.second {
        Some(second) => (folder(&args.first), folder(second)),
        None => (args.once.node.clone(), folder(&args.first)),
    };
    let compiled = |flags: &NodeFlags| compile_from(flags, &args.once)?.map_err(|why| unready(&why));
    let compared = desired::compare(&compiled(&old)?, &compiled(&new)?);
    print(&if args.once.output.json { json(&compared)? } else { compared.to_string() })?;
    Ok(EXIT_OK)
}

/// What would be other in the place of the BIRD that runs here.
fn shadow(args: &ShadowArgs) -> anyhow::Result<u8> {
    let run_dir = resolve_run_dir(&args.once.run_dir, &Process)?;
    anyhow::ensure!(
        Client::connect(&run_dir).is_err(),
        "a calico-bgpd answers in {}: the sockets there are its own, not BIRD's",
        run_dir.display()
    );
    let state = Arc::new(compile_once(&args.once)?.map_err(|why| unready(&why))?);
    let mut said = BTreeMap::new();
    for (afi, named, file) in [(Afi::Ipv4, &args.bird, "bird.ctl"), (Afi::Ipv6, &args.bird6, "bird6.ctl")] {
        let path = named.clone().unwrap_or_else(|| run_dir.join(file));
        // A node without IPv6 has no bird6, and none without IPv4 a bird.
        if named.is_some() || path.exists() {
            said.insert(afi, Incumbent::ask(&path)?);
        }
    }
    anyhow::ensure!(
        !said.is_empty(),
        "no BIRD runs here: neither bird.ctl nor bird6.ctl is in {}",
        run_dir.display()
    );
    let runtime = runtime::build(Some(1))?;
    let mirror = runtime.block_on(fib::cleanup::read(&mut LinuxKernel::new()))?;
    let shadow = shadow::compare(&state, mirror, &said, random());
    print(&if args.once.output.json { json(&shadow)? } else { shadow.to_string() })?;
    Ok(if shadow.differences.is_empty() { EXIT_OK } else { EXIT_FAILED })
}

fn evaluate(args: &Evaluate) -> anyhow::Result<u8> {
    let state = compile_once(&args.once)?.map_err(|why| unready(&why))?;
    let asns: Result<Vec<Asn>, _> = args.as_path.split_whitespace().map(|asn| asn.parse().map(Asn)).collect();
    let asns = asns.with_context(|| format!("--as-path {:?} is no list of AS numbers", args.as_path))?;
    let mut attributes = Attributes { local_pref: args.local_pref, ..Attributes::default() };
    if !asns.is_empty() {
        attributes.as_path = AsPath::sequence(asns);
    }
    for community in &args.communities {
        match Community::from(*community) {
            Community::Standard(value) => attributes.communities.push(value),
            Community::Large(value) => attributes.large_communities.push(value),
        }
    }
    let question = Question {
        prefix: args.prefix,
        from: args.from.clone(),
        to: args.to.clone(),
        class: match args.source {
            SourceWord::Static => SourceClass::Static,
            SourceWord::Direct => SourceClass::Direct,
            SourceWord::Kernel => SourceClass::Kernel,
        },
        interface: args.interface.clone(),
        metric: args.metric,
        attributes,
        next_hop: args.next_hop,
    };
    let answer = calico_bgpd::evaluate::evaluate(&state, &question)?;
    print(&if args.once.output.json { json(&answer)? } else { answer.to_text(args.trace) })?;
    Ok(EXIT_OK)
}

/// Whether another BIRD has this node's sessions and routes. Where a calico-bgpd runs, its own socket answers, and it says
/// itself what it waits for.
fn another_bird(run_dir: &Path) -> anyhow::Result<Option<String>> {
    if Client::connect(run_dir).is_ok() {
        return Ok(None);
    }
    let sockets = ["bird.ctl", "bird6.ctl"].map(|name| run_dir.join(name));
    Ok(runtime::build(Some(1))?.block_on(incumbent::found(&sockets)))
}

fn show(what: ShowCommand) -> anyhow::Result<u8> {
    match what {
        ShowCommand::Peers(args) => {
            let mut peers = Client::connect(&resolve_run_dir(&args.run_dir, &Process)?)?.peers()?;
            if let Some(wanted) = &args.peer {
                let address =
                    wanted.parse::<IpAddr>().map_or_else(|_| wanted.clone(), |addr| addr.to_string());
                peers.retain(|peer| peer.name == *wanted || peer.address == address);
                anyhow::ensure!(!peers.is_empty(), "no session has the name or address {wanted:?}");
            }
            if args.output.json {
                print(&json(&serde_json::json!({ "peers": peers }))?)?;
            } else if args.peer.is_some() {
                print(&peers.iter().map(peer_text).collect::<Vec<_>>().join("\n"))?;
            } else {
                print(&peers_table(&peers))?;
            }
        }
        ShowCommand::Routes(args) => {
            let families = families(args.family);
            let mut client = Client::connect(&resolve_run_dir(&args.run_dir, &Process)?)?;
            let routes: Result<Vec<_>, ShowError> =
                families.iter().map(|family| client.routes(family)).collect();
            let routes = routes?.concat();
            print(&if args.output.json {
                json(&serde_json::json!({ "routes": routes }))?
            } else {
                routes_table(&routes)
            })?;
        }
        ShowCommand::Kernel(args) => {
            let mut client = Client::connect(&resolve_run_dir(&args.run_dir, &Process)?)?;
            let families = families(args.family);
            let routes: Result<Vec<_>, ShowError> =
                families.iter().map(|family| client.kernel(family)).collect();
            let routes = routes?.concat();
            print(&if args.output.json {
                json(&serde_json::json!({ "routes": routes }))?
            } else {
                kernel_table(&routes)
            })?;
        }
        ShowCommand::Problems(args) => {
            let problems = Client::connect(&resolve_run_dir(&args.run_dir, &Process)?)?.status()?.problems;
            print(&if args.output.json {
                json(&serde_json::json!({ "problems": problems }))?
            } else {
                problem::list(&problems)
            })?;
        }
        ShowCommand::Status(args) => {
            let status = Client::connect(&resolve_run_dir(&args.run_dir, &Process)?)?.status()?;
            print(&if args.output.json { json(&status)? } else { status_text(&status) })?;
        }
    }
    Ok(EXIT_OK)
}

const fn families(only: Option<FamilyWord>) -> &'static [&'static str] {
    match only {
        Some(FamilyWord::Ipv4) => &["ipv4"],
        Some(FamilyWord::Ipv6) => &["ipv6"],
        None => &["ipv4", "ipv6"],
    }
}

fn cleanup(args: &Cleanup) -> anyhow::Result<u8> {
    let run_dir = resolve_run_dir(&args.run_dir, &Process)?;
    let lock = if args.yes { app::RunLock::take(&run_dir)? } else { None };
    for socket in ["bird.ctl", "bird6.ctl"].map(|name| run_dir.join(name)) {
        let answers = std::os::unix::net::UnixStream::connect(&socket).is_ok();
        anyhow::ensure!(
            !(args.yes && answers),
            "BIRD runs, for {} answers: its routes would be back in two seconds",
            socket.display()
        );
    }
    let runtime = runtime::build(Some(1))?;
    let code = runtime.block_on(async {
        let mut kernel = LinuxKernel::new();
        let (found, operations) = fib::cleanup::find(&mut kernel).await?;
        let list: String = found.iter().map(|left| format!("{}\n", left.words)).collect();
        print(&list)?;
        if !args.yes {
            let what = format!("{} routes of protocol 12 in table main; --yes removes them\n", found.len());
            let _ = std::io::stderr().write_all(what.as_bytes());
            return anyhow::Ok(EXIT_OK);
        }
        let refused = fib::cleanup::remove(&mut kernel, &operations).await?;
        for (prefix, why) in &refused {
            let _ = writeln!(std::io::stderr(), "calico-bgpd: {prefix} stays: {why}");
        }
        Ok(if refused.is_empty() { EXIT_OK } else { EXIT_FAILED })
    });
    drop(lock);
    code
}

fn refresh(args: &RefreshArgs) -> anyhow::Result<u8> {
    let answers = Client::connect(&resolve_run_dir(&args.run_dir, &Process)?)?.refresh(&args.peer)?;
    print(&if args.output.json {
        json(&serde_json::json!({ "refreshed": answers }))?
    } else {
        refresh_text(&answers)
    })?;
    let all = answers.iter().all(|answer| answer.refused.is_none());
    Ok(if all { EXIT_OK } else { EXIT_FAILED })
}

#[cfg(feature = "capture")]
fn decode(args: &DecodeArgs) -> anyhow::Result<u8> {
    let mut input = args.open().with_context(|| format!("cannot open {}", args.file.display()))?;
    match calico_bgpd::capture::run(args, &mut input, &mut std::io::stdout().lock()) {
        Ok(summary) => {
            let skipped = summary.to_string();
            if !skipped.is_empty() {
                // Not among the messages; and if standard error is closed, nobody asked.
                let _ = writeln!(std::io::stderr(), "calico-bgpd: {skipped}");
            }
            Ok(EXIT_OK)
        }
        // A reader that has had enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(EXIT_OK),
        Err(error) => Err(error).with_context(|| format!("cannot decode {}", args.file.display())),
    }
}

fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Prints; a reader that has had enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}
