//! Messages as the session needs them, where [`crate::wire`] has them in another shape.
//!
//! Owns: that shape, and nothing else. Never: has a rule about bytes; all of them are in [`crate::wire`].

use bytes::{Bytes, BytesMut};

use crate::wire::frame::{HEADER_LEN, Head, Kind, MAX_EXTENDED_LEN, take};
use crate::wire::{
    Notification, Open, RouteRefresh, encode_keepalive, encode_notification, encode_open, encode_refresh,
};

/// The kind of a framed message.
pub(super) fn kind(frame: &[u8]) -> Result<Kind, Notification> {
    match take(frame, MAX_EXTENDED_LEN) {
        Ok(Head::Frame(frame)) => Ok(frame.kind),
        // Half a message: the shell's framing is not the header's.
        Ok(Head::NeedMore(_)) => Err(Notification::new(1, 2)),
        Err(fatal) => Err(fatal.notification),
    }
}

/// A NOTIFICATION, whatever has been agreed on.
pub(super) fn read_notification(frame: &[u8]) -> Notification {
    Notification::decode(frame.get(HEADER_LEN..).unwrap_or_default())
}

fn written(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out);
    out.freeze()
}

pub(super) fn open(open: &Open) -> Bytes {
    written(|out| encode_open(open, out))
}

pub(super) fn keepalive() -> Bytes {
    written(encode_keepalive)
}

pub(super) fn notification(notification: &Notification) -> Bytes {
    written(|out| encode_notification(notification, out))
}

pub(super) fn refresh(refresh: RouteRefresh) -> Bytes {
    written(|out| encode_refresh(refresh, out))
}

/// A Cease, with a text where its subcode has one: at most 255 octets of whole characters (RFC 9003 §2).
pub(super) fn cease(subcode: u8, text: &str) -> Notification {
    let mut notification = Notification::new(6, subcode);
    if matches!(subcode, 2 | 4) && !text.is_empty() {
        let text = text.get(..text.floor_char_boundary(255)).unwrap_or_default();
        let mut data = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
        data.extend_from_slice(text.as_bytes());
        notification.data = data.into();
    }
    notification
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_text_is_cut_at_a_character_and_only_sent_where_it_has_a_place() {
        assert_eq!(cease(2, "back soon").communication().as_deref(), Some("back soon"));
        let long = cease(4, &"ä".repeat(200));
        assert_eq!(long.data.first(), Some(&254));
        assert_eq!(long.data.len(), 255);
        assert!(cease(3, "text").data.is_empty() && cease(2, "").data.is_empty());
    }
}
