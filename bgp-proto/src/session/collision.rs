//! Which of two connections to one peer survives (RFC 4271 §6.8, RFC 6286 §2.3, BGP-13, BGP-30).
//!
//! Owns: the decision as a pure function of what both ends know. Never: closes anything.
//!
//! Both ends must come to the same answer though they see the events in different orders. What they share is who
//! dialled which connection and who is dominant (higher identifier, then higher AS); the rule "the dominant speaker's
//! connection stays" depends on nothing else.

use crate::ids::{Asn, RouterId};

/// One of the two ends of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// This speaker.
    Us,
    /// The other one.
    Peer,
}

/// The other connection at the moment when an OPEN arrives on this one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Other {
    /// We have dialled and TCP is not up yet, or we wait to dial.
    Dialing,
    /// TCP is up, the peer's OPEN has not come.
    OpenSent,
    /// The peer's OPEN has come; who dialled it.
    OpenConfirm(Side),
    /// The same, and the peer's KEEPALIVE has come too ([`holds_back`]).
    Held(Side),
    /// The peer's OPEN has come, and for some seconds nothing after it, not even the KEEPALIVE that answers ours.
    Mute,
    /// The session is up on it.
    Established {
        /// Graceful restart was negotiated on it.
        graceful: bool,
        /// It has been up for so long that this connection cannot be what a simultaneous open left behind.
        settled: bool,
    },
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Nothing yet: the OPEN of the other connection decides.
    KeepBoth,
    /// Give up the other one without a word.
    DropOtherQuietly,
    /// Close the other one with Cease/7.
    DropOther,
    /// Close this one with Cease/7.
    DropThis,
    /// The peer has restarted: the session moves to this connection, the other is closed without NOTIFICATION and its
    /// routes are kept as stale (RFC 4724 §5, BGP-30).
    TakeOver,
}

/// The side whose connection stays: the higher identifier, and where they are equal the higher AS (RFC 6286 §2.3).
/// Equal in both cannot be: such an OPEN is refused.
pub fn dominant(us: (RouterId, Asn), peer: (RouterId, Asn)) -> Side {
    if us >= peer { Side::Us } else { Side::Peer }
}

/// Decides when an OPEN has come on the connection that `this` dialled.
pub fn on_open(this: Side, other: Other, dominant: Side) -> Verdict {
    match other {
        Other::Dialing => Verdict::DropOtherQuietly,
        Other::OpenSent => Verdict::KeepBoth,
        // The peer will show by its next message which one it has kept.
        Other::Held(other) if other != this && this == dominant => Verdict::KeepBoth,
        // The peer has let go of it without a word, against the rule or by an accident; the
        // new one shows that it is there.
        Other::Mute => Verdict::DropOther,
        // Two connections that one side dialled: it has given up the older one, or forgotten it.
        Other::OpenConfirm(other) | Other::Held(other) if other == this => Verdict::DropOther,
        Other::OpenConfirm(_) if this == dominant => Verdict::DropOther,
        Other::OpenConfirm(_) | Other::Held(_) => Verdict::DropThis,
        Other::Established { graceful: true, settled: true } => Verdict::TakeOver,
        Other::Established { .. } => Verdict::DropThis,
    }
}

/// Whether a connection that could become Established waits a moment for the other, on which no OPEN has come.
///
/// If the other one is the dominant side's, the peer may be about to close this one for it. Were this one declared
/// Established and the other closed, each end would have closed what the other end kept. So this one waits until
/// the peer shows that it holds it for Established (it sends an UPDATE), or the other is gone, or a short time is over.
pub fn holds_back(this: Side, other_open_sent: Side, dominant: Side) -> bool {
    this != dominant && other_open_sent == dominant
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn which_of_two_connections_stays_depends_on_their_states_and_on_who_dialled_the_dominant_one() {
        use Other::*;
        use Side::*;
        use Verdict::*;
        let established = |graceful, settled| Established { graceful, settled };
        #[rustfmt::skip]
        let table = [
            // this  other                      dominant  verdict
            (Us,   Dialing,                   Us,   DropOtherQuietly),
            (Us,   Dialing,                   Peer, DropOtherQuietly),
            (Peer, Dialing,                   Us,   DropOtherQuietly),
            (Peer, Dialing,                   Peer, DropOtherQuietly),
            (Us,   OpenSent,                  Us,   KeepBoth),
            (Us,   OpenSent,                  Peer, KeepBoth),
            (Peer, OpenSent,                  Us,   KeepBoth),
            (Peer, OpenSent,                  Peer, KeepBoth),
            (Us,   OpenConfirm(Peer),         Us,   DropOther),
            (Us,   OpenConfirm(Peer),         Peer, DropThis),
            (Peer, OpenConfirm(Us),           Us,   DropThis),
            (Peer, OpenConfirm(Us),           Peer, DropOther),
            (Peer, OpenConfirm(Peer),         Us,   DropOther),
            (Peer, OpenConfirm(Peer),         Peer, DropOther),
            (Us,   OpenConfirm(Us),           Us,   DropOther),
            (Us,   OpenConfirm(Us),           Peer, DropOther),
            (Us,   Held(Peer),                Us,   KeepBoth),
            (Us,   Held(Peer),                Peer, DropThis),
            (Peer, Held(Us),                  Us,   DropThis),
            (Peer, Held(Us),                  Peer, KeepBoth),
            (Peer, Held(Peer),                Us,   DropOther),
            (Us,   Held(Us),                  Us,   DropOther),
            (Us,   Mute,                      Us,   DropOther),
            (Us,   Mute,                      Peer, DropOther),
            (Peer, Mute,                      Us,   DropOther),
            (Peer, Mute,                      Peer, DropOther),
            (Peer, established(true, true),   Us,   TakeOver),
            (Peer, established(true, true),   Peer, TakeOver),
            (Us,   established(true, true),   Us,   TakeOver),
            (Us,   established(true, true),   Peer, TakeOver),
            (Peer, established(true, false),  Us,   DropThis),
            (Peer, established(true, false),  Peer, DropThis),
            (Peer, established(false, true),  Us,   DropThis),
            (Peer, established(false, true),  Peer, DropThis),
            (Peer, established(false, false), Us,   DropThis),
            (Us,   established(false, false), Peer, DropThis),
        ];
        for (this, other, dominant, verdict) in table {
            assert_eq!(on_open(this, other, dominant), verdict, "{this:?} {other:?} {dominant:?}");
        }
    }

    #[test]
    fn the_higher_identifier_is_dominant_and_then_the_higher_as() {
        let id = |text: &str| RouterId(text.parse::<Ipv4Addr>().unwrap());
        let (low, high) = (id("9.255.255.255"), id("10.0.0.1"));
        assert_eq!(dominant((high, Asn(1)), (low, Asn(2))), Side::Us);
        assert_eq!(dominant((low, Asn(2)), (high, Asn(1))), Side::Peer);
        assert_eq!(dominant((low, Asn(1)), (low, Asn(2))), Side::Peer);
        assert_eq!(dominant((low, Asn(70000)), (low, Asn(65000))), Side::Us);
    }

    /// Each end decides when an OPEN reaches it while the other connection is in OpenConfirm: whatever the order in
    /// which the two OPENs arrive at each end, both ends keep the same connection.
    #[test]
    fn both_ends_keep_the_same_connection_in_every_order() {
        let flip = |side| if side == Side::Us { Side::Peer } else { Side::Us };
        for dominant in [Side::Us, Side::Peer] {
            for first_here in [Side::Us, Side::Peer] {
                for first_there in [Side::Us, Side::Peer] {
                    // `first` is in OpenConfirm, the OPEN of the connection of the other side arrives.
                    let survivor = |first: Side, dominant| {
                        let this = flip(first);
                        match on_open(this, Other::OpenConfirm(first), dominant) {
                            Verdict::DropOther => this,
                            Verdict::DropThis => first,
                            other => panic!("{other:?}"),
                        }
                    };
                    let here = survivor(first_here, dominant);
                    let there = flip(survivor(flip(first_there), flip(dominant)));
                    assert_eq!(here, there);
                }
            }
        }
    }

    #[test]
    fn only_the_weaker_connection_waits_and_only_for_the_stronger() {
        assert!(holds_back(Side::Us, Side::Peer, Side::Peer));
        assert!(holds_back(Side::Peer, Side::Us, Side::Us));
        assert!(!holds_back(Side::Us, Side::Peer, Side::Us));
        assert!(!holds_back(Side::Peer, Side::Peer, Side::Peer));
        assert!(!holds_back(Side::Peer, Side::Peer, Side::Us));
    }
}
