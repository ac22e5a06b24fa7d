//! TCP MD5 keys of sessions: from a reference to the bytes, or what happens without them.
//!
//! Owns: PEER-80 to PEER-83, PEER-85. A missing key leaves the session unsigned and is a problem, as the incumbent does
//! but never silently; with `strict` the session stays down. A key that disappears while it is in use stays in use in
//! both modes ([`retain_keys`]). Never: reads Secrets from anywhere but the snapshot, or prints a key.

use std::sync::Arc;

use super::inputs::{Inputs, Problems};
use super::{Auth, DesiredState};
use crate::model::{Code, NamespacedName, SecretKeyRef};

/// Namespace of password Secrets where `NAMESPACE` is not set (DS-40).
pub const DEFAULT_SECRET_NAMESPACE: &str = "kube-system";
/// Longest key that the kernel takes (TCP_MD5SIG_MAXKEYLEN), in bytes.
const MAX_KEY: usize = 80;

/// The key that `field` of `resource` refers to.
pub(super) fn of(
    inputs: &Inputs<'_>,
    password: Option<&SecretKeyRef>,
    resource: &str,
    field: &str,
    problems: &mut Problems,
) -> Auth {
    let Some(from) = password else { return Auth::None };
    let namespace = match inputs.facts.secret_namespace.as_str() {
        "" => DEFAULT_SECRET_NAMESPACE,
        namespace => namespace,
    };
    let name = NamespacedName { namespace: namespace.to_owned(), name: from.name.clone() };
    let secret = inputs.snapshot.secrets.get(&name);
    let key = secret.and_then(|secret| secret.data.get(&from.key));
    let missing = match (secret, key) {
        _ if from.name.is_empty() || from.key.is_empty() => "it names no key of a Secret".to_owned(),
        (None, _) if inputs.facts.on_etcd => {
            format!(
                "Secret/{name} cannot be had: Secrets are objects of Kubernetes, and etcd holds none for Calico"
            )
        }
        (None, _) => format!("there is no Secret/{name}"),
        (Some(_), None) => format!("Secret/{name} has no key {:?}", from.key),
        (Some(_), Some(key)) if key.expose().is_empty() => {
            format!("{:?} of Secret/{name} is empty", from.key)
        }
        (Some(_), Some(key)) if key.expose().len() > MAX_KEY => {
            let why = format!(
                "{:?} of Secret/{name} has {} bytes, and TCP MD5 takes {MAX_KEY}: sessions that have a key of it already keep \
                 that, others stay down",
                from.key,
                key.expose().len()
            );
            problems.add(Code::InvalidPassword, resource, field, why);
            return Auth::Withheld(from.clone());
        }
        (Some(_), Some(key)) => {
            if key.expose().ends_with(b"\n") {
                let why =
                    format!("{:?} of Secret/{name} ends in a newline, which is part of the key", from.key);
                problems.add(Code::DoubtfulPassword, resource, field, why);
            }
            return Auth::Key { from: from.clone(), key: key.clone() };
        }
    };
    let (then, auth) = if inputs.facts.strict {
        ("stay down (strict)", Auth::Withheld(from.clone()))
    } else {
        ("are not signed", Auth::Missing(from.clone()))
    };
    let why = format!("{missing}: sessions that have a key of it already keep it, others {then}");
    problems.add(Code::MissingSecret, resource, field, why);
    auth
}

/// Gives sessions whose key has disappeared the key that they had, as long as they refer to the same one: a
/// Secret that disappears while it is in use must not cost a session.
pub fn retain_keys(old: &DesiredState, new: &mut DesiredState) {
    for (key, peer) in &mut new.peers {
        let (Auth::Missing(wanted) | Auth::Withheld(wanted)) = &peer.auth else { continue };
        if let Some(Auth::Key { from, key }) = old.peers.get(key).map(|old| &old.auth)
            && from == wanted
        {
            Arc::make_mut(peer).auth = Auth::Key { from: from.clone(), key: key.clone() };
        }
    }
}
