//! What one destination gives for a profile.
//!
//! Owns: which paths are sent (BGP-20: every usable one with path ids, else the best or nothing) and what of the table
//! export is shown of each. Never: knows who reads.

use smallvec::SmallVec;

use crate::prefix::{Family, IpPrefix, Prefix};
use crate::rib::{
    Dest, ExportProfile, Forward, OutRoute, Path, PathKind, PathView, Policy, Rib, Source, export,
};

/// What export of one group works with.
pub struct Exporter<'a, P> {
    /// The group's key.
    pub profile: &'a ExportProfile,
    /// The program that the profile names.
    pub policy: &'a P,
    /// What peers told waits for the end of our own restart (RFC 4724 §4.1).
    pub deferred: bool,
}

/// The routes of one destination: path id sent, source (a peer's slot), route.
pub type Routes = SmallVec<[(u32, Option<u32>, OutRoute); 1]>;

/// What is sent of a destination, with path ids perhaps only of the paths under `only` these. `interface` names the
/// interface that a path leaves through.
pub fn routes<'a, F: Family, P: Policy>(
    rib: &'a Rib<F>,
    exporter: &Exporter<'_, P>,
    prefix: Prefix<F>,
    dest: &'a Dest<F>,
    only: Option<&[u32]>,
    interface: impl Fn(&Forward) -> &'a str,
) -> Routes {
    let one = |path: &Path<F>| route(rib, exporter, prefix, path, &interface);
    if exporter.profile.add_path {
        let concerned = |path: &&Path<F>| only.is_none_or(|ids| ids.contains(&path.out_id));
        let usable = dest.paths.iter().filter(concerned).filter(|path| path.eligible());
        usable.filter_map(|path| one(path).map(|(source, route)| (path.out_id, source, route))).collect()
    } else {
        dest.best().and_then(one).map(|(source, route)| (0, source, route)).into_iter().collect()
    }
}

fn route<'a, F: Family, P: Policy>(
    rib: &'a Rib<F>,
    exporter: &Exporter<'_, P>,
    prefix: Prefix<F>,
    path: &Path<F>,
    interface: impl Fn(&Forward) -> &'a str,
) -> Option<(Option<u32>, OutRoute)> {
    let (source, from) = match path.source() {
        Source::Peer(_) if exporter.deferred => return None,
        Source::Peer(slot) => (Some(slot), Some(rib.peer(slot)?)),
        _ => (None, None),
    };
    let (attributes, next_hop, metric) = match &path.kind {
        PathKind::Bgp(bgp) => {
            let set = rib.attrs(bgp.used);
            (Some(&set.attributes), set.next_hop, None)
        }
        PathKind::Kernel(route) => (None, None, Some(route.metric)),
        _ => (None, None, None),
    };
    let forward = rib.forward(path);
    let view = PathView {
        prefix: IpPrefix::from(prefix),
        source: path.source(),
        from,
        attributes,
        next_hop,
        interface: interface(&forward),
        forward: &forward,
        metric,
    };
    let profile = exporter.profile;
    // An IPv6 next hop for IPv4 prefixes is for those who agreed to it (RFC 8950).
    let fits = |addr| F::from_ip(addr).is_some() || profile.extended_next_hop;
    let route = export(profile, &view, exporter.policy).filter(|out| fits(out.next_hop.addr()))?;
    Some((source, route))
}
