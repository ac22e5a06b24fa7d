//! Reasons in words that an operator understands.
//!
//! Owns: the texts. Never: decides; what a stranger wrote is escaped by [`Notification`]'s own text (W52).

use std::fmt;

use crate::prefix::Afi;
use crate::session::established::LEAD;
use crate::session::{CloseCause, DialError, DownReason, Event, StopReason};
use crate::wire::frame::Kind;
use crate::wire::{Action, FaultKind, Notification};

/// What an end that hears nothing, or takes nothing, has in common with one that is well
/// but behind a smaller MTU (T15).
const LOST_ON_THE_WAY: &str = "packets are lost on the way, perhaps only large ones (compare the MTUs on the path, or clamp the TCP MSS)";

/// A NOTIFICATION with its numbers, its name, and what its data says where the data has a meaning.
struct Told<'a>(&'a Notification);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Notification { code, subcode, data } = self.0;
        write!(f, "{code}/{subcode}: {}", self.0)?;
        match (code, subcode, data.as_ref()) {
            (1, 2, [a, b]) | (2, 2, [a, b]) => write!(f, " ({})", u16::from_be_bytes([*a, *b])),
            (1, 3, [kind]) => write!(f, " ({kind})"),
            (2, 2, [a, b, c, d]) => write!(f, " ({})", u32::from_be_bytes([*a, *b, *c, *d])),
            // RFC 6608 §4: the type of the message.
            (5, 1..=3, [kind]) => match Kind::from_code(*kind) {
                Some(kind) => write!(f, " ({})", kind.name()),
                None => write!(f, " ({kind})"),
            },
            // RFC 4486 §4: family and limit.
            (6, 1, [_, afi, _, a, b, c, d]) => {
                let family = Afi::from_code((*afi).into()).map_or("other", Afi::name);
                write!(f, " (more than {} {family})", u32::from_be_bytes([*a, *b, *c, *d]))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Refused => f.write_str("connection refused: nothing listens at the peer's BGP port"),
            DialError::Timeout => f.write_str(
                "no answer to SYN: a firewall, a host that is down, or a TCP MD5 password that differs",
            ),
            DialError::HostUnreachable => f.write_str(
                "no route to host: nobody has the peer's address on its link, or a router on the way says so",
            ),
            DialError::NetworkUnreachable => {
                f.write_str("network is unreachable: this node has no route to the peer")
            }
            DialError::SourceUnavailable => f.write_str("the source address is not on this node"),
            DialError::Os(errno) => write!(f, "cannot connect: {}", os_error(*errno)),
        }
    }
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseCause::Eof => f.write_str("connection closed by the peer without NOTIFICATION"),
            CloseCause::Reset => f.write_str("connection reset by the peer"),
            CloseCause::Os(errno) => write!(f, "connection lost: {}", os_error(*errno)),
        }
    }
}

/// An errno in the words of the system's library; 0: it is not known.
fn os_error(errno: i32) -> String {
    match errno {
        0 => "the system does not say why".to_string(),
        errno => std::io::Error::from_raw_os_error(errno).to_string(),
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopReason::Deconfigured => "the peer is no longer configured",
            StopReason::Reconfigured => "the session's parameters changed",
            StopReason::Exit => "calico-bgpd stops",
            StopReason::AdminDown => "disabled by an operator",
            StopReason::AdminReset => "restarted by an operator",
        })
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Idle => f.write_str("nothing has been tried yet"),
            DownReason::Dial(error) => error.fmt(f),
            DownReason::Closed(cause) => cause.fmt(f),
            DownReason::Sent(n) => write!(f, "we sent {}", Told(n)),
            DownReason::Malformed { sent, fault } => {
                write!(f, "we sent {}", Told(sent))?;
                match (fault.kind, fault.attribute) {
                    // The name of the NOTIFICATION says it.
                    (FaultKind::Version | FaultKind::ParameterType | FaultKind::RefreshLength, _) => Ok(()),
                    (kind, Some(code)) => write!(f, ": {}, attribute {code}", kind.text()),
                    (kind, None) => write!(f, ": {}", kind.text()),
                }
            }
            DownReason::Received(n) => {
                write!(f, "the peer sent {}", Told(n))?;
                // What stands still in our socket's buffer is no sign: the peer's hold time ends
                // before our send hold time.
                if n.code == 4 { write!(f, ": it has not heard us; {LOST_ON_THE_WAY}") } else { Ok(()) }
            }
            DownReason::AsMismatch { expected, got } => {
                write!(f, "the peer is AS {got}, configured is AS {expected}")
            }
            DownReason::Restarted => f.write_str("the peer opened a new connection: it has restarted"),
            DownReason::HoldExpired => f.write_str("hold timer expired: nothing was heard from the peer"),
            DownReason::SendHoldExpired => write!(
                f,
                "send hold timer expired: the peer has not taken what we send; it does not read, or {LOST_ON_THE_WAY}"
            ),
            DownReason::Stopped(reason) => reason.fmt(f),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Established => f.write_str("established"),
            Event::Down(reason) => write!(f, "down: {reason}"),
            Event::PeerRestarting(_) => f.write_str("the peer restarts; its routes are kept"),
            Event::LongLivedStale(_) => f.write_str(
                "the peer did not come back within its restart time; its routes are kept as long-lived stale ones",
            ),
            Event::RestartTimedOut => {
                f.write_str("the peer did not come back in time; its routes are gone")
            }
            Event::FaultyUpdate { fault, excerpt, more } => {
                write!(f, "UPDATE with an error: {}", fault.kind.text())?;
                if let Some(code) = fault.attribute {
                    write!(f, ", attribute {code}")?;
                }
                let then = match fault.action {
                    Action::Discard => "the attribute is left out",
                    Action::TreatAsWithdraw | Action::Reset => "its routes are withdrawn",
                };
                let (rfc, at) = (fault.kind.rfc(), fault.offset);
                write!(f, " ({rfc}): {then}; octet {at}, octets from {}: {excerpt:x}", at.saturating_sub(LEAD))?;
                match more {
                    0 => Ok(()),
                    more => write!(f, "; {more} others since the last time"),
                }
            }
            Event::PrefixLimit { afi, limit, closed: true } => {
                write!(f, "more than {limit} {afi} prefixes: the session is closed")
            }
            Event::PrefixLimit { afi, limit, closed: false } => write!(f, "more than {limit} {afi} prefixes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Asn;
    use crate::wire::Fault;

    #[test]
    fn every_reason_says_what_an_operator_can_look_for() {
        let mismatch = DownReason::AsMismatch { expected: Asn(64512), got: Asn(4_200_000_000) };
        #[rustfmt::skip]
        let table: [(DownReason, &[&str]); 21] = [
            (DownReason::Dial(DialError::Refused),            &["refused", "nothing listens"]),
            (DownReason::Dial(DialError::Timeout),            &["SYN", "firewall", "MD5"]),
            (DownReason::Dial(DialError::HostUnreachable),    &["no route to host", "on its link"]),
            (DownReason::Dial(DialError::NetworkUnreachable), &["unreachable", "no route to the peer"]),
            (DownReason::Dial(DialError::SourceUnavailable),  &["source address", "not on this node"]),
            (DownReason::Dial(DialError::Os(13)),             &["Permission denied", "error 13"]),
            (DownReason::Closed(CloseCause::Os(110)),         &["timed out", "error 110"]),
            (DownReason::Closed(CloseCause::Os(0)),           &["does not say why"]),
            (DownReason::Closed(CloseCause::Eof),             &["closed by the peer", "without NOTIFICATION"]),
            (DownReason::Closed(CloseCause::Reset),           &["reset by the peer"]),
            (DownReason::Sent(Notification::new(6, 7)),       &["we sent 6/7: ", "collision"]),
            (DownReason::Received(Notification::new(2, 2)),   &["the peer sent 2/2: ", "AS"]),
            (DownReason::Received(Notification { code: 2, subcode: 2, data: vec![0, 0, 0xfc, 0].into() }),
                                                              &["the peer sent 2/2: Bad peer AS (64512)"]),
            (DownReason::Sent(Notification { code: 5, subcode: 1, data: vec![2].into() }),
                                                              &["OpenSent state (UPDATE)"]),
            (DownReason::Sent(Notification { code: 1, subcode: 2, data: vec![0x13, 0x88].into() }), &["length (5000)"]),
            (DownReason::Received(Notification { code: 6, subcode: 1, data: vec![0, 1, 1, 0, 0, 0, 9].into() }),
                                                              &["more than 9 ipv4"]),
            (DownReason::Malformed { sent: Notification::new(2, 0), fault: Fault::reset(29, FaultKind::CapabilityLength) },
                                                              &["we sent 2/0: ", "capability runs past its parameter"]),
            (mismatch,                                        &["4200000000", "64512"]),
            (DownReason::HoldExpired,                         &["hold timer", "nothing was heard"]),
            (DownReason::SendHoldExpired,                     &["send hold timer", "has not taken", "MTU", "MSS"]),
            (DownReason::Received(Notification::new(4, 0)),   &["the peer sent 4/0: ", "not heard us", "MTU", "MSS"]),
        ];
        for (reason, words) in table {
            let text = reason.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{reason:?}: {text}");
        }
    }
}
