//! Which routes a `show route` lists (CTL-26).
//!
//! Owns: the selection of paths, and the counts at the end. Never: looks at the table: it is given pages of it.

use std::collections::BTreeMap;

use bgp_proto::rib::{Reason, Source, SourceClass};

use super::command::{Destinations, Export, RouteQuery};
use super::reply::Reply;
use super::routes::{KERNEL, Rows, protocol_of};
use crate::fib::Wish;
use crate::speaker::status::{PathStatus, RouteStatus};

/// A session as far as a listing asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerKind {
    /// Within one AS.
    pub internal: bool,
    /// Our route reflector client.
    pub client: bool,
}

/// A listing under way.
pub struct RouteListing<'q> {
    query: &'q RouteQuery,
    kinds: &'q BTreeMap<String, PeerKind>,
    shown: usize,
    routes: usize,
    networks: usize,
}

impl<'q> RouteListing<'q> {
    /// Nothing is listed yet.
    pub fn new(query: &'q RouteQuery, kinds: &'q BTreeMap<String, PeerKind>) -> Self {
        RouteListing { query, kinds, shown: 0, routes: 0, networks: 0 }
    }

    /// One destination. `sent`: path ids under which the session of the export query holds it.
    pub fn destination(&mut self, reply: &mut Reply, rows: &Rows<'_>, route: &RouteStatus, sent: &[u32]) {
        let held = |path: &&PathStatus| !matches!(path.reason, Some(Reason::Refused(_)));
        self.networks += 1;
        self.routes += route.paths.iter().filter(held).count();
        let paths: Vec<&PathStatus> =
            route.paths.iter().filter(|path| self.wants(route, path, sent)).collect();
        self.shown += paths.len();
        if self.query.count == Some(true) {
            return;
        }
        let to_kernel = matches!(&self.query.export, Some((Export::Export, name)) if name == KERNEL);
        rows.destination(
            reply,
            route,
            &paths,
            route.kernel.as_ref().and_then(Wish::route).filter(|_| to_kernel),
        );
    }

    fn wants(&self, route: &RouteStatus, path: &PathStatus, sent: &[u32]) -> bool {
        let refused = matches!(path.reason, Some(Reason::Refused(_)));
        let best = path.reason.is_none();
        refused == self.query.filtered
            && (best || !self.query.primary)
            && self.query.protocol.as_ref().is_none_or(|name| name == protocol_of(path))
            && self.query.export.as_ref().is_none_or(|(export, name)| {
                let told = if name == KERNEL {
                    best && route.kernel.as_ref().and_then(Wish::route).is_some()
                } else {
                    sent.contains(&path.out_id) || (best && sent.contains(&0))
                };
                match export {
                    Export::Export => told,
                    Export::Before => best && self.may_be_told(path, name),
                    Export::Refused => best && self.may_be_told(path, name) && !told,
                }
            })
    }

    /// Whether a protocol's filter is asked at all: not about what it told itself, nor about what one internal peer
    /// told where another one asks, but for reflection.
    fn may_be_told(&self, path: &PathStatus, name: &str) -> bool {
        if name == KERNEL {
            return matches!(path.source.class(), SourceClass::Static | SourceClass::Bgp);
        }
        let Some(to) = self.kinds.get(name) else { return false };
        match (path.source, self.kinds.get(&path.peer)) {
            (Source::Peer(_), _) if path.peer == name => false,
            (Source::Peer(_), Some(from)) => !(from.internal && to.internal) || from.client || to.client,
            _ => true,
        }
    }

    /// The end.
    pub fn end(&self, reply: &mut Reply) {
        let RouteListing { query, shown, routes, networks, .. } = self;
        if query.count.is_some() {
            reply.last(14, format_args!("{shown} of {routes} routes for {networks} networks"));
        } else if query.what != Destinations::All && *shown == 0 {
            reply.last(8001, "Network not in table");
        } else {
            reply.done();
        }
    }
}
