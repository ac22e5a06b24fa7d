//! Brings what the core has for peers that rest to their lines.
//!
//! Owns: the way from the core's thread to the runtime's workers, many answers at a time. A change that thousands of peers
//! hear of costs a write for each, and no task is woken but for what its line does not take. Never: waits for a line.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::mailbox::{Fill, Incarnation, Mailbox};

/// Answers that travel together.
const LOAD: usize = 64;
/// Loads that may wait; further answers go by mail.
const LOADS: usize = 1024;

/// One answer.
#[derive(Debug)]
pub struct Post {
    /// Whose.
    pub mailbox: Arc<Mailbox>,
    /// Which session of this peer.
    pub incarnation: Incarnation,
    /// What.
    pub fill: Fill,
}

/// The core's end.
#[derive(Debug, Default)]
pub struct Dispatch {
    couriers: Vec<mpsc::Sender<Vec<Post>>>,
    load: Vec<Post>,
    /// Whose turn it is.
    next: usize,
}

impl Dispatch {
    /// Couriers on the workers of this runtime, one for each.
    pub fn on(runtime: &tokio::runtime::Handle) -> Dispatch {
        let couriers = (0..runtime.metrics().num_workers().max(1)).map(|_| {
            let (sender, loads) = mpsc::channel(LOADS);
            runtime.spawn(run(loads));
            sender
        });
        Dispatch { couriers: couriers.collect(), load: Vec::new(), next: 0 }
    }

    /// Puts an answer on its way.
    pub fn post(&mut self, post: Post) {
        self.load.push(post);
        if self.load.len() >= LOAD {
            self.send();
        }
    }

    /// Sends what has come together.
    pub fn send(&mut self) {
        if self.load.is_empty() {
            return;
        }
        let load = std::mem::take(&mut self.load);
        self.next += 1;
        let at = self.next.checked_rem(self.couriers.len()).unwrap_or(0);
        let refused = match self.couriers.get(at) {
            Some(courier) => courier.try_send(load).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(load),
        };
        for Post { mailbox, incarnation, fill } in refused.into_iter().flatten() {
            mailbox.fill(incarnation, fill);
        }
    }
}

/// Brings answers until the core has ended.
async fn run(mut loads: mpsc::Receiver<Vec<Post>>) {
    while let Some(load) = loads.recv().await {
        for Post { mailbox, incarnation, fill } in load {
            mailbox.bring(incarnation, fill);
        }
        // Timers of sessions go first.
        yield_now().await;
    }
}
