//! Sessions over link-local addresses, which only together with an interface name a peer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "these tests are shells")]

mod namespace;
mod shell_lab;

use std::net::{Ipv6Addr, SocketAddrV6};

use namespace::{in_namespace, ip};
use shell_lab::Shells;

/// The index of an interface.
fn index(dev: &str) -> u32 {
    std::fs::read_to_string(format!("/sys/class/net/{dev}/ifindex")).unwrap().trim().parse().unwrap()
}

#[test]
fn peers_with_one_link_local_address_on_two_interfaces_each_get_the_session_of_their_own_interface() {
    in_namespace(
        "peers_with_one_link_local_address_on_two_interfaces_each_get_the_session_of_their_own_interface",
        || async {
            let (near, far): (Ipv6Addr, Ipv6Addr) = ("fe80::a".parse().unwrap(), "fe80::b".parse().unwrap());
            for dev in ["e0", "e1"] {
                ip(&format!("-6 addr add {near}/64 dev {dev} nodad"));
                ip(&format!("-6 addr add {far}/64 dev {dev}p nodad"));
            }
            let (mut a, mut b) = (Shells::new(|_, _| {}), Shells::new(|_, _| {}));
            let peers = ["e0", "e1"].map(|dev| {
                let caller = SocketAddrV6::new(near, 1, 0, index(&format!("{dev}p")));
                (dev, a.add(&format!("over-{dev}"), far.into(), caller.into(), true, 90))
            });
            let port = a.listen(Ipv6Addr::UNSPECIFIED.into()).await.port();
            for (dev, _) in peers {
                let called = SocketAddrV6::new(far, port, 0, index(dev));
                b.add(dev, near.into(), called.into(), false, 90);
            }
            a.start().await;
            b.start().await;
            for id in b.peers.keys() {
                b.established(*id).await;
            }
            for (dev, id) in peers {
                let ends = a.established(id).await.status.unwrap().negotiated.unwrap().endpoints;
                let std::net::SocketAddr::V6(remote) = ends.remote else { panic!("{ends:?}") };
                assert_eq!((*remote.ip(), remote.scope_id()), (near, index(&format!("{dev}p"))));
            }
        },
    );
}
