//! What is left of ours in the kernel when nobody runs, and its removal (`calico-bgpd cleanup`).
//!
//! Owns: nothing. Never: touches what has another mark than ours. For a node that no longer runs this daemon: routes
//! stay when it ends (KRT-49), and nobody else removes them. For a node that ran a BIRD until now: that it goes on
//! forwarding shows in the kernel alone.

use std::collections::BTreeMap;

use bgp_proto::{AfiSet, IpPrefix};

use super::mirror::Mirror;
use super::plan::{Written, all_prefixes, plan};
use super::{Kernel, KernelError, PROTOCOL, Phase, Refusal, RouteOp, view};

/// A route of ours in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leftover {
    /// Its prefix.
    pub prefix: IpPrefix,
    /// It, in the words of `ip route`.
    pub words: String,
}

/// Every route of table main with our mark, and the operations that remove them.
///
/// # Errors
/// The kernel cannot be read.
pub async fn find(kernel: &mut impl Kernel) -> Result<(Vec<Leftover>, Vec<RouteOp>), KernelError> {
    let mirror = read(kernel).await?;
    let nothing = BTreeMap::new();
    let prefixes = all_prefixes(&nothing, &mirror);
    let mut found = Vec::new();
    for prefix in &prefixes {
        for seen in mirror.routes_at(*prefix).iter().filter(|seen| seen.protocol == PROTOCOL) {
            let words = match &seen.target {
                Some(target) => view::words(target, seen.metric, None, &mirror),
                None => "of another kind".to_owned(),
            };
            found
                .push(Leftover { prefix: *prefix, words: format!("{prefix} {words}").trim_end().to_owned() });
        }
    }
    let planned = plan(prefixes, &nothing, &mirror, Phase::Normal, &Written::default());
    Ok((found, planned.plan.operations()))
}

/// The families in which the kernel holds routes of table main with our mark.
///
/// # Errors
/// The kernel cannot be read.
pub async fn families(kernel: &mut impl Kernel) -> Result<AfiSet, KernelError> {
    let mirror = read(kernel).await?;
    Ok(mirror.owned().map(IpPrefix::afi).fold(AfiSet::EMPTY, AfiSet::with))
}

/// The kernel as it is.
///
/// # Errors
/// It cannot be read.
pub async fn read(kernel: &mut impl Kernel) -> Result<Mirror, KernelError> {
    let (snapshot, notices) = kernel.dump().await?;
    let mut mirror = Mirror::new();
    mirror.load(snapshot);
    for notice in notices {
        mirror.apply(notice);
    }
    Ok(mirror)
}

/// Does the operations; what the kernel refused, and why.
///
/// # Errors
/// The kernel cannot be spoken to.
pub async fn remove(
    kernel: &mut impl Kernel,
    operations: &[RouteOp],
) -> Result<Vec<(IpPrefix, Refusal)>, KernelError> {
    let applied = kernel.apply(operations).await?;
    let results = operations.iter().zip(applied.results);
    Ok(results.filter_map(|(op, result)| Some((op.prefix(), result.err()?))).collect())
}
