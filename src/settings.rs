//! The settings of the process: first as typed, then as resolved.
//!
//! Owns: which flag and which environment variable sets what, their defaults, and what is said of a wrong value: one
//! line that names the flag or the variable. Flags win over the environment. All is read once; a change needs a restart
//! (NODE-2). Never: looks into the datastore. Rules: NODE-1, NODE-2, DS-1 to DS-5, DS-38, DS-40, REL-1, REL-2; see `sessions` for those of all sessions.

pub mod list;
mod sessions;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

pub use self::sessions::SessionFlags;
use crate::datastore::cache::CacheSettings;
use crate::datastore::endpoint_status;
use crate::datastore::feed::FeedSettings;
use crate::datastore::settings::{Backend, DatastoreSettings, SettingsError, boolean};
use crate::desired::{DEFAULT_SECRET_NAMESPACE, NodeFacts, Release};
use crate::last_release;
use crate::telemetry::log::{LogFormat, LogLevel, parse_level};

/// Where sockets, the lock and state are unless said otherwise.
pub const DEFAULT_RUN_DIR: &str = "/var/run/calico";
/// Where Felix writes its files about workloads.
const FELIX_DIR: &str = "/var/run/calico";
/// Where what has to survive a reboot is kept unless said otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/calico-bgpd";
/// Where HTTP is served unless said otherwise.
const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9179);
/// Where Calico's start-up leaves the node's name (NODE-1).
const NODENAME_FILE: &str = "/var/lib/calico/nodename";

/// Where `calico-bgpd.sock` is: what every command needs.
#[derive(Args, Clone, Debug, Default)]
pub struct RunDirFlag {
    /// Directory of the control socket, the lock and state.
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

/// Which node this is and where the datastore is.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeFlags {
    /// Name of this node's Node resource.
    #[arg(long, value_name = "NAME")]
    pub nodename: Option<String>,
    /// Kind of datastore: etcdv3 or file.
    #[arg(long, value_name = "TYPE")]
    pub datastore_type: Option<String>,
    /// File or directory of resources; implies --datastore-type file.
    #[arg(long, value_name = "PATH")]
    pub datastore_path: Option<String>,
    /// Comma-separated URLs; implies --datastore-type etcdv3.
    #[arg(long, value_name = "URLS")]
    pub etcd_endpoints: Option<String>,
    /// BGP identifier; "hash" derives it from the node's name.
    #[arg(long, value_name = "ID")]
    pub router_id: Option<String>,
    /// Behave as this Calico release, such as v3.29.
    #[arg(long, value_name = "RELEASE")]
    pub cluster_release: Option<String>,
    /// Keep a session down whose password cannot be had, instead of leaving it unsigned.
    #[arg(long)]
    pub strict: bool,
    /// What routes of IPIP pools do while the device tunl0 is not there: wait, or underlay, as BIRD does: they go without the tunnel.
    #[arg(long, value_name = "ACTION")]
    pub missing_tunnel: Option<String>,
    /// All sessions.
    #[command(flatten)]
    pub sessions: SessionFlags,
}

/// What only the daemon needs.
#[derive(Args, Clone, Debug, Default)]
pub struct DaemonFlags {
    /// Log level: off, error, warn, info, debug, trace, or a list such as info,calico_bgpd::net=debug.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Log lines as text or json.
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Directory of what has to survive a reboot: the last good state of the datastore.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Seconds that a mass loss in the datastore must last before it is believed; 0 believes it at once.
    #[arg(long, value_name = "SECONDS")]
    pub confirm_losses: Option<String>,
    /// Threads for sockets and datastore beside the thread of the table.
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// Address and port of /metrics, /healthz and /readyz, or none.
    #[arg(long, value_name = "ADDRESS")]
    pub http_address: Option<String>,
    /// Socket that answers birdcl, or none.
    #[arg(long, value_name = "PATH")]
    pub bird_socket: Option<String>,
    /// Socket that answers birdcl6, or none.
    #[arg(long, value_name = "PATH")]
    pub bird6_socket: Option<String>,
    /// Write nothing into the kernel; print what would be written, as ip route would be told it. Sessions come up as
    /// always
    #[arg(long)]
    pub dry_run: bool,
}

/// A setting that cannot be used, in one line that names the flag or the variable.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingError {
    /// One of ours.
    #[error("{name}: {why}")]
    Wrong {
        /// Flag or environment variable.
        name: String,
        /// What is wrong, with the value.
        why: String,
    },
    /// One of the datastore's.
    #[error(transparent)]
    Datastore(#[from] SettingsError),
}

impl SettingError {
    fn new(name: impl Into<String>, why: impl Into<String>) -> Self {
        SettingError::Wrong { name: name.into(), why: why.into() }
    }
}

/// What a process may ask its surroundings for at start; tests have their own.
pub trait Surroundings {
    /// An environment variable; one that is no Unicode counts as its lossy text.
    fn var(&self, name: &str) -> Option<String>;
    /// A small file's text.
    fn file(&self, path: &Path) -> Option<String>;
    /// The kernel's host name.
    fn host_name(&self) -> Option<String>;
}

/// The real ones.
pub struct Process;

impl Surroundings for Process {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn file(&self, path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    fn host_name(&self) -> Option<String> {
        self.file(Path::new("/proc/sys/kernel/hostname"))
    }
}

/// Settings of `check` and `intent`, and a part of the daemon's.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Facts for `compile`.
    pub facts: NodeFacts,
    /// The datastore.
    pub datastore: DatastoreSettings,
}

/// Settings of the daemon.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Node and datastore.
    pub node: NodeSettings,
    /// Sockets, lock, state.
    pub run_dir: PathBuf,
    /// Log level.
    pub log_level: LogLevel,
    /// Log format.
    pub log_format: LogFormat,
    /// Worker threads if set.
    pub workers: Option<usize>,
    /// Where HTTP is served, if it is.
    pub http: Option<SocketAddr>,
    /// BIRD's socket for IPv4, if there is to be one.
    pub bird_socket: Option<PathBuf>,
    /// BIRD's socket for IPv6, if there is to be one.
    pub bird6_socket: Option<PathBuf>,
    /// Kernel routes are printed, not written.
    pub dry_run: bool,
    /// `CALICO_NETWORKING_BACKEND` says that this node speaks no BGP (NODE-2); its value.
    pub no_bgp: Option<String>,
}

/// A value with the name of where it was set, empty values being unset.
struct Typed<'a> {
    world: &'a dyn Surroundings,
}

impl Typed<'_> {
    /// The flag, else the first variable that is set.
    fn text(&self, flag: (&str, Option<&str>), vars: &[&str]) -> Option<(String, String)> {
        if let Some(value) = flag.1 {
            return Some((flag.0.to_string(), value.to_string()));
        }
        vars.iter().find_map(|name| {
            let value = self.world.var(name)?;
            (!value.trim().is_empty()).then(|| ((*name).to_string(), value))
        })
    }

    /// What is not set is false.
    fn boolean(&self, vars: &[&str]) -> Result<bool, SettingError> {
        let Some((name, value)) = self.text(("", None), vars) else { return Ok(false) };
        boolean(value.trim())
            .ok_or_else(|| SettingError::new(name, format!("{value:?} is neither true nor false")))
    }

    fn path(&self, flag: (&str, Option<&Path>), var: &str, default: &str) -> Result<PathBuf, SettingError> {
        let path = match (flag.1, self.text(("", None), &[var])) {
            (Some(path), _) => path.to_path_buf(),
            (None, Some((_, value))) => PathBuf::from(value),
            (None, None) => PathBuf::from(default),
        };
        if path.as_os_str().is_empty() {
            return Err(SettingError::new(flag.0, "the path is empty"));
        }
        Ok(path)
    }
}

/// The run directory.
pub fn resolve_run_dir(flag: &RunDirFlag, world: &dyn Surroundings) -> Result<PathBuf, SettingError> {
    Typed { world }.path(("--run-dir", flag.run_dir.as_deref()), "CALICO_BGPD_RUN_DIR", DEFAULT_RUN_DIR)
}

/// Node and datastore.
pub fn resolve_node(
    flags: &NodeFlags,
    run_dir: &RunDirFlag,
    world: &dyn Surroundings,
) -> Result<NodeSettings, SettingError> {
    let typed = Typed { world };
    let node_name = node_name(flags, world)?;
    let cluster_release = match typed
        .text(("--cluster-release", flags.cluster_release.as_deref()), &["CALICO_BGPD_CLUSTER_RELEASE"])
    {
        Some((name, value)) if !value.trim().eq_ignore_ascii_case("auto") => {
            Some(value.trim().parse::<Release>().map_err(|_| {
                SettingError::new(name, format!("{value:?} is neither auto nor a release such as v3.29"))
            })?)
        }
        _ => None,
    };
    let router_id = typed
        .text(("--router-id", flags.router_id.as_deref()), &["CALICO_ROUTER_ID"])
        .map(|(name, value)| {
            let value = value.trim().to_string();
            let usable =
                value == "hash" || value.parse::<std::net::Ipv4Addr>().is_ok_and(|id| !id.is_unspecified());
            if usable {
                Ok(value)
            } else {
                Err(SettingError::new(
                    name,
                    format!("{value:?} is neither \"hash\" nor a BGP identifier such as 10.0.0.1"),
                ))
            }
        })
        .transpose()?;
    let secret_namespace = typed
        .text(("", None), &["NAMESPACE"])
        .map_or_else(|| DEFAULT_SECRET_NAMESPACE.to_string(), |(_, value)| value.trim().to_string());
    let missing_tunnel =
        typed.text(("--missing-tunnel", flags.missing_tunnel.as_deref()), &["CALICO_BGPD_MISSING_TUNNEL"]);
    let bare_without_tunnel = match missing_tunnel {
        None => false,
        Some((name, value)) => match value.trim() {
            "wait" => false,
            "underlay" => true,
            _ => return Err(SettingError::new(name, format!("{value:?} is neither wait nor underlay"))),
        },
    };
    let datastore = datastore(flags, world)?;
    let facts = NodeFacts {
        node_name,
        router_id,
        cluster_release,
        last_release: world
            .file(&last_release::path(&resolve_run_dir(run_dir, world)?))
            .and_then(|text| last_release::parse(&text)),
        use_pod_cidr: datastore.use_pod_cidr,
        kubernetes_node: typed.text(("", None), &["CALICO_K8S_NODE_REF"]).map(|(_, value)| value),
        advertise_cluster_ips: typed
            .text(("", None), &["CALICO_ADVERTISE_CLUSTER_IPS"])
            .map(|(_, value)| value.trim().to_string()),
        on_etcd: matches!(&datastore.backend, Backend::Etcd(etcd) if etcd.kubernetes.is_none()),
        secret_namespace,
        strict: flags.strict || typed.boolean(&["CALICO_BGPD_STRICT"])?,
        bare_without_tunnel,
        sessions: sessions::resolve(&flags.sessions, &typed)?,
    };
    Ok(NodeSettings { facts, datastore })
}

/// The datastore's own rules see the flags as the variables that they stand for. A flag that names a datastore says its
/// kind as well: the environment may be that of another one.
fn datastore(flags: &NodeFlags, world: &dyn Surroundings) -> Result<DatastoreSettings, SettingError> {
    let implied = match (&flags.datastore_path, &flags.etcd_endpoints) {
        (Some(_), Some(_)) if flags.datastore_type.is_none() => {
            let why = "names a datastore, and so does --etcd-endpoints; --datastore-type says which counts";
            return Err(SettingError::new("--datastore-path", why));
        }
        (Some(_), None) => Some("file"),
        (None, Some(_)) => Some("etcdv3"),
        _ => None,
    };
    let overrides = [
        ("DATASTORE_TYPE", flags.datastore_type.as_deref().or(implied)),
        ("DATASTORE_PATH", flags.datastore_path.as_deref()),
        ("ETCD_ENDPOINTS", flags.etcd_endpoints.as_deref()),
    ];
    let lookup = |name: &str| {
        // The prefixed name is looked up first (DS-1), so a flag stands for both.
        let plain = name.strip_prefix("CALICO_").unwrap_or(name);
        match overrides.iter().find(|(known, value)| *known == plain && value.is_some()) {
            Some((_, value)) => value.map(str::to_string),
            None => world.var(name),
        }
    };
    let mut settings = DatastoreSettings::from_env(lookup)?;
    if let Backend::Kubernetes(kubernetes) = &settings.backend
        && let Some(home) = kubernetes.only_by_home()
        && home.and_then(|path| world.file(path)).is_none()
    {
        let inferred = lookup("CALICO_DATASTORE_TYPE").or_else(|| lookup("DATASTORE_TYPE")).is_none();
        return Err(SettingsError::NoKubernetes { inferred }.into());
    }
    let prefix = world.var("CALICO_ENDPOINT_STATUS_PATH_PREFIX").filter(|prefix| !prefix.trim().is_empty());
    let prefix = prefix.map_or_else(|| PathBuf::from(FELIX_DIR), |prefix| PathBuf::from(prefix.trim()));
    settings.feed.endpoint_status = Some(prefix.join(endpoint_status::FOLDER));
    Ok(settings)
}

/// NODE-1.
fn node_name(flags: &NodeFlags, world: &dyn Surroundings) -> Result<String, SettingError> {
    if flags.nodename.as_ref().is_some_and(|name| name.trim().is_empty()) {
        return Err(SettingError::new("--nodename", "the name is empty"));
    }
    let set = flags.nodename.clone().or_else(|| world.var("NODENAME"));
    let file = || {
        let path = world.var("CALICO_NODENAME_FILE").filter(|path| !path.is_empty());
        world.file(Path::new(path.as_deref().unwrap_or(NODENAME_FILE)))
    };
    let host = || world.var("HOSTNAME").filter(|name| !name.trim().is_empty()).or_else(|| world.host_name());
    let trimmed = |name: String| Some(name.trim().to_string()).filter(|name| !name.is_empty());
    set.and_then(trimmed)
        .or_else(|| file().and_then(trimmed))
        .or_else(|| host().and_then(trimmed).map(|name| name.to_lowercase()))
        .ok_or_else(|| SettingError::new("NODENAME", "not set, and this host has no name to take its place"))
}

/// What is made of what the datastore says.
fn feed(daemon: &DaemonFlags, typed: &Typed<'_>) -> Result<FeedSettings, SettingError> {
    let state_dir = typed.path(
        ("--state-dir", daemon.state_dir.as_deref()),
        "CALICO_BGPD_STATE_DIR",
        DEFAULT_STATE_DIR,
    )?;
    let without_passwords = typed.boolean(&["CALICO_BGPD_CACHE_WITHOUT_PASSWORDS"])?;
    let confirm_losses = match typed
        .text(("--confirm-losses", daemon.confirm_losses.as_deref()), &["CALICO_BGPD_CONFIRM_LOSSES"])
    {
        None => FeedSettings::default().confirm_losses,
        Some((name, value)) => {
            let seconds = value.trim().parse().ok().filter(|seconds| *seconds <= 3600);
            Duration::from_secs(seconds.ok_or_else(|| {
                SettingError::new(name, format!("{value:?} is no number of seconds (0 to 3600)"))
            })?)
        }
    };
    let cache = CacheSettings { dir: state_dir, passwords: !without_passwords };
    Ok(FeedSettings { confirm_losses, cache: Some(cache), endpoint_status: None })
}

/// Everything of `run`.
pub fn resolve(
    run_dir: &RunDirFlag,
    node: &NodeFlags,
    daemon: &DaemonFlags,
    world: &dyn Surroundings,
) -> Result<Settings, SettingError> {
    let typed = Typed { world };
    let log_level = match typed.text(("--log-level", daemon.log_level.as_deref()), &["CALICO_BGPD_LOG"]) {
        Some((name, value)) => {
            LogLevel::Fixed(parse_level(&value).map_err(|why| SettingError::new(name, why))?)
        }
        // Calico's words, any of which the incumbent takes; so none of them is an error here.
        None => match typed.text(("", None), &["BGP_LOGSEVERITYSCREEN"]) {
            Some((_, value)) => LogLevel::Fixed(crate::telemetry::log::severity_targets(value.trim())),
            None => LogLevel::Followed,
        },
    };
    let log_format =
        match typed.text(("--log-format", daemon.log_format.as_deref()), &["CALICO_BGPD_LOG_FORMAT"]) {
            None => LogFormat::Text,
            Some((name, value)) => match value.trim() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err(SettingError::new(name, format!("{value:?} is neither text nor json"))),
            },
        };
    let feed = feed(daemon, &typed)?;
    let workers = typed
        .text(("--workers", daemon.workers.as_deref()), &["CALICO_BGPD_WORKERS"])
        .map(|(name, value)| {
            value.trim().parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(|| {
                SettingError::new(name, format!("{value:?} is no number of threads (1 to 64)"))
            })
        })
        .transpose()?;
    let no_bgp = world
        .var("CALICO_NETWORKING_BACKEND")
        .map(|value| value.trim().to_string())
        .filter(|value| matches!(value.as_str(), "none" | "vxlan"));
    let directory = resolve_run_dir(run_dir, world)?;
    let http =
        match typed.text(("--http-address", daemon.http_address.as_deref()), &["CALICO_BGPD_HTTP_ADDRESS"]) {
            Some((_, value)) if value.trim() == "none" => None,
            Some((name, value)) => Some(value.trim().parse().map_err(|_| {
                SettingError::new(name, format!("{value:?} is neither none nor an address with a port"))
            })?),
            None => Some(DEFAULT_HTTP),
        };
    let bird = |flag: (&str, Option<&str>), var: &str, name: &str| match typed.text(flag, &[var]) {
        Some((_, value)) if value.trim() == "none" => None,
        Some((_, value)) => Some(PathBuf::from(value.trim())),
        None => Some(directory.join(name)),
    };
    let bird_socket =
        bird(("--bird-socket", daemon.bird_socket.as_deref()), "CALICO_BGPD_BIRD_SOCKET", "bird.ctl");
    let bird6_socket =
        bird(("--bird6-socket", daemon.bird6_socket.as_deref()), "CALICO_BGPD_BIRD6_SOCKET", "bird6.ctl");
    let mut node = resolve_node(node, run_dir, world)?;
    node.datastore.feed =
        FeedSettings { endpoint_status: node.datastore.feed.endpoint_status.take(), ..feed };
    Ok(Settings {
        node,
        run_dir: directory,
        http,
        bird_socket,
        bird6_socket,
        log_level,
        log_format,
        workers,
        dry_run: daemon.dry_run,
        no_bgp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bgp_proto::session::{MaxPrefix, NextOpen};
    use bgp_proto::wire::attr::AttributeCodes;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct World {
        vars: BTreeMap<String, String>,
        files: BTreeMap<PathBuf, String>,
    }

    impl World {
        fn with(vars: &[(&str, &str)]) -> World {
            let mut all: BTreeMap<String, String> = BTreeMap::from([
                ("DATASTORE_TYPE".to_string(), "file".to_string()),
                ("DATASTORE_PATH".to_string(), "/etc/resources".to_string()),
            ]);
            all.extend(vars.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())));
            World { vars: all, files: BTreeMap::new() }
        }
    }

    impl Surroundings for World {
        fn var(&self, name: &str) -> Option<String> {
            self.vars.get(name).cloned()
        }
        fn file(&self, path: &Path) -> Option<String> {
            self.files.get(path).cloned()
        }
        fn host_name(&self) -> Option<String> {
            Some("Host-A\n".into())
        }
    }

    fn run(vars: &[(&str, &str)]) -> Result<Settings, SettingError> {
        resolve(&RunDirFlag::default(), &NodeFlags::default(), &DaemonFlags::default(), &World::with(vars))
    }

    #[test]
    fn flags_win_over_the_environment() {
        let flags = NodeFlags { nodename: Some("flag".into()), ..NodeFlags::default() };
        let world = World::with(&[("NODENAME", "env")]);
        assert_eq!(resolve_node(&flags, &RunDirFlag::default(), &world).unwrap().facts.node_name, "flag");
        assert_eq!(
            resolve_node(&NodeFlags::default(), &RunDirFlag::default(), &world).unwrap().facts.node_name,
            "env"
        );
    }

    #[test]
    fn a_flag_that_names_a_datastore_says_its_kind_whatever_the_environment_is() {
        let read = |flags: &NodeFlags, vars: &[(&str, &str)]| {
            datastore(flags, &World::with(vars)).map(|settings| settings.backend.to_string())
        };
        let path = NodeFlags { datastore_path: Some("/new".into()), ..NodeFlags::default() };
        let etcd = NodeFlags { etcd_endpoints: Some("http://new:1".into()), ..NodeFlags::default() };
        let in_etcd = [("DATASTORE_TYPE", "etcdv3"), ("ETCD_ENDPOINTS", "http://a:1")];
        assert_eq!(read(&path, &in_etcd).unwrap(), "/new");
        assert_eq!(read(&path, &in_etcd[1..]).unwrap(), "/new");
        assert_eq!(read(&etcd, &[("DATASTORE_TYPE", "file")]).unwrap(), "etcd at http://new:1");
        assert_eq!(read(&etcd, &[("CALICO_DATASTORE_TYPE", "file")]).unwrap(), "etcd at http://new:1");
        let both = NodeFlags { etcd_endpoints: etcd.etcd_endpoints, ..path };
        assert!(read(&both, &[]).unwrap_err().to_string().contains("--datastore-type"));
        let told = NodeFlags { datastore_type: Some("etcdv3".into()), ..both };
        assert_eq!(read(&told, &[]).unwrap(), "etcd at http://new:1");
    }

    #[test]
    fn a_name_that_a_flag_leaves_empty_is_not_taken_from_elsewhere() {
        let flags = NodeFlags { nodename: Some(" ".into()), ..NodeFlags::default() };
        let error = node_name(&flags, &World::with(&[("NODENAME", "env")])).unwrap_err();
        assert_eq!(error.to_string(), "--nodename: the name is empty");
    }

    #[test]
    fn the_nodes_name_is_kept_as_written_but_a_host_name_is_lowered() {
        assert_eq!(run(&[("NODENAME", " Node-A ")]).unwrap().node.facts.node_name, "Node-A");
        assert_eq!(run(&[]).unwrap().node.facts.node_name, "host-a");
        let mut world = World::with(&[]);
        world.files.insert(NODENAME_FILE.into(), "From-File\n".into());
        assert_eq!(
            resolve_node(&NodeFlags::default(), &RunDirFlag::default(), &world).unwrap().facts.node_name,
            "From-File"
        );
    }

    #[test]
    fn the_last_known_release_is_read_from_the_run_directory() {
        let last = |text: Option<&str>| {
            let mut world = World::with(&[("CALICO_BGPD_RUN_DIR", "/run/bgp")]);
            world.files.extend(text.map(|text| ("/run/bgp/cluster-release".into(), text.to_string())));
            resolve_node(&NodeFlags::default(), &RunDirFlag::default(), &world).unwrap().facts.last_release
        };
        assert_eq!(last(Some("v3.31\n")), Some(Release { major: 3, minor: 31 }));
        assert_eq!(last(Some("")), None);
        assert_eq!(last(None), None);
    }

    #[test]
    fn a_wrong_value_names_its_variable() {
        for (name, value) in [
            ("CALICO_BGPD_CLUSTER_RELEASE", "latest"),
            ("CALICO_ROUTER_ID", "node-a"),
            ("CALICO_ROUTER_ID", "0.0.0.0"),
            ("USE_POD_CIDR", "yes"),
            ("CALICO_BGPD_SEND_HOLD_TIME", "0"),
            ("CALICO_BGPD_MAX_PREFIXES", "1000:drop"),
            ("CALICO_BGPD_STRIP_ATTRIBUTES", "AIGP"),
            ("CALICO_BGPD_NOTIFICATION_GR", "yes"),
            ("CALICO_BGPD_LOG", "loud"),
            ("CALICO_BGPD_LOG_FORMAT", "xml"),
            ("CALICO_BGPD_WORKERS", "0"),
            ("DATASTORE_TYPE", "floppy"),
        ] {
            let error = run(&[(name, value)]).unwrap_err();
            assert!(error.to_string().contains(name), "{name}={value}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn settings_of_all_sessions_reach_them_and_are_birds_where_nothing_is_set() {
        assert_eq!(run(&[]).unwrap().node.facts.sessions, NextOpen::default());
        let set = run(&[
            ("CALICO_BGPD_SEND_HOLD_TIME", "90"),
            ("CALICO_BGPD_MAX_PREFIXES", "1000:close"),
            ("CALICO_BGPD_NOTIFICATION_GR", "true"),
            ("CALICO_BGPD_ACCEPT_AS_SET", "1"),
            ("CALICO_BGPD_STRIP_ATTRIBUTES", "none"),
        ]);
        let expected = NextOpen {
            send_hold: Some(90),
            max_prefix: Some(MaxPrefix { limit: 1000, close: true, restart: None }),
            notification_gr: true,
            accept_as_set: true,
            strip_external: AttributeCodes::NONE,
            ..NextOpen::default()
        };
        assert_eq!(set.unwrap().node.facts.sessions, expected);
        let off = run(&[("CALICO_BGPD_SEND_HOLD_TIME", "off")]).unwrap();
        assert_eq!(off.node.facts.sessions.send_hold, None);
    }

    #[test]
    fn releases_and_defaults_are_read() {
        let settings = run(&[("CALICO_BGPD_CLUSTER_RELEASE", "v3.14.2")]).unwrap();
        assert_eq!(settings.node.facts.cluster_release, Some(Release { major: 3, minor: 14 }));
        let settings = run(&[("CALICO_BGPD_CLUSTER_RELEASE", "auto"), ("USE_POD_CIDR", "")]).unwrap();
        assert_eq!(settings.node.facts.cluster_release, None);
        assert!(!settings.node.facts.use_pod_cidr);
        assert_eq!(settings.node.facts.secret_namespace, "kube-system");
        assert_eq!(settings.run_dir, PathBuf::from("/var/run/calico"));
        assert_eq!(settings.log_level, LogLevel::Followed);
        assert_eq!(settings.no_bgp, None);
    }

    #[test]
    fn what_survives_a_reboot_has_a_directory_and_passwords_can_be_left_out_of_it() {
        let resolve = |vars: &[(&str, &str)]| {
            let (run_dir, node, daemon) =
                (RunDirFlag::default(), NodeFlags::default(), DaemonFlags::default());
            let vars = [&[("NODENAME", "n")], vars].concat();
            resolve(&run_dir, &node, &daemon, &World::with(&vars))
                .map(|settings| settings.node.datastore.feed)
        };
        let default = resolve(&[]).unwrap();
        let cache = default.cache.unwrap();
        assert_eq!((cache.dir.to_str().unwrap(), cache.passwords), (DEFAULT_STATE_DIR, true));
        assert_eq!(default.confirm_losses, Duration::from_secs(30));
        let set = resolve(&[
            ("CALICO_BGPD_STATE_DIR", "/state"),
            ("CALICO_BGPD_CACHE_WITHOUT_PASSWORDS", "true"),
            ("CALICO_BGPD_CONFIRM_LOSSES", "0"),
        ]);
        let set = set.unwrap();
        assert_eq!(set.confirm_losses, Duration::ZERO);
        assert_eq!(set.cache.unwrap(), CacheSettings { dir: "/state".into(), passwords: false });
        let error = resolve(&[("CALICO_BGPD_CONFIRM_LOSSES", "ever")]).unwrap_err().to_string();
        assert_eq!(error, "CALICO_BGPD_CONFIRM_LOSSES: \"ever\" is no number of seconds (0 to 3600)");
    }

    #[test]
    fn http_is_local_unless_it_is_given_an_address_or_switched_off() {
        let http = |vars| run(vars).map(|settings| settings.http.map(|address| address.to_string()));
        assert_eq!(http(&[]), Ok(Some("127.0.0.1:9179".into())));
        assert_eq!(http(&[("CALICO_BGPD_HTTP_ADDRESS", "[::]:80")]), Ok(Some("[::]:80".into())));
        assert_eq!(http(&[("CALICO_BGPD_HTTP_ADDRESS", "none")]), Ok(None));
        let error = http(&[("CALICO_BGPD_HTTP_ADDRESS", "here")]).unwrap_err().to_string();
        assert_eq!(error, "CALICO_BGPD_HTTP_ADDRESS: \"here\" is neither none nor an address with a port");
    }

    #[test]
    fn birds_sockets_are_in_the_run_directory_unless_named_or_switched_off() {
        let paths = |vars| run(vars).map(|settings| (settings.bird_socket, settings.bird6_socket));
        let at = |path: &str| Some(PathBuf::from(path));
        let standard = (at("/var/run/calico/bird.ctl"), at("/var/run/calico/bird6.ctl"));
        assert_eq!(paths(&[]), Ok(standard));
        let vars = [("CALICO_BGPD_RUN_DIR", "/run/x"), ("CALICO_BGPD_BIRD_SOCKET", "none")];
        assert_eq!(paths(&vars), Ok((None, at("/run/x/bird6.ctl"))));
        let vars = [("CALICO_BGPD_BIRD6_SOCKET", "/run/bird/bird6.ctl")];
        assert_eq!(paths(&vars), Ok((at("/var/run/calico/bird.ctl"), at("/run/bird/bird6.ctl"))));
    }
}
