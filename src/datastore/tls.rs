//! TLS of the datastore's clients (DS-4, DS-7).
//!
//! Owns: [`TlsSettings`], the texts of CA, certificate and key, read again for each connection so that rotated files
//! count; which versions and cipher suites are offered. Suites that rustls does not have (CBC, RSA key exchange, RC4) are
//! named, not ignored. Never: prints a key.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// A PEM text, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file.
    File(PathBuf),
    /// The text itself, as a `CalicoAPIConfig` may have it.
    Inline(Zeroizing<String>),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "{}", path.display()),
            Pem::Inline(_) => f.write_str("…"),
        }
    }
}

impl Pem {
    /// The text.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, with its name.
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        match self {
            Pem::Inline(text) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
            Pem::File(path) => match std::fs::read(path) {
                Ok(text) => Ok(Zeroizing::new(text)),
                Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
            },
        }
    }
}

/// How connections are secured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsSettings {
    /// Whom to trust; the system's authorities where it is not set.
    pub ca: Option<Pem>,
    /// Our certificate and its key.
    pub identity: Option<(Pem, Pem)>,
    /// TLS 1.3 and nothing older.
    pub only_1_3: bool,
    /// Suites of TLS 1.2 by Go's names; empty: those with ECDHE. Those of TLS 1.3 cannot be chosen, as in Go.
    pub suites: Vec<String>,
}

/// Go's names of suites that rustls has, in its own words.
const SUITES: [(&str, &str); 8] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];
/// Suites of TLS 1.3: always offered.
const ALWAYS: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
/// Suites that Go knows and rustls does not have.
const LACKING: [&str; 14] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// Whether a name of `TLS_CIPHER_SUITES` is one of Go's; any other is fatal (DS-7).
pub fn is_suite(name: &str) -> bool {
    SUITES.iter().any(|(known, _)| *known == name) || ALWAYS.contains(&name) || LACKING.contains(&name)
}

impl TlsSettings {
    /// The names that were asked for and are not to be had.
    pub fn lacking(&self) -> Vec<&str> {
        self.suites.iter().map(String::as_str).filter(|name| LACKING.contains(name)).collect()
    }

    /// Offers these versions and suites from now on, for the whole process; says which suites are not to be had.
    #[cfg(feature = "etcd")]
    pub fn install(&self) {
        let lacking = self.lacking();
        if !lacking.is_empty() {
            tracing::warn!("TLS_CIPHER_SUITES: not to be had here, and left out: {}", lacking.join(", "));
        }
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites.retain(|suite| {
            let Some(name) = suite.suite().as_str() else { return false };
            // rustls writes TLS13_ before those of TLS 1.3.
            let of_1_3 = suite.tls13().is_some();
            of_1_3 || (!self.only_1_3 && self.allows(name))
        });
        // Who comes second finds the same settings there.
        let _ = provider.install_default();
    }

    #[cfg(feature = "etcd")]
    fn allows(&self, name: &str) -> bool {
        let chosen = |(go, ours): &(&str, &str)| *ours == name && self.suites.iter().any(|suite| suite == go);
        self.suites.is_empty() || SUITES.iter().any(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_known_by_gos_names_and_those_that_are_lacking_are_named() {
        assert!(is_suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256") && is_suite("TLS_AES_128_GCM_SHA256"));
        assert!(!is_suite("ECDHE-RSA-AES128-GCM-SHA256"));
        let suites = ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"];
        let settings = TlsSettings { suites: suites.map(str::to_owned).to_vec(), ..TlsSettings::default() };
        assert_eq!(settings.lacking(), ["TLS_RSA_WITH_AES_128_CBC_SHA"]);
    }

    #[cfg(feature = "etcd")]
    #[test]
    fn every_suite_of_the_table_is_one_of_rustls() {
        let provider = rustls::crypto::ring::default_provider();
        let have: Vec<&str> =
            provider.cipher_suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
        for (_, ours) in SUITES {
            assert!(have.contains(&ours), "{ours}: {have:?}");
        }
        let chosen = TlsSettings { suites: vec![SUITES[6].0.to_owned()], ..TlsSettings::default() };
        assert!(chosen.allows(SUITES[6].1) && !chosen.allows(SUITES[0].1));
    }

    #[test]
    fn no_key_is_printed() {
        let inline = Pem::Inline(Zeroizing::new("hush".to_owned()));
        let settings = TlsSettings { identity: Some((inline.clone(), inline)), ..TlsSettings::default() };
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
