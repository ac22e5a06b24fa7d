//! The shells of the daemon in one process: real sockets, real sessions, and cores that do what a test wants.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "these tests are shells")]

mod shell_lab;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bgp_proto::session::{DialError, DownReason, StateName, StopReason, TtlRule};
use bgp_proto::wire::send::{encode_end_of_rib, encode_keepalive, encode_open, encode_reach};
use bgp_proto::wire::{Attributes, Context, NextHop, Nlri, Open, PeerType};
use bgp_proto::{Afi, AfiSet, PeerId, Prefix4, RouterId};
use bytes::{Bytes, BytesMut};
use calico_bgpd::control::reason::reason;
use calico_bgpd::desired;
use calico_bgpd::model::SecretBytes;
use calico_bgpd::net::caller;
use calico_bgpd::net::dial::DialGate;
use calico_bgpd::speaker::{SpeakerInput, SpeakerOutput};

use shell_lab::{SOON, Shells, ip};

/// One UPDATE as long as it gets, but quickly read.
fn routes() -> Bytes {
    let mut context = Context::new(PeerType::Ibgp);
    context.as4 = true;
    context.families = AfiSet::only(Afi::Ipv4);
    context.add_path_tx = AfiSet::only(Afi::Ipv4);
    let prefixes: [Nlri<bgp_proto::V4>; 1] =
        [Nlri { path_id: 0, prefix: Prefix4::new([10, 1, 0, 0].into(), 24).unwrap() }];
    let attributes =
        Attributes { local_pref: Some(100), communities: (0..980).collect(), ..Attributes::default() };
    let mut bytes = BytesMut::new();
    let next_hop = NextHop::V4([127, 0, 1, 1].into());
    assert_eq!(encode_reach(&context, &attributes, next_hop, &prefixes, &mut bytes), 1);
    bytes.freeze()
}

/// A core that gives every peer `updates` full UPDATEs and then End-of-RIB.
fn feeder(updates: usize) -> impl FnMut(SpeakerInput, &mut Vec<SpeakerOutput>) + Send {
    let mut left: BTreeMap<PeerId, usize> = BTreeMap::new();
    let routes = routes();
    let mut end = BytesMut::new();
    encode_end_of_rib(Afi::Ipv4, &mut end);
    let end = end.freeze();
    move |input, out| match input {
        SpeakerInput::PeerUp { peer, incarnation, .. } => {
            left.insert(peer, updates + 1);
            out.push(SpeakerOutput::Ready(peer, incarnation));
        }
        SpeakerInput::Want { peer, incarnation, .. } => {
            let left = left.entry(peer).or_default();
            let bytes = match *left {
                0 => Bytes::new(),
                1 => end.clone(),
                _ => routes.clone(),
            };
            *left = left.saturating_sub(1);
            out.push(SpeakerOutput::Fill { peer, incarnation, bytes, more: *left > 0 });
        }
        _ => {}
    }
}

/// Two of ours on one segment: `a` listens at 127.0.x.1, `b` dials from 127.0.x.2.
async fn pair(
    net: u8,
    a: impl FnMut(SpeakerInput, &mut Vec<SpeakerOutput>) + Send + 'static,
    b: impl FnMut(SpeakerInput, &mut Vec<SpeakerOutput>) + Send + 'static,
) -> (Shells, PeerId, Shells, PeerId) {
    let (ours, theirs) = (ip(&format!("127.0.{net}.1")), ip(&format!("127.0.{net}.2")));
    let (mut a, mut b) = (Shells::new(a), Shells::new(b));
    let at_a = a.add("to-b", ours, SocketAddr::new(theirs, 1), true, 90);
    let addr = a.listen(ours).await;
    let at_b = b.add("to-a", theirs, addr, false, 90);
    a.start().await;
    b.start().await;
    (a, at_a, b, at_b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_core_that_sleeps_for_half_a_minute_costs_no_session_with_three_seconds_of_hold_time() {
    const PEERS: u8 = 10;
    /// More than all the buffers between two ends hold, so that the sleeper stops reading.
    const UPDATES: usize = 2_500;
    let slept = Arc::new(AtomicUsize::new(0));
    let heard = Arc::new(AtomicUsize::new(0));
    let heard_at_waking = Arc::new(AtomicUsize::new(0));
    let (sleeper, hears, wakes) = (slept.clone(), heard.clone(), heard_at_waking.clone());
    let mut established = 0;
    let mut a = Shells::new(move |input, _| {
        match input {
            SpeakerInput::PeerUp { .. } => established += 1,
            SpeakerInput::Update { .. } => {
                hears.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        if established == PEERS && sleeper.load(Ordering::Relaxed) == 0 {
            sleeper.store(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_secs(30));
            wakes.store(hears.load(Ordering::Relaxed), Ordering::Relaxed);
            sleeper.store(2, Ordering::Release);
        }
    });
    let mut b = Shells::new(feeder(UPDATES));
    let ours = ip("127.0.40.1");
    for n in 0..PEERS {
        a.add(&format!("peer-{n}"), ours, SocketAddr::new(ip(&format!("127.0.41.{}", n + 1)), 1), true, 3);
    }
    let addr = a.listen(ours).await;
    for n in 0..PEERS {
        b.add(&format!("peer-{n}"), ip(&format!("127.0.41.{}", n + 1)), addr, false, 3);
    }
    a.start().await;
    b.start().await;
    for id in a.peers.keys() {
        a.established(*id).await;
        b.established(*id).await;
    }
    // The sleep is the test: ten hold times.
    let end = tokio::time::Instant::now() + Duration::from_secs(120);
    while slept.load(Ordering::Acquire) < 2 {
        assert!(tokio::time::Instant::now() < end, "the core did not wake up");
        tokio::time::sleep(Duration::from_millis(100)).await;
        for shells in [&a, &b] {
            for id in shells.peers.keys() {
                let view = shells.view(*id).await;
                assert!(view.is_established(), "{:?}", view.status.map(|status| status.events));
            }
        }
    }
    // What the core had not been given when it woke had waited at the peers; now everything arrives.
    let before = heard_at_waking.load(Ordering::Relaxed);
    assert!(before < usize::from(PEERS) * UPDATES / 2, "{before} UPDATEs did not wait");
    while heard.load(Ordering::Relaxed) < usize::from(PEERS) * UPDATES {
        assert!(tokio::time::Instant::now() < end, "{} UPDATEs", heard.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for shells in [&a, &b] {
        for id in shells.peers.keys() {
            let counters = shells.view(*id).await.status.unwrap().counters;
            assert_eq!((counters.established, counters.received.notification), (1, 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_one_core_fills_in_the_other_hears_in_order_and_once() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let record = move |input: SpeakerInput, _: &mut Vec<SpeakerOutput>| {
        let text = match input {
            SpeakerInput::PeerUp { .. } => "up",
            SpeakerInput::Update { .. } => "update",
            SpeakerInput::EndOfRib(..) => "end",
            _ => return,
        };
        hears.lock().unwrap().push(text);
    };
    let (a, at_a, b, at_b) = pair(50, record, feeder(3)).await;
    a.established(at_a).await;
    b.established(at_b).await;
    let end = tokio::time::Instant::now() + SOON;
    while heard.lock().unwrap().last() != Some(&"end") {
        assert!(tokio::time::Instant::now() < end, "{:?}", heard.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(*heard.lock().unwrap(), ["up", "update", "update", "update", "end"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_peer_that_is_removed_is_told_so_and_one_that_ends_with_the_process_is_not() {
    for (net, stop) in [(51, StopReason::Deconfigured), (52, StopReason::Exit)] {
        let (a, at_a, b, at_b) = pair(net, |_, _| {}, |_, _| {}).await;
        a.established(at_a).await;
        b.established(at_b).await;
        a.peers[&at_a].wanted.send_modify(|wanted| wanted.stop = Some(stop));
        let view = b.wait(at_b, "down", |view| !view.is_established()).await;
        let received = view.status.unwrap().received.map(|(_, n)| (n.code, n.subcode));
        match stop {
            StopReason::Deconfigured => assert_eq!(received, Some((6, 3))),
            _ => assert_eq!(received, None),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn parameters_of_the_next_connection_change_without_touching_this_one() {
    let (a, at_a, b, at_b) = pair(53, |_, _| {}, |_, _| {}).await;
    a.established(at_a).await;
    b.established(at_b).await;
    b.peers[&at_b].wanted.send_modify(|wanted| wanted.spec.next.hold_time = 30);
    // Something that follows it through the same task.
    let ended = b.peers[&at_b].mailbox.clone();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(b.view(at_b).await.is_established());
    ended.end(1, bgp_proto::wire::Notification::new(6, 4));
    a.wait(at_a, "down", |view| view.status.as_ref().is_some_and(|s| s.received.is_some())).await;
    let again = a.established(at_a).await.status.unwrap();
    assert_eq!(again.negotiated.unwrap().hold_time, 30);
    assert_eq!(again.counters.established, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_with_another_router_id_takes_the_place_of_the_old_one_and_the_core_keeps_its_routes() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let record = move |input: SpeakerInput, _: &mut Vec<SpeakerOutput>| {
        hears.lock().unwrap().push(match input {
            SpeakerInput::PeerUp { .. } => "up",
            SpeakerInput::Stale(..) => "stale",
            SpeakerInput::PeerDown(_) => "down",
            SpeakerInput::SweepStale(..) => "sweep",
            SpeakerInput::EndOfRib(..) => "end",
            _ => return,
        });
    };
    let (a, at_a, b, at_b) = pair(74, feeder(1), record).await;
    b.established(at_b).await;
    let ends = async |count: usize| {
        let end = tokio::time::Instant::now() + SOON;
        while heard.lock().unwrap().iter().filter(|what| **what == "end").count() < count {
            assert!(tokio::time::Instant::now() < end, "{:?}", heard.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    ends(1).await;
    let id = RouterId([10, 0, 0, 9].into());
    b.peers[&at_b].wanted.send_modify(|wanted| wanted.spec.open.router_id = id);
    ends(2).await;
    assert_eq!(*heard.lock().unwrap(), ["up", "end", "stale", "up", "sweep", "end"]);
    let view = a.wait(at_a, "up with the new id", |view| view.peer_id() == Some(id)).await;
    assert_eq!(view.status.unwrap().received, None, "nothing was said, so that the peer keeps our routes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_is_exchanged_for_another_on_the_live_connection() {
    let (ours, theirs) = (ip("127.0.54.1"), ip("127.0.54.2"));
    let key = |text: &str| Some(SecretBytes::new(text.as_bytes().to_vec()));
    let (mut a, mut b) = (Shells::new(|_, _| {}), Shells::new(|_, _| {}));
    let at_a = a.add("to-b", ours, SocketAddr::new(theirs, 1), true, 3);
    a.peers.get_mut(&at_a).unwrap().caller.key = key("first");
    a.peers[&at_a].wanted.send_modify(|wanted| wanted.key = key("first"));
    let addr = a.listen(ours).await;
    let at_b = b.add("to-a", theirs, addr, false, 3);
    b.peers[&at_b].wanted.send_modify(|wanted| wanted.key = key("first"));
    a.start().await;
    b.start().await;
    a.established(at_a).await;
    b.established(at_b).await;
    for shells in [(&a, at_a), (&b, at_b)] {
        shells.0.peers[&shells.1].wanted.send_modify(|wanted| wanted.key = key("second"));
    }
    // Two hold times under the new key.
    let keepalives = b.view(at_b).await.status.unwrap().counters.received.keepalive;
    b.wait(at_b, "alive under the new key", |view| {
        view.status.as_ref().is_some_and(|status| status.counters.received.keepalive >= keepalives + 6)
    })
    .await;
    assert!(b.view(at_b).await.is_established() && a.view(at_a).await.is_established());
    assert_eq!(b.view(at_b).await.status.unwrap().counters.established, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_closed_port_and_an_address_that_is_not_ours_are_named() {
    let mut shells = Shells::new(|_, _| {});
    let closed = std::net::TcpListener::bind("127.0.55.1:0").unwrap().local_addr().unwrap();
    let refused = shells.add("refused", ip("127.0.55.2"), closed, false, 90);
    let foreign = shells.add("foreign", ip("192.0.2.7"), closed, false, 90);
    shells.start().await;
    for (id, expected) in [(refused, "connection refused"), (foreign, "source address is not on this node")] {
        let view = shells.wait(id, "tried", |v| v.status.as_ref().is_some_and(|s| s.last.is_some())).await;
        let reason = reason(&view, &desired::Auth::None, TtlRule::Multihop(64), None).unwrap();
        assert!(reason.contains(expected), "{reason}");
        assert!(matches!(view.status.unwrap().last, Some(DownReason::Dial(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_back_at_once_is_heard_after_the_end_of_its_old_connection() {
    let (ours, theirs) = (ip("127.0.63.1"), ip("127.0.63.2"));
    let mut a = Shells::new(|_, _| {});
    a.add("back-soon", ours, SocketAddr::new(theirs, 1), true, 90);
    let addr = a.listen(ours).await;
    a.start().await;
    let mut hello = BytesMut::new();
    let router_id = RouterId([127, 0, 63, 2].into());
    encode_open(&Open { my_as: 64512, hold_time: 90, router_id, capabilities: vec![] }, &mut hello);
    encode_keepalive(&mut hello);
    let peer = move || {
        for round in 0..300 {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(theirs, 0).into()).unwrap();
            socket.connect(&addr.into()).unwrap();
            let mut stream = std::net::TcpStream::from(socket);
            stream.write_all(&hello).unwrap();
            for expected in [1, 4] {
                let mut head = [0; 19];
                stream.read_exact(&mut head).unwrap();
                assert_eq!(head[18], expected, "round {round}");
                let mut body = vec![0; usize::from(u16::from_be_bytes([head[16], head[17]])) - 19];
                stream.read_exact(&mut body).unwrap();
            }
            // RST, as the kernel sends for a process that was killed.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    };
    tokio::task::spawn_blocking(peer).await.unwrap();
}

/// Speaks for a peer until the session is up, and never reads again.
fn goes_deaf(mut stream: std::net::TcpStream, router_id: [u8; 4]) -> std::net::TcpStream {
    let mut hello = BytesMut::new();
    encode_open(
        &Open { my_as: 64512, hold_time: 240, router_id: RouterId(router_id.into()), capabilities: vec![] },
        &mut hello,
    );
    encode_keepalive(&mut hello);
    stream.write_all(&hello).unwrap();
    let mut seen = Vec::new();
    // An OPEN and a KEEPALIVE, which is a header.
    while !seen.ends_with(&[0, 19, 4]) {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap();
        seen.push(octet[0]);
    }
    stream
}

/// T1. The kernel would take keepalives for hours, for its buffer holds thousands.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_peer_that_reads_nothing_is_let_go_though_we_have_little_to_say_whoever_dialled() {
    for dialled in [true, false] {
        let mut a = Shells::new(feeder(1));
        let (ours, theirs) = (ip("127.0.64.1"), ip("127.0.64.2"));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // An UPDATE of 4 kB does not fit.
        socket.set_recv_buffer_size(2048).unwrap();
        socket.bind(&SocketAddr::new(theirs, 0).into()).unwrap();
        let port = if dialled { socket.local_addr().unwrap().as_socket().unwrap().port() } else { 1 };
        let at = a.add("deaf", ours, SocketAddr::new(theirs, port), !dialled, 240);
        a.peers.get_mut(&at).unwrap().wanted.send_modify(|wanted| {
            wanted.spec.next.send_hold = Some(2);
            wanted.spec.next.keepalive = Some(1);
        });
        let deaf = if dialled {
            socket.listen(1).unwrap();
            std::thread::spawn(move || goes_deaf(socket.accept().unwrap().0.into(), [127, 0, 64, 2]))
        } else {
            let addr = a.listen(ours).await;
            std::thread::spawn(move || {
                while socket.connect(&addr.into()).is_err() {}
                goes_deaf(socket.into(), [127, 0, 64, 2])
            })
        };
        a.start().await;
        a.established(at).await;
        let view = a.wait(at, "let go", |view| !view.is_established()).await;
        assert_eq!(view.status.unwrap().last, Some(DownReason::SendHoldExpired), "we dialled: {dialled}");
        drop(deaf.join().unwrap());
    }
}

/// A core that remembers when it heard that a peer cannot be dialled.
fn hears_of_failures() -> (impl FnMut(SpeakerInput, &mut Vec<SpeakerOutput>) + Send, Arc<OnceLock<Instant>>) {
    let heard = Arc::new(OnceLock::new());
    let hears = heard.clone();
    let core = move |input, _: &mut Vec<SpeakerOutput>| {
        if let SpeakerInput::PeerUnreachable(_) = input {
            hears.get_or_init(Instant::now);
        }
    };
    (core, heard)
}

#[tokio::test]
async fn the_core_hears_that_a_peer_cannot_be_dialled_when_that_peer_had_time_to_start() {
    let (core, heard) = hears_of_failures();
    let mut a = Shells::new(core);
    let began = Instant::now();
    a.add("away", ip("127.0.61.1"), "127.0.61.2:1".parse().unwrap(), false, 90);
    a.start().await;
    while heard.get().is_none() {
        assert!(began.elapsed() < SOON, "the core hears nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(*heard.get().unwrap() - began >= Duration::from_secs(5));
}

#[tokio::test]
async fn a_peer_that_starts_a_moment_later_is_waited_for() {
    let (core, heard) = hears_of_failures();
    let (mut a, mut b) = (Shells::new(core), Shells::new(|_, _| {}));
    let (ours, theirs) = (ip("127.0.62.1"), ip("127.0.62.2"));
    let port = std::net::TcpListener::bind((theirs, 0)).unwrap().local_addr().unwrap().port();
    let at_a = a.add("to-b", ours, SocketAddr::new(theirs, port), false, 90);
    a.start().await;
    a.wait(at_a, "refused", |view| {
        view.status.as_ref().is_some_and(|status| status.last == Some(DownReason::Dial(DialError::Refused)))
    })
    .await;
    b.add("to-a", theirs, SocketAddr::new(ours, 1), true, 90);
    b.start().await;
    b.listen_at(SocketAddr::new(theirs, port)).await;
    a.established(at_a).await;
    assert_eq!(heard.get(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dial_that_waits_for_its_turn_is_not_given_up_over_it() {
    let (ours, theirs) = (ip("127.0.56.1"), ip("127.0.56.2"));
    let (mut a, mut b) = (Shells::new(|_, _| {}), Shells::new(|_, _| {}));
    let at_a = a.add("to-b", ours, SocketAddr::new(theirs, 1), true, 90);
    let addr = a.listen(ours).await;
    b.gate = DialGate::with(1);
    let others = b.gate.turn().await;
    let at_b = b.add("to-a", theirs, addr, false, 90);
    // A limit of about a second for a dial, and more than two to wait for its turn.
    b.peers[&at_b].wanted.send_modify(|wanted| wanted.spec.next.connect_retry = 1);
    a.start().await;
    b.start().await;
    b.wait(at_b, "dialling", |v| v.state() == StateName::Connect).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let status = b.view(at_b).await.status.unwrap();
    assert_eq!((status.state, status.counters.dials, status.last), (StateName::Connect, 1, None));
    drop(others);
    assert_eq!(b.established(at_b).await.status.unwrap().counters.dials, 1);
    a.established(at_a).await;
}

/// T22, with the listener and the tasks of production: the dialler cannot be meant for both.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn of_two_peers_at_one_address_and_as_the_first_gets_the_connection_and_the_other_names_it() {
    let (ours, theirs) = (ip("127.0.57.1"), ip("127.0.57.2"));
    let (mut a, mut b) = (Shells::new(|_, _| {}), Shells::new(|_, _| {}));
    let first = a.add("Global_1", ours, SocketAddr::new(theirs, 179), true, 90);
    let second = a.add("Global_2", ours, SocketAddr::new(theirs, 1179), true, 90);
    let callers: Vec<_> = a.peers.values().map(|peer| peer.caller.clone()).collect();
    for (name, shadowed) in caller::shadowed(&callers) {
        let peer = a.peers.values().find(|peer| peer.name == name).unwrap();
        peer.wanted.send_modify(|wanted| wanted.shadowed = Some(shadowed));
    }
    let addr = a.listen(ours).await;
    let at_b = b.add("to-a", theirs, addr, false, 90);
    a.start().await;
    b.start().await;
    a.established(first).await;
    b.established(at_b).await;
    let view = a.wait(second, "shown", |view| view.shadowed.is_some()).await;
    let reason = reason(&view, &desired::Auth::None, TtlRule::Multihop(64), None).unwrap();
    assert_eq!(
        reason,
        "waiting for the peer to connect; connections from 127.0.57.2 go to Global_1 first, which has the same address \
         and AS 64512"
    );
    assert!(!view.is_established());
}

/// T22: two speakers of one AS behind one address, for which two peers are configured.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_speakers_at_one_address_have_a_session_each() {
    let (ours, theirs) = (ip("127.0.58.1"), ip("127.0.58.2"));
    let mut a = Shells::new(|_, _| {});
    let first = a.add("Global_1", ours, SocketAddr::new(theirs, 179), true, 90);
    let second = a.add("Global_2", ours, SocketAddr::new(theirs, 1179), true, 90);
    let addr = a.listen(ours).await;
    a.start().await;
    let mut speakers = Vec::new();
    for (at_a, id) in [(first, [10, 0, 0, 7]), (second, [10, 0, 0, 8])] {
        let mut speaker = Shells::new(|_, _| {});
        let there = speaker.add("to-a", theirs, addr, false, 90);
        speaker.peers[&there].wanted.send_modify(|wanted| wanted.spec.open.router_id = RouterId(id.into()));
        speaker.start().await;
        assert_eq!(a.established(at_a).await.peer_id(), Some(RouterId(id.into())));
        speakers.push(speaker);
    }
    assert!(a.view(first).await.is_established() && a.view(second).await.is_established());
}
