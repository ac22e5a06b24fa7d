//! Sessions that BGPPeers ask for.
//!
//! Owns: forward peerings by `peerIP`, global or of one node: PEER-20 to PEER-24, PEER-50 to PEER-54, PEER-60 to
//! PEER-64, PEER-67, PEER-68, PEER-70, DEF-4, and their place before mesh sessions (PEER-18). What is not built yet
//! (selectors, local workloads, reverse peerings, `reachableBy`) is one problem for each BGPPeer. Never: writes what a
//! session does with routes ([`programs`](super::programs)).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::prefix::is_link_local;
use bgp_proto::session::{NextOpen, OpenParams, PeerSpec, Transport, TtlRule};
use bgp_proto::{Afi, AfiSet, Asn};

use super::compile::{Inputs, NOT_YET, Problems};
use super::identity::{DEFAULT_ASN, DEFAULT_PORT, Fields, asn_of, listen_port};
use super::peers::{Programs, TTL, name, restart_time};
use super::{LocalNode, NextHopRule, Peer, PeerClass, SessionKey, Treatment, auth, programs as policy};
use crate::model::{BgpPeer, NextHopMode, Node, PeerAddress, Severity, SourceAddress};

/// Adds the sessions of one family that BGPPeers ask for. Global ones come before those of this node, and among equals
/// the first by name wins (PEER-51 to PEER-53).
pub(super) fn explicit<F: Fields>(
    inputs: &Inputs<'_>,
    local: &LocalNode,
    programs: &mut Programs<'_, '_>,
    sessions: &mut BTreeMap<SessionKey, Arc<Peer>>,
    problems: &mut Problems,
) {
    let own: Option<IpAddr> = F::address(inputs.local).map(|own| own.addr.into());
    let mut taken: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
    let peers = inputs.snapshot.peers.values();
    let (global, of_nodes): (Vec<_>, Vec<_>) = peers.partition(|peer| peer.node.is_none());
    for peer in global.into_iter().chain(of_nodes) {
        let resource = format!("BGPPeer/{}", peer.name);
        let Some(at) = realised(inputs, peer, &resource, problems) else { continue };
        // NODE-6, PEER-2: no session in a family without own address, and none with ourselves.
        if Afi::of(at.addr) != F::AFI || own == Some(at.addr) {
            continue;
        }
        let Some(own) = own else {
            let why = format!("this node has no {} address: it has no session to {}", F::AFI.name(), at.addr);
            problems.add(Severity::Warning, resource, "spec.peerIP", why);
            continue;
        };
        let port = at.port.unwrap_or_else(|| port::<F>(inputs, peer, at.addr));
        if !taken.insert((at.addr, port)) {
            let why = format!(
                "another BGPPeer already asks for a session to {} port {port}: this one has none",
                at.addr
            );
            problems.add(Severity::Warning, resource, "spec.peerIP", why);
            continue;
        }
        let local_asn = peer.local_asn.unwrap_or(local.asn);
        let peer_asn = peer_asn::<F>(inputs, peer, at.addr);
        let internal = peer_asn == local_asn;
        let class = if peer.node.is_none() { PeerClass::Global } else { PeerClass::Node };
        let mut name = name(class, at.addr);
        if let Some(port) = at.port.or((port != DEFAULT_PORT).then_some(port)) {
            name.push_str(&format!("_port_{port}"));
        }
        let key = SessionKey::new(at.addr, port);
        let session = Peer {
            key: key.clone(),
            name,
            class,
            spec: PeerSpec {
                transport: Transport {
                    peer: at.addr,
                    scope: 0,
                    port,
                    ttl: match peer.ttl_security {
                        0 => TtlRule::Multihop(TTL),
                        hops => TtlRule::Security { hops },
                    },
                },
                open: OpenParams {
                    local_asn,
                    peer_asn,
                    router_id: local.router_id,
                    families: AfiSet::only(F::AFI),
                },
                next: NextOpen {
                    source: (peer.source_address == SourceAddress::UseNodeIp).then_some(own),
                    // PEER-63: only global peerings with Calico nodes; by text, as in the mesh.
                    passive: class == PeerClass::Global
                        && node_at::<F>(inputs, at.addr).is_some()
                        && at.addr.to_string() > own.to_string(),
                    keepalive: keepalive(peer, &resource, problems),
                    restart_time: Some(restart_time(
                        peer.restart_time,
                        &resource,
                        "spec.maxRestartTime",
                        problems,
                    )),
                    ..inputs.facts.sessions.clone()
                },
            },
            auth: auth::of(inputs, peer.password.as_ref(), &resource, "spec.password", problems),
            treatment: Treatment {
                internal,
                rr_client: local.cluster_id.filter(|_| internal),
                next_hop: next_hop_rule(peer, internal),
                allow_own_as: peer.allowed_own_as,
                import: programs.import::<F>(&peer.filters),
                export: programs.export::<F>(policy::Use {
                    filters: peer.filters.clone(),
                    internal,
                    node: node_at::<F>(inputs, at.addr).is_some(),
                }),
            },
            resource,
        };
        // PEER-18: the explicit peering takes the place of the mesh's.
        sessions.retain(|_, other| {
            other.class != PeerClass::Mesh || other.spec.transport.peer != at.addr || other.key.afi != F::AFI
        });
        sessions.insert(key, Arc::new(session));
    }
}

/// The address that this node peers with because of `peer`; problems for what is asked for and not built.
fn realised(
    inputs: &Inputs<'_>,
    peer: &BgpPeer,
    resource: &str,
    problems: &mut Problems,
) -> Option<PeerAddress> {
    let selectors = [
        ("spec.nodeSelector", &peer.node_selector),
        ("spec.peerSelector", &peer.peer_selector),
        ("spec.localWorkloadSelector", &peer.local_workload_selector),
    ];
    let unbuilt: Vec<&str> =
        selectors.iter().filter(|(_, text)| text.is_some()).map(|(field, _)| *field).collect();
    if !unbuilt.is_empty() {
        problems.add(Severity::Error, resource, &unbuilt.join(", "), NOT_YET);
        return None;
    }
    let Some(at) = peer.peer_ip else {
        let why = "there is neither an address nor a selector: there is no session";
        problems.add(Severity::Error, resource, "spec.peerIP", why);
        return None;
    };
    if is_link_local(at.addr) {
        let why =
            format!("{} is link-local and does not say on which interface: there is no session", at.addr);
        problems.add(Severity::Error, resource, "spec.peerIP", why);
        return None;
    }
    if peer.node.as_deref().is_some_and(|node| node != inputs.local.name) {
        let own = [
            inputs.local.ipv4.map(|own| IpAddr::from(own.addr)),
            inputs.local.ipv6.map(|own| IpAddr::from(own.addr)),
        ];
        if own.contains(&Some(at.addr)) && !peer.reverse_peering_manual {
            let why = "asks for a reverse peering on this node, which calico-bgpd does not do so far";
            problems.add(Severity::Error, resource, "spec.reversePeering", why);
        }
        return None;
    }
    for name in peer.filters.iter().filter(|name| !inputs.snapshot.filters.contains_key(*name)) {
        // FILT-52.
        let why = format!("there is no BGPFilter {name}: it filters nothing");
        problems.add(Severity::Error, resource, "spec.filters", why);
    }
    if peer.reachable_by.is_some() {
        problems.add(Severity::Error, resource, "spec.reachableBy", NOT_YET);
    }
    Some(at)
}

/// The Calico node with this address (PEER-27: compared as addresses).
fn node_at<'a, F: Fields>(inputs: &Inputs<'a>, addr: IpAddr) -> Option<&'a Node> {
    let nodes = inputs.snapshot.nodes.values().map(|node| &**node);
    nodes.into_iter().find(|node| F::address(node).is_some_and(|own| own.addr.into() == addr))
}

/// The peer's AS: as written, else that of the node with this address, else the global one (PEER-22, DEF-3).
fn peer_asn<F: Fields>(inputs: &Inputs<'_>, peer: &BgpPeer, addr: IpAddr) -> Asn {
    let of_node = || node_at::<F>(inputs, addr).map(|node| asn_of(node, inputs.global));
    let written = peer.asn.filter(|asn| *asn != Asn(0));
    written.or_else(of_node).or(inputs.global.asn).unwrap_or(DEFAULT_ASN)
}

/// The port of a peer that is written without one (PEER-24): a Calico node's own, else 179.
fn port<F: Fields>(inputs: &Inputs<'_>, peer: &BgpPeer, addr: IpAddr) -> u16 {
    let asn = peer.asn.filter(|asn| *asn != Asn(0)).or(inputs.global.asn).unwrap_or(DEFAULT_ASN);
    let node = node_at::<F>(inputs, addr).filter(|node| asn_of(node, inputs.global) == asn);
    node.map_or(DEFAULT_PORT, |node| listen_port(inputs, &node.name))
}

/// PEER-61.
fn keepalive(peer: &BgpPeer, resource: &str, problems: &mut Problems) -> Option<u16> {
    let seconds = peer.keepalive_time?;
    match u16::try_from(seconds) {
        Ok(seconds) => Some(seconds),
        Err(_) => {
            let why = format!("{seconds} s is longer than any hold time: a third of the hold time is used");
            problems.add(Severity::Error, resource, "spec.keepaliveTime", why);
            None
        }
    }
}

/// PEER-64.
fn next_hop_rule(peer: &BgpPeer, internal: bool) -> NextHopRule {
    match peer.next_hop_mode {
        Some(NextHopMode::SelfAddress) => NextHopRule::SelfAddress,
        Some(NextHopMode::Keep) => NextHopRule::Keep,
        Some(NextHopMode::Auto) => NextHopRule::Auto,
        None if peer.keep_original_next_hop && !internal => NextHopRule::Keep,
        None => NextHopRule::Auto,
    }
}
