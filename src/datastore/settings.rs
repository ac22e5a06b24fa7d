//! How the datastore is reached: Calico's environment variables, resolved (DS-1, DS-3, DS-4, DS-5).
//!
//! Owns: [`DatastoreSettings`] and its resolution, pure: the caller hands in a look-up of variables. Never: reads the
//! environment itself.

mod kubernetes;

use std::fmt;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

pub use self::kubernetes::{ApiGroup, KubernetesSettings};
use super::feed::FeedSettings;
use super::tls::{Pem, TlsSettings, is_suite};

/// Where the resources are and how they are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatastoreSettings {
    /// Which datastore.
    pub backend: Backend,
    /// `USE_POD_CIDR` (DS-38).
    pub use_pod_cidr: bool,
    /// What is made of what the datastore says.
    pub feed: FeedSettings,
}

/// A datastore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Backend {
    /// `DATASTORE_TYPE=file`.
    File {
        /// `DATASTORE_PATH`: a file, or a folder of `*.yaml`, `*.yml`, `*.json`.
        path: PathBuf,
    },
    /// `DATASTORE_TYPE=etcdv3`.
    Etcd(EtcdSettings),
    /// `DATASTORE_TYPE=kubernetes`.
    Kubernetes(KubernetesSettings),
}

impl fmt::Display for Backend {
    /// What is read, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backend::File { path } => write!(f, "{}", path.display()),
            Backend::Etcd(etcd) => write!(f, "etcd at {}", etcd.endpoints.join(", ")),
            Backend::Kubernetes(kubernetes) => kubernetes.fmt(f),
        }
    }
}

/// etcd v3.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// `ETCD_ENDPOINTS`: URLs, at least one.
    pub endpoints: Vec<String>,
    /// `ETCD_USERNAME` and `ETCD_PASSWORD`, where both are set.
    pub user: Option<(String, String)>,
    /// For `https://` endpoints.
    pub tls: TlsSettings,
    /// When a silent connection is given up.
    pub liveness: Liveness,
    /// Where Secrets, Services and EndpointSlices come from, if anywhere: etcd has none for Calico (DS-6).
    pub kubernetes: Option<KubernetesSettings>,
}

/// When a silent connection is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Liveness {
    /// A sign of life is asked for after this much silence.
    pub ask_after: Duration,
    /// It must come within this time.
    pub answer_within: Duration,
}

impl Default for Liveness {
    /// 30 s and 10 s (DS-4).
    fn default() -> Self {
        Liveness { ask_after: Duration::from_secs(30), answer_within: Duration::from_secs(10) }
    }
}

impl fmt::Debug for EtcdSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("EtcdSettings")
            .field("endpoints", &self.endpoints)
            .field("user", &user)
            .finish_non_exhaustive()
    }
}

/// Settings that name no usable datastore: fatal at start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingsError {
    /// Another word in `DATASTORE_TYPE`.
    #[error(
        "DATASTORE_TYPE={0:?} is not known; use kubernetes, etcdv3 (with ETCD_ENDPOINTS) or file (with DATASTORE_PATH)"
    )]
    UnknownType(String),
    /// Kubernetes, said or inferred, with nothing that says where.
    #[error(
        "the datastore is Kubernetes{}, and nothing says where that is: set KUBECONFIG or K8S_API_ENDPOINT, or run in a pod \
         (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT); for others, DATASTORE_TYPE=etcdv3 with ETCD_ENDPOINTS, or \
         DATASTORE_TYPE=file with DATASTORE_PATH",
        if *.inferred { " (it is the default where none of DATASTORE_TYPE, ETCD_ENDPOINTS and DATASTORE_PATH is set)" } else { "" }
    )]
    NoKubernetes {
        /// `DATASTORE_TYPE` is empty and so is `ETCD_ENDPOINTS`.
        inferred: bool,
    },
    /// A variable of DS-5.
    #[error("{name}: {value:?} {why}")]
    Kubernetes {
        /// Variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// Why it cannot be used.
        why: &'static str,
    },
    /// `file` without a path.
    #[error("DATASTORE_TYPE=file needs DATASTORE_PATH: a file, or a folder of *.yaml, *.yml, *.json")]
    NoPath,
    /// etcd without an endpoint.
    #[error("DATASTORE_TYPE=etcdv3 needs ETCD_ENDPOINTS, as http://10.0.0.1:2379,http://10.0.0.2:2379")]
    NoEndpoints,
    /// Both ways to name endpoints (DS-4).
    #[error("ETCD_DISCOVERY_SRV and ETCD_ENDPOINTS must not be set together")]
    EndpointsTwice,
    /// SRV discovery.
    #[error("ETCD_DISCOVERY_SRV is not supported yet; use ETCD_ENDPOINTS")]
    Discovery,
    /// Half of what is needed, or two ways at once.
    #[error("{0}")]
    Tls(&'static str),
    /// A cipher suite that is none.
    #[error(
        "TLS_CIPHER_SUITES: {0:?} is no cipher suite by Go's names, as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    )]
    Suite(String),
    /// An endpoint that cannot be used.
    #[error("ETCD_ENDPOINTS: {endpoint:?} {why}")]
    Endpoint {
        /// As written.
        endpoint: String,
        /// Why.
        why: &'static str,
    },
    /// A variable that is no boolean (DS-5).
    #[error("{name}={value:?} is not true or false")]
    Boolean {
        /// Variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

impl DatastoreSettings {
    /// Resolves the settings; `get` looks up an environment variable by its exact name.
    ///
    /// # Errors
    ///
    /// Where the variables name no datastore that can be used.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        // DS-1: the prefixed variable counts even where it is set to nothing.
        let var = |name: &str| get(&format!("CALICO_{name}")).or_else(|| get(name)).unwrap_or_default();
        let (kind, endpoints) = (var("DATASTORE_TYPE"), var("ETCD_ENDPOINTS"));
        let path = var("DATASTORE_PATH");
        let backend = match (kind.as_str(), endpoints.is_empty()) {
            // Who names files, and nothing else, means them.
            ("", true) if !path.is_empty() => Backend::File { path: path.into() },
            ("file", _) => {
                if path.is_empty() {
                    return Err(SettingsError::NoPath);
                }
                Backend::File { path: path.into() }
            }
            ("etcdv3", _) | ("", false) => Backend::Etcd(etcd(&endpoints, &get, &var)?),
            ("kubernetes", _) | ("", true) => Backend::Kubernetes(KubernetesSettings::from_env(&get, &var)?),
            _ => return Err(SettingsError::UnknownType(kind)),
        };
        let name = "USE_POD_CIDR";
        let use_pod_cidr = match var(name) {
            unset if unset.is_empty() => false,
            value => boolean(&value).ok_or(SettingsError::Boolean { name, value })?,
        };
        Ok(DatastoreSettings { backend, use_pod_cidr, feed: FeedSettings::default() })
    }
}

fn etcd(
    endpoints: &str,
    get: &dyn Fn(&str) -> Option<String>,
    var: &dyn Fn(&str) -> String,
) -> Result<EtcdSettings, SettingsError> {
    if !var("ETCD_DISCOVERY_SRV").is_empty() {
        return Err(if endpoints.is_empty() {
            SettingsError::Discovery
        } else {
            SettingsError::EndpointsTwice
        });
    }
    let endpoints: Vec<String> =
        endpoints.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
    if endpoints.is_empty() {
        return Err(SettingsError::NoEndpoints);
    }
    for endpoint in &endpoints {
        let refused =
            |endpoint: &str, why| Err(SettingsError::Endpoint { endpoint: endpoint.to_owned(), why });
        match endpoint.split_once("://") {
            // What stands before the @ is not for the log.
            Some((_, rest)) if rest.contains('@') => {
                let host = rest.rsplit('@').next().unwrap_or_default();
                return refused(host, "has a user name before it; use ETCD_USERNAME and ETCD_PASSWORD");
            }
            Some((scheme, rest))
                if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
                    && names_a_host(rest) => {}
            _ => return refused(endpoint, "is no URL, as http://10.0.0.1:2379"),
        }
    }
    let (name, password) = (var("ETCD_USERNAME"), var("ETCD_PASSWORD"));
    let user = (!name.is_empty() && !password.is_empty()).then_some((name, password));
    let kubernetes = match !var("KUBECONFIG").is_empty()
        || get("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty())
    {
        true => Some(KubernetesSettings::from_env(get, var)?),
        false => None,
    };
    Ok(EtcdSettings { endpoints, user, tls: tls(var)?, liveness: Liveness::default(), kubernetes })
}

/// Of texts and files, the files or the texts (DS-4); versions and suites (DS-7).
fn tls(var: &dyn Fn(&str) -> String) -> Result<TlsSettings, SettingsError> {
    let set = |name: &str| Some(var(name)).filter(|value| !value.is_empty());
    let file = |name: &str| set(name).map(|path| Pem::File(path.into()));
    let inline = |name: &str| set(name).map(|text| Pem::Inline(text.into()));
    let files = [file("ETCD_CA_CERT_FILE"), file("ETCD_CERT_FILE"), file("ETCD_KEY_FILE")];
    let texts = [inline("ETCD_CA_CERT"), inline("ETCD_CERT"), inline("ETCD_KEY")];
    let some = |three: &[Option<Pem>; 3]| three.iter().any(Option::is_some);
    if some(&files) && some(&texts) {
        return Err(SettingsError::Tls(
            "etcd's CA, certificate and key are set as files and as texts; only one of both",
        ));
    }
    let [ca, cert, key] = if some(&texts) { texts } else { files };
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(SettingsError::Tls("ETCD_CERT_FILE and ETCD_KEY_FILE are of use only together")),
    };
    let suites: Vec<String> = var("TLS_CIPHER_SUITES")
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if let Some(unknown) = suites.iter().find(|name| !is_suite(name)) {
        return Err(SettingsError::Suite(unknown.clone()));
    }
    Ok(TlsSettings { ca, identity, only_1_3: var("TLS_MIN_VERSION") == "1.3", suites })
}

/// Whether it is `<host>[:<port>]`, an IPv6 address in brackets, perhaps with a path behind it.
fn names_a_host(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some(inner) = authority.strip_prefix('[') {
        let alone = inner.strip_suffix(']').is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
        return alone || authority.parse::<SocketAddrV6>().is_ok_and(|host| host.port() != 0);
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Go's words for booleans (DS-5).
pub fn boolean(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(vars: &[(&str, &str)]) -> Result<DatastoreSettings, SettingsError> {
        DatastoreSettings::from_env(|name| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn endpoints(vars: &[(&str, &str)]) -> Vec<String> {
        match resolve(vars).unwrap().backend {
            Backend::Etcd(etcd) => etcd.endpoints,
            other => panic!("etcd expected, not {other}"),
        }
    }

    #[test]
    fn without_endpoints_the_datastore_is_kubernetes() {
        for vars in [&[][..], &[("DATASTORE_TYPE", "kubernetes"), ("ETCD_ENDPOINTS", "http://a:1")]] {
            assert!(matches!(resolve(vars).unwrap().backend, Backend::Kubernetes(_)));
        }
    }

    #[test]
    fn beside_etcd_kubernetes_is_read_where_something_says_where_it_is() {
        let beside = |vars: &[(&str, &str)]| {
            let vars = [&[("ETCD_ENDPOINTS", "http://a:1")], vars].concat();
            match resolve(&vars).unwrap().backend {
                Backend::Etcd(etcd) => etcd.kubernetes.map(|kubernetes| kubernetes.to_string()),
                other => panic!("etcd expected, not {other}"),
            }
        };
        assert_eq!(beside(&[("HOME", "/root")]), None);
        assert_eq!(beside(&[("KUBECONFIG", "/k")]).as_deref(), Some("Kubernetes by /k"));
        let pod = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
        assert_eq!(beside(&pod).as_deref(), Some("Kubernetes at 10.96.0.1 port 443"));
    }

    #[test]
    fn endpoints_alone_mean_etcd() {
        assert_eq!(
            endpoints(&[("ETCD_ENDPOINTS", "http://a:2379, http://b:2379,")]),
            ["http://a:2379", "http://b:2379"]
        );
    }

    #[test]
    fn the_prefixed_variable_wins_even_where_it_is_empty() {
        assert_eq!(
            endpoints(&[("ETCD_ENDPOINTS", "http://a:1"), ("CALICO_ETCD_ENDPOINTS", "http://b:1")]),
            ["http://b:1"]
        );
        let emptied = resolve(&[("ETCD_ENDPOINTS", "http://a:1"), ("CALICO_ETCD_ENDPOINTS", "")]);
        assert!(matches!(emptied.unwrap().backend, Backend::Kubernetes(_)));
    }

    #[test]
    fn the_file_datastore_needs_a_path_and_ignores_endpoints() {
        assert_eq!(resolve(&[("DATASTORE_TYPE", "file")]), Err(SettingsError::NoPath));
        let only_path = resolve(&[("DATASTORE_PATH", "/c")]).unwrap();
        assert_eq!(only_path.backend, Backend::File { path: "/c".into() });
        let kubernetes = resolve(&[("DATASTORE_PATH", "/c"), ("DATASTORE_TYPE", "kubernetes")]);
        assert!(matches!(kubernetes.unwrap().backend, Backend::Kubernetes(_)));
        let settings = resolve(&[
            ("DATASTORE_TYPE", "file"),
            ("DATASTORE_PATH", "/etc/cluster"),
            ("ETCD_ENDPOINTS", "http://a:1"),
            ("USE_POD_CIDR", "True"),
        ]);
        let backend = Backend::File { path: "/etc/cluster".into() };
        assert_eq!(
            settings,
            Ok(DatastoreSettings { backend, use_pod_cidr: true, feed: FeedSettings::default() })
        );
    }

    #[test]
    fn what_cannot_be_used_is_one_clear_line() {
        let cases: [(&[(&str, &str)], &str); 16] = [
            (&[("DATASTORE_TYPE", "etcd")], "DATASTORE_TYPE=\"etcd\" is not known"),
            (&[("DATASTORE_TYPE", "etcdv3")], "needs ETCD_ENDPOINTS"),
            (&[("ETCD_ENDPOINTS", "https://a:1"), ("ETCD_KEY_FILE", "/k")], "of use only together"),
            (&[("ETCD_ENDPOINTS", "https://a:1"), ("TLS_CIPHER_SUITES", "x")], "\"x\" is no cipher suite"),
            (&[("ETCD_ENDPOINTS", "a:1")], "is no URL"),
            (&[("ETCD_ENDPOINTS", "http://a:99999")], "\"http://a:99999\" is no URL"),
            (&[("ETCD_ENDPOINTS", "http://a:0")], "is no URL"),
            (&[("ETCD_ENDPOINTS", "http://:2379")], "is no URL"),
            (&[("ETCD_ENDPOINTS", "http://fd00::1:2379")], "is no URL"),
            (&[("ETCD_ENDPOINTS", "http://[::1:2379")], "is no URL"),
            (&[("ETCD_ENDPOINTS", "http://[::1]2379")], "is no URL"),
            (&[("ETCD_ENDPOINTS", "http://a:1 http://b:1")], "is no URL"),
            (&[("ETCD_ENDPOINTS", "http:///x")], "is no URL"),
            (
                &[("DATASTORE_TYPE", "etcdv3"), ("ETCD_DISCOVERY_SRV", "x")],
                "ETCD_DISCOVERY_SRV is not supported",
            ),
            (&[("ETCD_ENDPOINTS", "http://a:1"), ("ETCD_DISCOVERY_SRV", "x")], "must not be set together"),
            (&[("ETCD_ENDPOINTS", "http://a:1"), ("USE_POD_CIDR", "maybe")], "USE_POD_CIDR=\"maybe\""),
        ];
        for (vars, part) in cases {
            let line = resolve(vars).unwrap_err().to_string();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn urls_of_hosts_are_taken_with_and_without_port_and_path() {
        for url in [
            "http://a",
            "http://a:1/",
            "HTTP://etcd_0.x-y:2379",
            "http://10.0.0.1:1",
            "http://[::1]",
            "http://[fd00::1]:2379/",
            "https://a:1",
            "HTTPS://a:1",
        ] {
            assert_eq!(endpoints(&[("ETCD_ENDPOINTS", url)]), [url]);
        }
    }

    #[test]
    fn tls_is_set_by_files_with_or_without_a_client_certificate() {
        let of = |vars: &[(&str, &str)]| {
            let vars = [&[("ETCD_ENDPOINTS", "https://a:1")], vars].concat();
            match resolve(&vars).unwrap().backend {
                Backend::Etcd(etcd) => etcd.tls,
                other => panic!("etcd expected, not {other}"),
            }
        };
        assert_eq!(of(&[("TLS_MIN_VERSION", "1.2")]), TlsSettings::default());
        let file = |path: &str| Pem::File(path.into());
        let all = of(&[
            ("ETCD_CA_CERT_FILE", "/ca"),
            ("CALICO_ETCD_CERT_FILE", "/cert"),
            ("ETCD_KEY_FILE", "/key"),
            ("TLS_MIN_VERSION", "1.3"),
            ("TLS_CIPHER_SUITES", "TLS_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_128_CBC_SHA"),
        ]);
        assert_eq!(
            (all.ca.clone(), all.identity.clone()),
            (Some(file("/ca")), Some((file("/cert"), file("/key"))))
        );
        assert!(all.only_1_3);
        assert_eq!(all.lacking(), ["TLS_RSA_WITH_AES_128_CBC_SHA"]);
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_printed() {
        let line = resolve(&[("ETCD_ENDPOINTS", "http://root:hush@a:1")]).unwrap_err().to_string();
        assert!(line.contains("ETCD_USERNAME") && line.contains("a:1") && !line.contains("hush"), "{line}");
    }

    #[test]
    fn a_password_is_used_only_with_a_name_and_never_printed() {
        let with = |vars: &[(&str, &str)]| match resolve(vars).unwrap().backend {
            Backend::Etcd(etcd) => etcd,
            other => panic!("etcd expected, not {other}"),
        };
        let e = ("ETCD_ENDPOINTS", "http://a:1");
        assert_eq!(with(&[e, ("ETCD_USERNAME", "root")]).user, None);
        let etcd = with(&[e, ("ETCD_USERNAME", "root"), ("ETCD_PASSWORD", "hush")]);
        assert!(etcd.user.is_some() && !format!("{etcd:?}").contains("hush"));
    }
}
