//! A session as its task last showed it.
//!
//! Owns: the copy that the task publishes, when it does, and how somebody who wants to see all of it asks for a new one. A
//! task publishes where something has changed that others act on; counters and timers are copied when somebody asks, so
//! that a session at which nobody looks costs nothing. Never: reads the session by itself, or has words for it:
//! those are `control`'s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::PeerId;
use bgp_proto::session::{Session, StateName, Status};
use bgp_proto::{Asn, Millis, RouterId};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::desired::Peer;

/// How long all tasks together may take for a look; then what they showed last is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts the looks at all sessions. Every task hears of each and publishes a copy that names its number.
#[derive(Clone, Debug)]
pub struct Looks(watch::Sender<u64>);

impl Default for Looks {
    fn default() -> Self {
        Looks(watch::Sender::new(0))
    }
}

impl Looks {
    /// Where a task hears of looks.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    /// Waits until these show what is true now. One whose task does not answer shows what it showed.
    pub async fn refresh(&self, views: Vec<watch::Receiver<PeerView>>) {
        let mut number = 0;
        self.0.send_modify(|looks| {
            *looks += 1;
            number = *looks;
        });
        let all = async {
            for mut view in views {
                // Where the task has ended nothing newer comes.
                let _ = view.wait_for(|view| view.look >= number).await;
            }
        };
        let _ = timeout(PATIENCE, all).await;
    }
}

/// Nothing tells this peer's connections from those of another peer, whose session gets them (T22).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shadowed {
    /// The address of both.
    pub addr: IpAddr,
    /// The AS of both.
    pub asn: Asn,
    /// The name of the other.
    pub by: String,
}

/// A session as its task last showed it.
#[derive(Clone, Debug, Default)]
pub struct PeerView {
    /// What the session said; `None` before its task has run.
    pub status: Option<Status>,
    /// What the last dial could not set.
    pub note: Option<String>,
    /// Why the session is not started.
    pub held: Option<String>,
    /// Who gets the connections that the peer dials.
    pub shadowed: Option<Shadowed>,
    /// Defects that ended the session.
    pub defects: u64,
    /// When the copy was made.
    pub taken: Millis,
    /// The number of the last look that this answers.
    look: u64,
}

/// A configured peer, and where its task shows what it does.
#[derive(Clone, Debug)]
pub struct PeerEntry {
    /// Handle.
    pub id: PeerId,
    /// What is wanted.
    pub peer: Arc<Peer>,
    /// What its task shows.
    pub view: watch::Receiver<PeerView>,
}

impl PeerView {
    /// The session must not start; why.
    pub fn hold(&mut self, why: String) {
        self.held = Some(why);
    }

    /// Copies the session where something happened: another state, other stale routes or another note, or `news`. Whether it did.
    pub fn update(&mut self, session: &Session, now: Millis, note: Option<&str>, news: bool) -> bool {
        let same = self
            .status
            .as_ref()
            .is_some_and(|status| (status.state, status.stale) == (session.state_name(), session.stale()));
        if same && !news && self.note.as_deref() == note {
            return false;
        }
        self.copy(session, now, note);
        true
    }

    /// Copies the session because somebody looks.
    pub fn answer(&mut self, look: u64, session: &Session, now: Millis, note: Option<&str>) {
        self.look = look;
        self.copy(session, now, note);
    }

    fn copy(&mut self, session: &Session, now: Millis, note: Option<&str>) {
        self.status = Some(session.status());
        self.note = note.map(str::to_string);
        self.taken = now;
    }

    /// Whether the session is up.
    pub fn is_established(&self) -> bool {
        self.state() == StateName::Established
    }

    /// Whether the peer can be asked for its routes again (RFC 2918).
    pub fn can_refresh(&self) -> bool {
        let negotiated = self.status.as_ref().and_then(|status| status.negotiated.as_ref());
        self.is_established() && negotiated.is_some_and(|negotiated| negotiated.refresh)
    }

    /// The identifier of the peer, while established.
    pub fn peer_id(&self) -> Option<RouterId> {
        Some(self.status.as_ref()?.negotiated.as_ref()?.peer_id)
    }

    /// The state.
    pub fn state(&self) -> StateName {
        self.status.as_ref().map_or(StateName::Down, |status| status.state)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bgp_proto::AfiSet;
    use bgp_proto::session::{Conn, Endpoints, Input, NextOpen, OpenParams, PeerSpec, Transport, TtlRule};

    /// A session of 10.0.0.1 that has not begun, and the ends of a connection that it dials.
    pub(crate) fn session() -> (Session, Endpoints) {
        let (us, peer): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let (transport, asn) =
            (Transport { peer, scope: 0, port: 179, ttl: TtlRule::Multihop(64) }, Asn(64512));
        let router_id = RouterId("10.0.0.1".parse().unwrap());
        let open = OpenParams { local_asn: asn, peer_asn: asn, router_id, families: AfiSet::BOTH };
        let session = Session::new(PeerSpec { transport, open, next: NextOpen::default() }, 1, AfiSet::EMPTY);
        (session, Endpoints { local: (us, 1000).into(), remote: (peer, 179).into() })
    }

    #[test]
    fn a_copy_is_made_where_others_act_on_it_and_counters_are_copied_when_somebody_looks() {
        let (mut session, ends) = session();
        let mut view = PeerView::default();
        let give = |at, session: &mut Session, input| session.handle(at, input, &mut Vec::new());
        give(Millis(0), &mut session, Input::Start);
        give(Millis(0), &mut session, Input::Connected(Conn::Active, ends));
        assert!(view.update(&session, Millis(0), None, true));
        give(Millis(100), &mut session, Input::Connected(Conn::Passive, ends));
        let sent = session.status().counters.sent.open;
        let shown = |view: &PeerView| view.status.as_ref().unwrap().counters.sent.open;
        assert!(!view.update(&session, Millis::secs(1000), None, false), "no time makes it one");
        assert_ne!(shown(&view), sent);
        assert!(view.update(&session, Millis(100), Some("a note"), false));
        view.answer(1, &session, Millis(100), None);
        assert_eq!((shown(&view), view.look), (sent, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_waits_for_the_tasks_that_answer_and_not_for_one_that_does_not() {
        let looks = Looks::default();
        let (session, _) = session();
        let (answers, view) = watch::channel(PeerView::default());
        let (_silent, other) = watch::channel(PeerView::default());
        let mut heard = looks.subscribe();
        tokio::spawn(async move {
            heard.changed().await.unwrap();
            let number = *heard.borrow_and_update();
            answers.send_modify(|view| view.answer(number, &session, Millis(7), None));
            std::future::pending::<()>().await;
        });
        looks.refresh(vec![view.clone(), other]).await;
        assert_eq!(view.borrow().taken, Millis(7));
    }
}
