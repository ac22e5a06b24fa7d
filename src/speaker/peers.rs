//! The peers as the speaker knows them.
//!
//! Owns: for each slot the treatment of a peer's routes and, while its session is up, what was
//! negotiated. Never: holds routes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::rib::{ExportProfile, ImportProfile, ProgramId, SourcePeer};
use bgp_proto::session::Negotiated;
use bgp_proto::wire::Context;
use bgp_proto::{Afi, Asn, PeerId, RouterId};

use super::Incarnation;
use crate::desired::Peer;

/// What an established session brings.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub incarnation: Incarnation,
    pub context: Context,
    pub local_addr: IpAddr,
    pub peer_asn: Asn,
    pub peer_id: RouterId,
    pub enhanced_refresh: bool,
    pub long_lived_aware: bool,
}

impl Session {
    pub fn new(incarnation: Incarnation, negotiated: Negotiated) -> Self {
        Session {
            incarnation,
            local_addr: negotiated.endpoints.local.ip().to_canonical(),
            peer_asn: negotiated.peer_asn,
            peer_id: negotiated.peer_id,
            enhanced_refresh: negotiated.enhanced_refresh,
            long_lived_aware: negotiated.long_lived_aware(),
            context: negotiated.context,
        }
    }
}

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct PeerState {
    pub id: PeerId,
    pub addr: IpAddr,
    /// What is wanted of it.
    pub desired: Arc<Peer>,
    /// The numbers of its programs.
    pub import_program: ProgramId,
    pub export_program: ProgramId,
    /// While it is established.
    pub session: Option<Session>,
    /// What the table was last told of its session.
    pub source: Option<SourcePeer>,
    /// It has read everything and waits for `Ready`.
    pub idle: bool,
}

impl PeerState {
    pub fn new(id: PeerId, peer: &Arc<Peer>, import_program: ProgramId, export_program: ProgramId) -> Self {
        PeerState {
            import_program,
            export_program,
            id,
            addr: peer.spec.transport.peer,
            desired: peer.clone(),
            session: None,
            source: None,
            idle: true,
        }
    }

    /// Whether this asks for a successor of the session (BGP-37).
    pub fn is_replaced_by(&self, peer: &Peer) -> bool {
        let (old, new) = (&self.desired.spec, &peer.spec);
        (&old.transport, &old.open) != (&new.transport, &new.open)
    }

    /// Which session of the peer is up.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.session.as_ref().map(|session| session.incarnation)
    }

    pub fn import_profile(&self) -> ImportProfile {
        ImportProfile {
            internal: self.desired.treatment.internal,
            local_asn: self.desired.spec.open.local_asn,
            router_id: self.desired.spec.open.router_id,
            rr_client: self.desired.treatment.rr_client,
            allow_own_as: self.desired.treatment.allow_own_as,
        }
    }

    /// What decides about what it is sent in a family, while its session is up.
    pub fn export_profile(&self, afi: Afi) -> Option<ExportProfile> {
        let session = self.session.as_ref()?;
        let context = &session.context;
        Some(ExportProfile {
            afi,
            internal: self.desired.treatment.internal,
            local_asn: self.desired.spec.open.local_asn,
            local_addr: session.local_addr,
            rr_client: self.desired.treatment.rr_client,
            next_hop: self.desired.treatment.next_hop,
            program: self.export_program,
            long_lived_aware: session.long_lived_aware,
            add_path: context.add_path_tx.contains(afi),
            extended_next_hop: context.extended_next_hop,
            as4: context.as4,
            extended_message: context.extended_message,
        })
    }

    /// What the table is to know of its session, the present one or the one that left its routes stale.
    pub fn source_peer(&self) -> Option<SourcePeer> {
        let (asn, router_id) = match (&self.session, &self.source) {
            (Some(session), _) => (session.peer_asn, session.peer_id),
            (None, Some(source)) => (source.asn, source.router_id),
            (None, None) => return None,
        };
        Some(SourcePeer {
            asn,
            local_asn: self.desired.spec.open.local_asn,
            router_id,
            addr: self.addr,
            internal: self.desired.treatment.internal,
            rr_client: self.desired.treatment.rr_client,
        })
    }
}

/// All peers, by slot.
#[derive(Default, Debug)]
pub(super) struct Peers {
    slots: Vec<Option<PeerState>>,
    /// Slots whose import asks for interfaces.
    import_by_interface: BTreeSet<u32>,
}

impl Peers {
    /// The peer with this handle; a handle of an earlier generation names nobody.
    pub fn get(&self, id: PeerId) -> Option<&PeerState> {
        self.slot(id.slot).filter(|peer| peer.id == id)
    }

    pub fn get_mut(&mut self, id: PeerId) -> Option<&mut PeerState> {
        let place = usize::try_from(id.slot).ok().and_then(|at| self.slots.get_mut(at))?;
        place.as_mut().filter(|peer| peer.id == id)
    }

    pub fn slot(&self, slot: u32) -> Option<&PeerState> {
        self.slots.get(usize::try_from(slot).ok()?)?.as_ref()
    }

    pub fn insert(&mut self, peer: PeerState) {
        let Ok(at) = usize::try_from(peer.id.slot) else { return };
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(at) {
            *place = Some(peer);
        }
    }

    pub fn remove(&mut self, id: PeerId) {
        if self.get(id).is_some()
            && let Some(place) = usize::try_from(id.slot).ok().and_then(|at| self.slots.get_mut(at))
        {
            *place = None;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &PeerState> {
        self.slots.iter().flatten()
    }

    /// Slots whose import asks for interfaces, as of the last [`Peers::rules_changed`].
    pub fn import_by_interface(&self) -> &BTreeSet<u32> {
        &self.import_by_interface
    }

    /// Treatments changed, or peers came or went.
    pub fn rules_changed(&mut self) {
        let reads = |peer: &&PeerState| peer.desired.treatment.import.reads_interface();
        self.import_by_interface = self.iter().filter(reads).map(|peer| peer.id.slot).collect();
    }
}
