//! A kernel that is only read: what would be written is said instead (`run --dry-run`).
//!
//! Owns: what would be there if it had been written, so that the reconciler sees its writes done and goes on. Never:
//! writes. Inputs: the real kernel's dumps and notices, operations. Outputs: the same with the operations laid
//! over them; one line for each operation.

use std::collections::BTreeMap;

use bgp_proto::IpPrefix;
use tokio::sync::mpsc;

use super::mirror::{KernelDump, Notice, RouteSeen};
use super::{Applied, Kernel, KernelError, PROTOCOL, RouteOp, Target};

/// A kernel that is only read.
#[derive(Debug)]
pub struct DryRun<K> {
    kernel: K,
    /// By prefix and stored metric: our route that would be there, or `None` where it would be gone.
    overlay: BTreeMap<(IpPrefix, u32), Option<RouteSeen>>,
    /// Routes of ours that are truly there.
    found: BTreeMap<(IpPrefix, u32), RouteSeen>,
    links: BTreeMap<u32, String>,
    lines: mpsc::Sender<String>,
}

impl<K: Kernel> DryRun<K> {
    /// Reads `kernel`; each operation becomes a line in the words of `ip route`.
    pub fn new(kernel: K, lines: mpsc::Sender<String>) -> Self {
        DryRun { kernel, overlay: BTreeMap::new(), found: BTreeMap::new(), links: BTreeMap::new(), lines }
    }

    fn listen(&mut self, notices: Vec<Notice>) -> Vec<Notice> {
        for notice in &notices {
            match notice {
                Notice::Link(link) => drop(self.links.insert(link.index, link.name.clone())),
                Notice::LinkGone(index) => drop(self.links.remove(index)),
                // The kernel's own word counts from here on.
                Notice::Route { prefix, route, .. } => {
                    self.overlay.remove(&(*prefix, route.metric));
                    if route.protocol == PROTOCOL {
                        self.found.insert((*prefix, route.metric), route.clone());
                    }
                }
                Notice::RouteGone { prefix, route, .. } => {
                    self.overlay.remove(&(*prefix, route.metric));
                    self.found.remove(&(*prefix, route.metric));
                }
                Notice::Address(_) | Notice::AddressGone(_) => {}
            }
        }
        notices
    }
}

/// The operation as `ip route` would be told it; `link` names an interface by its index.
pub fn words<'l>(op: &RouteOp, link: impl Fn(u32) -> Option<&'l str>) -> String {
    let mut text = match op {
        RouteOp::Add(..) => "add".to_owned(),
        RouteOp::Replace(..) => "replace".to_owned(),
        RouteOp::Delete { .. } => "del".to_owned(),
    };
    let target = match op {
        RouteOp::Add(_, route) | RouteOp::Replace(_, route) => Some(&route.target),
        RouteOp::Delete { only, .. } => only.as_ref(),
    };
    if let Some(kind) = target.filter(|target| !matches!(target, Target::Unicast(_))).map(Target::kind) {
        text += &format!(" {kind}");
    }
    text += &format!(" {}", op.prefix());
    let legs = target.map_or(&[][..], Target::legs);
    for leg in legs {
        let nexthop = if legs.len() > 1 { " nexthop" } else { "" };
        let via = leg.via.map(|via| format!(" via {via}")).unwrap_or_default();
        let dev = link(leg.ifindex).unwrap_or("?");
        let onlink = if leg.onlink { " onlink" } else { "" };
        text += &format!("{nexthop}{via} dev {dev}{onlink}");
    }
    text += " proto bird";
    if op.metric() != 0 {
        text += &format!(" metric {}", op.metric());
    }
    text
}

impl<K: Kernel> Kernel for DryRun<K> {
    async fn dump(&mut self) -> Result<(KernelDump, Vec<Notice>), KernelError> {
        let (mut snapshot, notices) = self.kernel.dump().await?;
        self.links = snapshot.links.iter().map(|link| (link.index, link.name.clone())).collect();
        let ours = snapshot.routes.iter().filter(|(_, seen)| seen.protocol == PROTOCOL);
        self.found = ours.map(|(prefix, seen)| ((*prefix, seen.metric), seen.clone())).collect();
        snapshot.routes.retain(|(prefix, seen)| {
            seen.protocol != PROTOCOL || !self.overlay.contains_key(&(*prefix, seen.metric))
        });
        for ((prefix, _), route) in &self.overlay {
            snapshot.routes.extend(route.clone().map(|route| (*prefix, route)));
        }
        let notices = self.listen(notices);
        Ok((snapshot, notices))
    }

    async fn apply(&mut self, operations: &[RouteOp]) -> Result<Applied, KernelError> {
        let mut applied = Applied::default();
        match self.kernel.waiting() {
            Ok(heard) => applied.notices = self.listen(heard),
            Err(KernelError::Overrun) => applied.overrun = true,
            Err(error) => return Err(error),
        }
        for op in operations {
            // Nobody listens: the process ends.
            let _ = self.lines.send(words(op, |index| self.links.get(&index).map(String::as_str))).await;
            let (prefix, metric) = (op.prefix(), op.metric());
            let notice = match op {
                RouteOp::Add(_, route) | RouteOp::Replace(_, route) => {
                    let target = Some(route.clone().normalized().target);
                    let route = RouteSeen { metric, protocol: PROTOCOL, target, plain: true };
                    self.overlay.insert((prefix, metric), Some(route.clone()));
                    Notice::Route { prefix, route, replaces: matches!(op, RouteOp::Replace(..)), echo: true }
                }
                RouteOp::Delete { only, .. } => {
                    let laid = self.overlay.insert((prefix, metric), None).flatten();
                    let there = laid.or_else(|| self.found.get(&(prefix, metric)).cloned());
                    let said = RouteSeen { metric, protocol: PROTOCOL, target: only.clone(), plain: true };
                    let route = there.unwrap_or(said);
                    Notice::RouteGone { prefix, route, echo: true }
                }
            };
            applied.results.push(Ok(()));
            applied.notices.push(notice);
        }
        Ok(applied)
    }

    fn waiting(&mut self) -> Result<Vec<Notice>, KernelError> {
        let heard = self.kernel.waiting()?;
        Ok(self.listen(heard))
    }

    async fn notices(&mut self) -> Result<Vec<Notice>, KernelError> {
        let heard = self.kernel.notices().await?;
        Ok(self.listen(heard))
    }
}
