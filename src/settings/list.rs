//! Every setting of the process, in words: written once, for `--help` and for the README.
//!
//! Owns: which variable and flag there are, what each means, what holds where it is not set. Never: reads or checks a
//! value (see [`settings`](super)). A flag that is not in the list, and a table in the README that is not this one, fail
//! a test.

use std::fmt::Write as _;

use clap::Command;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Environment variables, the one that is meant first.
    pub variables: &'static [&'static str],
    /// The flag of the same meaning, which wins.
    pub flag: Option<&'static str>,
    /// What it is, with code in backquotes.
    pub meaning: &'static str,
    /// What holds where it is not set; empty where nothing does.
    pub default: &'static str,
}

/// All of them, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    Setting {
        variables: &["NODENAME"],
        flag: Some("--nodename"),
        meaning: "name of this node's Node resource",
        default: "content of `/var/lib/calico/nodename`, else the host name in small letters",
    },
    Setting {
        variables: &["DATASTORE_TYPE"],
        flag: Some("--datastore-type"),
        meaning: "`kubernetes`, `etcdv3` or `file`",
        default: "what `--datastore-path` or `--etcd-endpoints` implies; `etcdv3` where `ETCD_ENDPOINTS` is set, else `file` where `DATASTORE_PATH` is, else `kubernetes`",
    },
    Setting {
        variables: &["DATASTORE_PATH"],
        flag: Some("--datastore-path"),
        meaning: "a file, or a folder of `*.yaml`, `*.yml`, `*.json` (not hidden, not in sub-folders): what `calicoctl get -o yaml` and `kubectl get -o yaml` print",
        default: "",
    },
    Setting {
        variables: &["ETCD_ENDPOINTS"],
        flag: Some("--etcd-endpoints"),
        meaning: "`http://` or `https://` URLs, separated by commas",
        default: "",
    },
    Setting {
        variables: &["ETCD_CA_CERT_FILE"],
        flag: None,
        meaning: "PEM file of the authorities to trust for `https://`",
        default: "the system's",
    },
    Setting {
        variables: &["ETCD_CERT_FILE", "ETCD_KEY_FILE"],
        flag: None,
        meaning: "PEM files of our certificate and key; all three are read again for each connection",
        default: "none",
    },
    Setting {
        variables: &["TLS_MIN_VERSION"],
        flag: None,
        meaning: "`1.3`: nothing older",
        default: "`1.2`",
    },
    Setting {
        variables: &["TLS_CIPHER_SUITES"],
        flag: None,
        meaning: "suites of TLS 1.2 by Go's names, separated by commas; those without ECDHE or with CBC are not to be had, and named in the log",
        default: "all with ECDHE",
    },
    Setting {
        variables: &["ETCD_USERNAME", "ETCD_PASSWORD"],
        flag: None,
        meaning: "user of etcd",
        default: "none",
    },
    Setting {
        variables: &["KUBECONFIG"],
        flag: None,
        meaning: "kubeconfig files, separated by colons; read again for each connection, as are the certificates and tokens that they name",
        default: "`~/.kube/config` where it is there and nothing else is set; in a pod, its service account",
    },
    Setting {
        variables: &["K8S_CURRENT_CONTEXT"],
        flag: None,
        meaning: "context of the kubeconfig",
        default: "what it says itself",
    },
    Setting {
        variables: &["K8S_API_ENDPOINT"],
        flag: None,
        meaning: "URL of the API server, in place of the kubeconfig's or the pod's",
        default: "",
    },
    Setting {
        variables: &["K8S_CA_FILE", "K8S_CERT_FILE", "K8S_KEY_FILE"],
        flag: None,
        meaning: "PEM files of the authorities to trust, our certificate and its key, in place of the kubeconfig's",
        default: "",
    },
    Setting {
        variables: &["CALICO_K8SAPITOKEN"],
        flag: None,
        meaning: "token, in place of the kubeconfig's",
        default: "",
    },
    Setting {
        variables: &["K8S_INSECURE_SKIP_TLS_VERIFY"],
        flag: None,
        meaning: "`true`: whoever answers is taken for the API server",
        default: "`false`",
    },
    Setting {
        variables: &["CALICO_API_GROUP"],
        flag: None,
        meaning: "`projectcalico.org/v3`: Calico's resources are there; anything else: in `crd.projectcalico.org/v1`",
        default: "what the API server has; the old group where it has both",
    },
    Setting {
        variables: &["K8S_CLIENT_QPS", "K8S_CLIENT_BURST"],
        flag: None,
        meaning: "requests to the API server in a second, and how many need not wait",
        default: "5 and 100",
    },
    Setting {
        variables: &["CALICO_ROUTER_ID"],
        flag: Some("--router-id"),
        meaning: "BGP identifier, or `hash`",
        default: "the node's IPv4 address",
    },
    Setting {
        variables: &["CALICO_BGPD_RUN_DIR"],
        flag: Some("--run-dir"),
        meaning: "control socket, lock, state",
        default: "`/var/run/calico`",
    },
    Setting {
        variables: &["CALICO_BGPD_STATE_DIR"],
        flag: Some("--state-dir"),
        meaning: "what has to survive a reboot: the last good state of the datastore",
        default: "`/var/lib/calico-bgpd`",
    },
    Setting {
        variables: &["CALICO_ENDPOINT_STATUS_PATH_PREFIX"],
        flag: None,
        meaning: "folder of Felix's `endpoint-status`, whose files name the local workloads that speak BGP",
        default: "`/var/run/calico`",
    },
    Setting {
        variables: &["CALICO_BGPD_CACHE_WITHOUT_PASSWORDS"],
        flag: None,
        meaning: "`true`: passwords of sessions are not kept there",
        default: "`false`: they are, in a file of mode 0600",
    },
    Setting {
        variables: &["CALICO_BGPD_CONFIRM_LOSSES"],
        flag: Some("--confirm-losses"),
        meaning: "seconds that a mass loss in the datastore must last before it is believed; 0: none",
        default: "30",
    },
    Setting {
        variables: &["CALICO_BGPD_HTTP_ADDRESS"],
        flag: Some("--http-address"),
        meaning: "address and port of `/metrics`, `/healthz` and `/readyz`, or `none`",
        default: "`127.0.0.1:9179`",
    },
    Setting {
        variables: &["CALICO_BGPD_BIRD_SOCKET"],
        flag: Some("--bird-socket"),
        meaning: "socket that answers `birdcl`, or `none`",
        default: "`bird.ctl` in the run directory",
    },
    Setting {
        variables: &["CALICO_BGPD_BIRD6_SOCKET"],
        flag: Some("--bird6-socket"),
        meaning: "socket that answers `birdcl6`, or `none`",
        default: "`bird6.ctl` in the run directory",
    },
    Setting {
        variables: &["CALICO_BGPD_CLUSTER_RELEASE"],
        flag: Some("--cluster-release"),
        meaning: "behave as this release of Calico, or `auto`",
        default: "`auto`: what ClusterInformation says",
    },
    Setting {
        variables: &["CALICO_BGPD_STRICT"],
        flag: Some("--strict"),
        meaning: "`true`: a session whose password cannot be had stays down instead of being unsigned, and one whose BGPFilter does not exist carries no routes",
        default: "`false`",
    },
    Setting {
        variables: &["CALICO_BGPD_MISSING_TUNNEL"],
        flag: Some("--missing-tunnel"),
        meaning: "what routes of IPIP pools do while the device `tunl0` is not there: `wait` keeps what the kernel holds; `underlay` sends them without the tunnel, as BIRD does",
        default: "`wait`",
    },
    Setting {
        variables: &["CALICO_BGPD_SEND_HOLD_TIME"],
        flag: Some("--send-hold-time"),
        meaning: "seconds after which a session ends whose peer takes nothing (RFC 9687), or `off`",
        default: "480, or twice the hold time if that is more",
    },
    Setting {
        variables: &["CALICO_BGPD_MAX_PREFIXES"],
        flag: Some("--max-prefixes"),
        meaning: "prefixes that a peer may send in each family: `LIMIT` or `LIMIT:warn` logs, `LIMIT:close` ends the session (Cease/1) and leaves it down, `LIMIT:restart=SECONDS` tries again later",
        default: "no limit",
    },
    Setting {
        variables: &["CALICO_BGPD_NOTIFICATION_GR"],
        flag: Some("--notification-gr"),
        meaning: "`true`: offer graceful restart also where a NOTIFICATION ends the session (RFC 8538); the OPEN is then no longer BIRD's",
        default: "`false`",
    },
    Setting {
        variables: &["CALICO_BGPD_ACCEPT_AS_SET"],
        flag: Some("--accept-as-set"),
        meaning: "`true`: take paths with an AS_SET instead of withdrawing them (RFC 9774)",
        default: "`false`",
    },
    Setting {
        variables: &["CALICO_BGPD_STRIP_ATTRIBUTES"],
        flag: Some("--strip-attributes"),
        meaning: "codes of attributes that are taken from the routes of external peers, or `none`",
        default: "`22,23,29,40,128`",
    },
    Setting {
        variables: &["CALICO_BGPD_LOG"],
        flag: Some("--log-level"),
        meaning: "`off`, `error`, `warn`, `info`, `debug`, `trace`, or a list as `info,calico_bgpd::net=debug`",
        default: "`BGP_LOGSEVERITYSCREEN`, else the BGPConfiguration's `logSeverityScreen`",
    },
    Setting {
        variables: &["CALICO_BGPD_LOG_FORMAT"],
        flag: Some("--log-format"),
        meaning: "`text` or `json`",
        default: "`text`",
    },
    Setting {
        variables: &["CALICO_BGPD_WORKERS"],
        flag: Some("--workers"),
        meaning: "threads for sockets and datastore, 1 to 64",
        default: "by processors granted",
    },
    Setting {
        variables: &["CALICO_NETWORKING_BACKEND"],
        flag: None,
        meaning: "`none` or `vxlan`: the node speaks no BGP, `run` ends at once",
        default: "",
    },
    Setting {
        variables: &["NAMESPACE"],
        flag: None,
        meaning: "namespace of password Secrets",
        default: "`kube-system`",
    },
    Setting {
        variables: &["USE_POD_CIDR"],
        flag: None,
        meaning: "`true`: pod CIDRs of the Node take the place of IPAM blocks",
        default: "`false`",
    },
    Setting {
        variables: &["CALICO_K8S_NODE_REF"],
        flag: None,
        meaning: "this node's name in EndpointSlices",
        default: "`NODENAME`",
    },
    Setting {
        variables: &["CALICO_ADVERTISE_CLUSTER_IPS"],
        flag: None,
        meaning: "one CIDR that takes the place of `serviceClusterIPs`",
        default: "",
    },
    Setting {
        variables: &["CALICO_NODENAME_FILE"],
        flag: None,
        meaning: "read for the node's name where `NODENAME` is not set",
        default: "`/var/lib/calico/nodename`",
    },
    Setting {
        variables: &["BGP_LOGSEVERITYSCREEN"],
        flag: None,
        meaning: "log level in Calico's words, where `CALICO_BGPD_LOG` is not set",
        default: "",
    },
];

/// Width of a line of `--help`.
const WIDTH: usize = 100;

/// Text for a terminal, which has no backquotes.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// `text` in lines of at most `width` characters; a word that is longer has a line of its own.
fn lines(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The variables, for the end of `--help`.
pub fn environment_help() -> String {
    let column = SETTINGS.iter().map(|setting| setting.variables.join(", ").len()).max().unwrap_or(0) + 2;
    let mut text = String::from("Environment (a flag of the same meaning wins):\n");
    for setting in SETTINGS {
        let mut meaning = plain(setting.meaning);
        if !setting.default.is_empty() {
            meaning = format!("{meaning} [default: {}]", plain(setting.default));
        }
        for (n, line) in lines(&meaning, WIDTH.saturating_sub(column)).iter().enumerate() {
            let name = if n == 0 { setting.variables.join(", ") } else { String::new() };
            let _ = writeln!(text, "  {name:column$}{line}");
        }
    }
    text.push_str("Settings of the datastore are also read with the prefix CALICO_, which wins.\n");
    text
}

/// The table of the README.
pub fn markdown() -> String {
    let code = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut text = String::from("| variable | flag | meaning | default |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let flag = setting.flag.map(|flag| format!("`{flag}`")).unwrap_or_default();
        let row =
            format!("| {} | {flag} | {} | {} |", code(setting.variables), setting.meaning, setting.default);
        text.push_str(&row.replace("|  |", "| |").replace("|  |", "| |"));
        text.push('\n');
    }
    text
}

/// Gives each flag of a command, and of the commands below it, its words.
pub fn describe(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let flag = arg.get_long().map(|long| format!("--{long}"));
        let setting = SETTINGS.iter().find(|setting| setting.flag == flag.as_deref() && flag.is_some());
        match setting {
            None => arg,
            Some(setting) => {
                let default = match setting.default {
                    "" => String::new(),
                    default => format!(" [default: {}]", plain(default)),
                };
                let variables = setting.variables.join(", ");
                arg.help(format!("{} [env: {variables}]{default}", plain(&capital(setting.meaning))))
            }
        }
    });
    command.mut_subcommands(describe)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_meanings_go_on_in_the_next_line_below_their_beginning() {
        assert_eq!(lines("one two three", 7), ["one two", "three"]);
        assert_eq!(lines("immeasurable a", 3), ["immeasurable", "a"]);
    }

    #[test]
    fn no_variable_and_no_flag_stands_in_the_list_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for setting in SETTINGS {
            for name in setting.variables.iter().chain(setting.flag.as_ref()) {
                assert!(seen.insert(*name), "{name} stands there twice");
            }
        }
    }
}
