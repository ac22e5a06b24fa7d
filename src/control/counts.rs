//! Counts of the table, asked for once however many want them.
//!
//! Owns: the last counts of each session and of each family, and when the table is asked again: a few sessions, or one
//! page of destinations, at a time, once in `FRESH` at most. Never: keeps anybody waiting for a table that is busy
//! longer than `PATIENCE`: the last counts are given then.

use std::collections::BTreeMap;
use std::time::Duration;

use bgp_proto::{Afi, PeerId};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::core_thread::{CoreGone, CorePort};
use crate::speaker::Speaker;
use crate::speaker::status::{PeerCounts, Sources};

/// How old counts may be.
const FRESH: Duration = Duration::from_secs(1);
/// How long they may take.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Sessions that are counted in one look.
const SESSIONS: usize = 8;
/// Destinations that are counted in one look.
const DESTINATIONS: usize = 1024;

/// Counts of one session, by handle.
pub type PeersCounted = BTreeMap<PeerId, PeerCounts>;

struct Counted<T> {
    at: Instant,
    what: T,
}

/// The counts.
pub struct Counts {
    core: CorePort<Speaker>,
    peers: Mutex<Option<Counted<PeersCounted>>>,
    sources: [Mutex<Option<Counted<Sources>>>; 2],
}

impl Counts {
    /// Nothing is counted yet.
    pub fn new(core: CorePort<Speaker>) -> Counts {
        Counts { core, peers: Mutex::default(), sources: Default::default() }
    }

    /// Of sessions. One that is missing could not be counted in time.
    pub async fn peers(&self, wanted: &[(PeerId, Afi)]) -> Result<PeersCounted, CoreGone> {
        let mut last = self.peers.lock().await;
        let old = last.take();
        let known = |counted: &Counted<PeersCounted>| {
            counted.at.elapsed() < FRESH && wanted.iter().all(|(id, _)| counted.what.contains_key(id))
        };
        if let Some(old) = old.as_ref().filter(|old| known(old)) {
            let what = old.what.clone();
            *last = Some(Counted { at: old.at, what: what.clone() });
            return Ok(what);
        }
        let mut what = old.map(|old| old.what).unwrap_or_default();
        what.retain(|id, _| wanted.iter().any(|(wanted, _)| wanted == id));
        let deadline = Instant::now() + PATIENCE;
        for some in wanted.chunks(SESSIONS) {
            let some = some.to_vec();
            let look = self.core.look(move |core| {
                some.iter().map(|(id, afi)| (*id, core.counts(*id, *afi))).collect::<Vec<_>>()
            });
            match timeout_at(deadline, look).await {
                Ok(counted) => what.extend(counted?),
                Err(_) => break,
            }
        }
        *last = Some(Counted { at: Instant::now(), what: what.clone() });
        Ok(what)
    }

    /// Of a family, by who put the paths there; `None` where that could not be counted in time.
    pub async fn sources(&self, afi: Afi) -> Result<Option<Sources>, CoreGone> {
        let [v4, v6] = &self.sources;
        let mut last = match afi {
            Afi::Ipv4 => v4.lock().await,
            Afi::Ipv6 => v6.lock().await,
        };
        if let Some(last) = last.as_ref().filter(|last| last.at.elapsed() < FRESH) {
            return Ok(Some(last.what));
        }
        let deadline = Instant::now() + PATIENCE;
        let (mut all, mut after) = (Sources::default(), None);
        loop {
            let look = self.core.look(move |core| core.sources(afi, after, DESTINATIONS));
            let Ok(page) = timeout_at(deadline, look).await else {
                return Ok(last.as_ref().map(|last| last.what));
            };
            let (more, next) = page?;
            let add = |to: &mut (usize, usize), more: (usize, usize)| *to = (to.0 + more.0, to.1 + more.1);
            add(&mut all.fixed, more.fixed);
            add(&mut all.direct, more.direct);
            add(&mut all.kernel, more.kernel);
            all.to_kernel += more.to_kernel;
            after = next;
            if after.is_none() {
                break;
            }
        }
        *last = Some(Counted { at: Instant::now(), what: all });
        Ok(Some(all))
    }
}
