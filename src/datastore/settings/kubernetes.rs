//! How the Kubernetes API is reached: variables of DS-5, resolved.
//!
//! Owns: [`KubernetesSettings`], pure: the caller hands in a look-up of variables. Which of the ways counts is said
//! here, whether its files are there only when a connection is made: they are read again for each. Never: reads a file
//! or the environment itself.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{Liveness, SettingsError, boolean, names_a_host};

/// Where a pod finds its token, the authority of the API server and its namespace.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Requests in a second where `K8S_CLIENT_QPS` is not set: what client-go has.
const QPS: f64 = 5.0;
/// Requests that need not wait where `K8S_CLIENT_BURST` is not set (DS-5).
const BURST: u32 = 100;
/// How long a watch may be silent: the API server sends a bookmark each minute.
const SILENCE: Duration = Duration::from_secs(150);

/// Which of Calico's API groups holds its resources (DS-30).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApiGroup {
    /// What discovery shows.
    Discover,
    /// `crd.projectcalico.org/v1`.
    V1,
    /// `projectcalico.org/v3`.
    V3,
}

/// The Kubernetes API.
#[derive(Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// `KUBECONFIG`: files that are merged, the first that says a thing counts.
    pub kubeconfig: Vec<PathBuf>,
    /// `$HOME/.kube/config`: used where no other way is named and it is there.
    pub home: Option<PathBuf>,
    /// `K8S_API_ENDPOINT`: the server's URL.
    pub endpoint: Option<String>,
    /// `K8S_CA_FILE`.
    pub ca_file: Option<PathBuf>,
    /// `K8S_CERT_FILE`.
    pub cert_file: Option<PathBuf>,
    /// `K8S_KEY_FILE`.
    pub key_file: Option<PathBuf>,
    /// `CALICO_K8SAPITOKEN`.
    pub token: Option<Zeroizing<String>>,
    /// `K8S_INSECURE_SKIP_TLS_VERIFY`.
    pub insecure: bool,
    /// `K8S_CURRENT_CONTEXT`.
    pub context: Option<String>,
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, as a pod has them.
    pub in_cluster: Option<(String, u16)>,
    /// The folder of the service account.
    pub service_account: PathBuf,
    /// `CALICO_API_GROUP`.
    pub api_group: ApiGroup,
    /// `K8S_CLIENT_QPS`, as the time between two requests.
    pub interval: Duration,
    /// `K8S_CLIENT_BURST`: requests that need not wait.
    pub burst: u32,
    /// `NAMESPACE`: where the Secrets are (DS-40).
    pub secret_namespace: String,
    /// When a silent connection is given up.
    pub liveness: Liveness,
    /// When a silent watch is given up.
    pub silence: Duration,
}

impl fmt::Debug for KubernetesSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KubernetesSettings({self})")
    }
}

impl fmt::Display for KubernetesSettings {
    /// Which cluster, for people; the same for each start of a pod.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.endpoint, self.kubeconfig.as_slice(), &self.in_cluster) {
            (Some(endpoint), ..) => write!(f, "Kubernetes at {endpoint}"),
            (None, [], Some((host, port))) => write!(f, "Kubernetes at {host} port {port}"),
            (None, [], None) => match &self.home {
                Some(path) => write!(f, "Kubernetes by {}", path.display()),
                None => f.write_str("Kubernetes"),
            },
            (None, files, _) => {
                f.write_str("Kubernetes by")?;
                files.iter().try_for_each(|path| write!(f, " {}", path.display()))
            }
        }
    }
}

impl KubernetesSettings {
    /// Resolves them; `get` looks up a variable by its exact name, `var` also with Calico's prefix (DS-1).
    ///
    /// # Errors
    ///
    /// Where a variable has a value that cannot be meant.
    pub fn from_env(
        get: &dyn Fn(&str) -> Option<String>,
        var: &dyn Fn(&str) -> String,
    ) -> Result<Self, SettingsError> {
        let set = |name: &str| Some(var(name)).filter(|value| !value.trim().is_empty());
        let file = |name: &str| set(name).map(PathBuf::from);
        let plain = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let wrong = |name: &'static str, value: String, why| SettingsError::Kubernetes { name, value, why };
        let endpoint = set("K8S_API_ENDPOINT").map(|url| url.trim().trim_end_matches('/').to_owned());
        if let Some(url) = &endpoint {
            let host = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
            if !host.is_some_and(|(_, host)| names_a_host(host)) {
                return Err(wrong("K8S_API_ENDPOINT", url.clone(), "is no URL, as https://10.96.0.1:443"));
            }
        }
        let (cert_file, key_file) = (file("K8S_CERT_FILE"), file("K8S_KEY_FILE"));
        if cert_file.is_some() != key_file.is_some() {
            return Err(SettingsError::Tls("K8S_CERT_FILE and K8S_KEY_FILE are of use only together"));
        }
        let name = "K8S_INSECURE_SKIP_TLS_VERIFY";
        let insecure = match set(name) {
            None => false,
            Some(value) => boolean(value.trim()).ok_or(SettingsError::Boolean { name, value })?,
        };
        let name = "K8S_CLIENT_QPS";
        let qps = match set(name) {
            None => QPS,
            Some(value) => match value.trim().parse::<f64>() {
                // Nothing is what client-go takes for its default.
                Ok(0.0) => QPS,
                Ok(qps) if qps > 0.001 && qps.is_finite() => qps,
                _ => return Err(wrong(name, value, "is no number of requests in a second")),
            },
        };
        let name = "K8S_CLIENT_BURST";
        let burst = match set(name) {
            None => BURST,
            Some(value) => match value.trim().parse() {
                Ok(0) => BURST,
                Ok(burst) => burst,
                Err(_) => return Err(wrong(name, value, "is no number of requests")),
            },
        };
        let port = plain("KUBERNETES_SERVICE_PORT").and_then(|port| port.trim().parse().ok());
        Ok(KubernetesSettings {
            kubeconfig: set("KUBECONFIG")
                .map(|list| list.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect())
                .unwrap_or_default(),
            home: plain("HOME").map(|home| PathBuf::from(home).join(".kube/config")),
            endpoint,
            ca_file: file("K8S_CA_FILE"),
            cert_file,
            key_file,
            token: plain("CALICO_K8SAPITOKEN").map(|token| Zeroizing::new(token.trim().to_owned())),
            insecure,
            context: set("K8S_CURRENT_CONTEXT"),
            in_cluster: plain("KUBERNETES_SERVICE_HOST").map(|host| host.trim().to_owned()).zip(port),
            service_account: PathBuf::from(SERVICE_ACCOUNT),
            api_group: match set("CALICO_API_GROUP") {
                None => ApiGroup::Discover,
                Some(group) if group.trim().eq_ignore_ascii_case("projectcalico.org/v3") => ApiGroup::V3,
                Some(_) => ApiGroup::V1,
            },
            interval: Duration::from_secs_f64(1.0 / qps),
            burst,
            secret_namespace: plain("NAMESPACE")
                .map_or_else(|| "kube-system".to_owned(), |namespace| namespace.trim().to_owned()),
            liveness: Liveness::default(),
            silence: SILENCE,
        })
    }

    /// The file in the home folder, where no other way is named: if that is not there, there is no way at all.
    pub fn only_by_home(&self) -> Option<Option<&PathBuf>> {
        let other = !self.kubeconfig.is_empty() || self.endpoint.is_some() || self.in_cluster.is_some();
        (!other).then_some(self.home.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(vars: &[(&str, &str)]) -> Result<KubernetesSettings, SettingsError> {
        let get =
            |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let var = |name: &str| get(&format!("CALICO_{name}")).or_else(|| get(name)).unwrap_or_default();
        KubernetesSettings::from_env(&get, &var)
    }

    #[test]
    fn a_pod_needs_no_setting_of_its_own() {
        let pod = resolve(&[
            ("KUBERNETES_SERVICE_HOST", "fd00::1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("HOME", "/root"),
        ])
        .unwrap();
        assert_eq!(pod.in_cluster, Some(("fd00::1".to_owned(), 443)));
        assert_eq!((pod.burst, pod.interval), (100, Duration::from_millis(200)));
        assert_eq!((pod.secret_namespace.as_str(), pod.only_by_home()), ("kube-system", None));
        assert_eq!(pod.to_string(), "Kubernetes at fd00::1 port 443");
    }

    #[test]
    fn each_variable_of_the_connection_is_read_with_and_without_the_prefix() {
        let all = resolve(&[
            ("KUBECONFIG", "/a:/b"),
            ("K8S_API_ENDPOINT", "https://[fd00::1]:6443/"),
            ("CALICO_K8S_CA_FILE", "/ca"),
            ("K8S_CERT_FILE", "/cert"),
            ("K8S_KEY_FILE", "/key"),
            ("CALICO_K8SAPITOKEN", "hush"),
            ("K8S_INSECURE_SKIP_TLS_VERIFY", "T"),
            ("K8S_CURRENT_CONTEXT", "x"),
            ("CALICO_API_GROUP", "ProjectCalico.org/v3"),
            ("K8S_CLIENT_QPS", "0.5"),
            ("K8S_CLIENT_BURST", "7"),
            ("NAMESPACE", "calico-system"),
        ])
        .unwrap();
        assert_eq!(all.kubeconfig, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(all.endpoint.as_deref(), Some("https://[fd00::1]:6443"));
        let files = [&all.ca_file, &all.cert_file, &all.key_file];
        assert_eq!(files, [&Some("/ca".into()), &Some("/cert".into()), &Some("/key".into())]);
        assert!(all.insecure && all.api_group == ApiGroup::V3);
        assert_eq!((all.interval, all.burst), (Duration::from_secs(2), 7));
        assert_eq!(all.secret_namespace, "calico-system");
        assert!(all.token.is_some() && !format!("{all:?}").contains("hush"), "no token is printed");
        assert_eq!(resolve(&[("CALICO_API_GROUP", "x")]).unwrap().api_group, ApiGroup::V1);
        assert_eq!(resolve(&[("K8SAPITOKEN", "x")]).unwrap().token, None, "there is no such variable");
    }

    #[test]
    fn what_cannot_be_meant_is_one_clear_line() {
        for (name, value, part) in [
            ("K8S_API_ENDPOINT", "10.96.0.1:443", "is no URL"),
            ("K8S_INSECURE_SKIP_TLS_VERIFY", "maybe", "\"maybe\" is not true or false"),
            ("K8S_CLIENT_QPS", "-1", "K8S_CLIENT_QPS: \"-1\" is no number"),
            ("K8S_CLIENT_BURST", "many", "is no number of requests"),
            ("K8S_CERT_FILE", "/cert", "of use only together"),
        ] {
            let line = resolve(&[(name, value)]).unwrap_err().to_string();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
    }
}
