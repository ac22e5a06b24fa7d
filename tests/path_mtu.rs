//! A path that drops large packets and says nothing (T15): connections come up, keepalives pass, UPDATEs do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "these tests are shells")]

mod namespace;
mod shell_lab;

use std::net::SocketAddr;
use std::process::Command;

use bgp_proto::Millis;
use bgp_proto::session::{DownReason, Event, TtlRule};
use bytes::Bytes;
use calico_bgpd::control::reason::reason;
use calico_bgpd::desired::Auth;
use calico_bgpd::speaker::{SpeakerInput, SpeakerOutput};
use namespace::in_namespace;
use shell_lab::{Shells, ip};

/// A core that always has more to say: End-of-RIB is the shortest UPDATE, and enough of them fill any packet.
fn talker(input: SpeakerInput, out: &mut Vec<SpeakerOutput>) {
    let update: &[u8] = &[0xff; 16];
    match input {
        SpeakerInput::PeerUp { peer, incarnation, .. } => out.push(SpeakerOutput::Ready(peer, incarnation)),
        SpeakerInput::Want { peer, incarnation, .. } => {
            let bytes: Vec<u8> = [update, &[0, 23, 2, 0, 0, 0, 0]].concat().repeat(200);
            out.push(SpeakerOutput::Fill { peer, incarnation, bytes: Bytes::from(bytes), more: true });
        }
        _ => {}
    }
}

#[test]
fn a_path_that_drops_large_packets_ends_the_session_by_the_send_hold_timer_and_the_reason_names_the_mtu() {
    in_namespace(
        "a_path_that_drops_large_packets_ends_the_session_by_the_send_hold_timer_and_the_reason_names_the_mtu",
        || async {
            let rules = "add table inet path; add chain inet path out { type filter hook output priority 0; }; \
                         add rule inet path out meta length > 1000 drop";
            assert!(Command::new("nft").arg(rules).status().expect("nftables is needed").success());
            let (ours, theirs) = (ip("127.0.1.1"), ip("127.0.1.2"));
            let (mut a, mut b) = (Shells::new(talker), Shells::new(|_, _| {}));
            let at_a = a.add("to-b", ours, SocketAddr::new(theirs, 1), true, 240);
            a.peers.get_mut(&at_a).unwrap().wanted.send_modify(|wanted| wanted.spec.next.send_hold = Some(3));
            let addr = a.listen(ours).await;
            let at_b = b.add("to-a", theirs, addr, false, 240);
            a.start().await;
            b.start().await;
            a.established(at_a).await;
            let view = a.wait(at_a, "given up", |view| !view.is_established()).await;
            let events = view.status.clone().unwrap().events;
            let when = |wanted: Event| events.iter().find(|(_, event)| *event == wanted).map(|(at, _)| *at);
            let up = when(Event::Established).expect("it was up");
            let down = when(Event::Down(DownReason::SendHoldExpired)).unwrap_or_else(|| panic!("{events:?}"));
            assert!(down - up >= Millis::secs(3), "{events:?}");
            let reason = reason(&view, &Auth::None, TtlRule::Multihop(64), None).unwrap();
            assert!(reason.contains("send hold timer") && reason.contains("MTU"), "{reason}");
            // Keepalives have passed all the time, so the other end has noticed nothing; when the
            // path is mended both come back.
            assert!(b.view(at_b).await.is_established());
            assert!(Command::new("nft").arg("delete table inet path").status().unwrap().success());
            a.established(at_a).await;
            b.established(at_b).await;
        },
    );
}
