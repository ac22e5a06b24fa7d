//! A session as its task last showed it.
//!
//! Owns: the copy that the task publishes. Never: reads the session by itself.

use bgp_proto::Millis;
use bgp_proto::session::{DialError, DownReason, Session, StateName, Status};

use crate::desired::Auth;

/// How old counters may be.
const FRESH: Millis = Millis::secs(1);

/// A session as its task last showed it.
#[derive(Clone, Debug, Default)]
pub struct PeerView {
    /// What the session said; `None` before its task has run.
    pub status: Option<Status>,
    /// What the last dial could not set.
    pub note: Option<String>,
    /// Why the session is not started.
    pub held: Option<String>,
    /// Defects that ended the session.
    pub defects: u64,
    taken: Millis,
}

impl PeerView {
    /// The session must not start; why.
    pub fn hold(&mut self, why: String) {
        self.held = Some(why);
    }

    /// Copies the session where something happened, or the copy is old. True where it was copied.
    pub fn update(&mut self, session: &Session, now: Millis, note: Option<&str>, news: bool) -> bool {
        let same = self.status.as_ref().is_some_and(|status| status.state == session.state_name());
        if same && !news && now - self.taken < FRESH {
            return false;
        }
        self.status = Some(session.status());
        self.note = note.map(str::to_string);
        self.taken = now;
        true
    }

    /// Whether the session is up.
    pub fn is_established(&self) -> bool {
        self.state() == StateName::Established
    }

    /// Why the session is not up, in words.
    pub fn reason(&self, auth: &Auth) -> Option<String> {
        if self.is_established() {
            return None;
        }
        if let Some(why) = &self.held {
            return Some(why.clone());
        }
        let status = self.status.as_ref()?;
        let mut reason = match (&status.last, status.state) {
            (None, StateName::Passive) => "waiting for the peer to connect".to_string(),
            (None, _) => DownReason::Idle.to_string(),
            (Some(DownReason::Dial(DialError::Timeout)), _) => {
                let ours = match auth {
                    Auth::None => "this side has no password",
                    Auth::Key { .. } => "this side signs with a password",
                    Auth::Missing(_) | Auth::Withheld(_) => {
                        "this side is to sign, but its password cannot be had"
                    }
                };
                format!("{} ({ours})", DialError::Timeout)
            }
            (Some(last), _) => last.to_string(),
        };
        if let Some(note) = &self.note {
            reason = format!("{reason}; {note}");
        }
        Some(reason)
    }

    /// The state.
    pub fn state(&self) -> StateName {
        self.status.as_ref().map_or(StateName::Down, |status| status.state)
    }
}
