//! Passwords of sessions.
//!
//! Owns: how a reference to a Secret becomes a key (PEER-80, PEER-82, DS-40, D5).

use super::compile::{Inputs, Problems};
use super::{Auth, Secret};
use crate::datastore::model::{NamespacedName, SecretKeyRef, Severity};

/// Longest key that TCP MD5 can have in Linux.
const MAX_KEY: usize = 80;

/// The key that `reference` leads to. Where there is none the session is not signed, as in the incumbent, but never
/// silently; with `strict` it stays down.
pub(super) fn password(
    inputs: &Inputs<'_>,
    reference: &SecretKeyRef,
    resource: &str,
    field: &str,
    problems: &mut Problems,
) -> Auth {
    let namespace = match inputs.facts.secret_namespace.as_str() {
        "" => "kube-system",
        set => set,
    };
    let name = NamespacedName { namespace: namespace.to_owned(), name: reference.name.clone() };
    let bytes = inputs.snapshot.secrets.get(&name).map(|secret| secret.data.get(&reference.key));
    let why = match bytes {
        Some(Some(bytes)) if (1..=MAX_KEY).contains(&bytes.expose().len()) => {
            return Auth::Key { from: reference.clone(), key: Secret::new(bytes.expose().to_vec()) };
        }
        Some(Some(bytes)) if bytes.expose().is_empty() => {
            format!("{} of Secret/{name} is empty", reference.key)
        }
        Some(Some(bytes)) => {
            let length = bytes.expose().len();
            format!("{} of Secret/{name} has {length} bytes, and TCP MD5 takes {MAX_KEY}", reference.key)
        }
        Some(None) => format!("Secret/{name} has no key {}", reference.key),
        None => format!("there is no Secret/{name}"),
    };
    let effect = if inputs.facts.strict { "the sessions stay down" } else { "the sessions are not signed" };
    problems.add(Severity::Error, resource, field, format!("{why}: {effect}"));
    Auth::Missing(reference.clone())
}
