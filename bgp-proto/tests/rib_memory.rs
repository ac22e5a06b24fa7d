//! What the table costs in memory: octets for each destination and path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unsafe_code, reason = "a counting allocator has to be one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bgp_proto::rib::policy::AcceptAll;
use bgp_proto::rib::{ImportProfile, ImportRules, Rib, SourcePeer};
use bgp_proto::wire::{Attributes, NextHop, Nlri};
use bgp_proto::{Asn, Family, Prefix, RouterId, V4, V6};

/// Octets that are held, each thread by itself.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(octets: isize) {
    let _ = HELD.try_with(|held| held.set(held.get() + octets));
}

// SAFETY: everything is passed on to the system's allocator unchanged; counting touches a constant-initialised
// thread-local cell only, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn peer(slot: u32) -> SourcePeer {
    SourcePeer {
        asn: Asn(65000 + slot),
        local_asn: Asn(64512),
        router_id: RouterId(std::net::Ipv4Addr::from_bits(0x0a00_0002 + slot)),
        addr: std::net::Ipv4Addr::from_bits(0x0a00_0002 + slot).into(),
        internal: false,
        rr_client: None,
    }
}

/// Announces as many prefixes, 256 to an attribute set.
fn feed<F: Family>(rib: &mut Rib<F>, slot: u32, next_hop: NextHop, count: u32) {
    let profile = ImportProfile {
        internal: false,
        local_asn: Asn(64512),
        router_id: RouterId([10, 0, 0, 1].into()),
        rr_client: None,
        allow_own_as: 0,
    };
    let rules = ImportRules { profile, policy: &AcceptAll, interface: &|_| "" };
    let base = F::bits_from_bytes(&[0x20]);
    let nlri = |n: u32| {
        let bits = base + (num_traits::cast::<u32, F::Bits>(n).unwrap() << usize::from(F::MAX_LEN - 28));
        Nlri { path_id: 0, prefix: Prefix::<F>::from_parts(bits, 28).unwrap() }
    };
    let all: Vec<Nlri<F>> = (0..count).map(nlri).collect();
    for (med, some) in (0u32..).zip(all.chunks(256)) {
        rib.announce(slot, &rules, Attributes { med: Some(med), ..Attributes::default() }, next_hop, some);
    }
    rib.settle();
    rib.take_changes();
    rib.free_ids();
}

fn cost<F: Family>(next_hop: NextHop) -> (isize, isize) {
    const COUNT: u32 = 1 << 15;
    let mut rib: Rib<F> = Rib::new(1);
    for slot in 0..3 {
        rib.set_peer(slot, peer(slot));
    }
    let begin = HELD.get();
    feed(&mut rib, 0, next_hop, COUNT);
    let one = HELD.get();
    feed(&mut rib, 1, next_hop, COUNT);
    feed(&mut rib, 2, next_hop, COUNT);
    let three = HELD.get();
    let count = COUNT as isize;
    ((one - begin) / count, (three - one) / count / 2)
}

#[test]
fn a_destination_with_its_path_and_each_further_path_cost_what_they_may() {
    // The attribute sets, one for 256 prefixes, are in it, and so is the room that vectors have left.
    let v4 = cost::<V4>(NextHop::V4([192, 0, 2, 1].into()));
    let v6 = cost::<V6>(NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None });
    println!("octets for a destination with one path, and for a further path: IPv4 {v4:?}, IPv6 {v6:?}");
    assert!(v4.0 <= 125 && v4.1 <= 88, "{v4:?}");
    assert!(v6.0 <= 160 && v6.1 <= 88, "{v6:?}");
}

#[test]
fn what_a_peer_had_is_given_back_when_it_goes() {
    let mut rib: Rib<V4> = Rib::new(1);
    rib.set_peer(0, peer(0));
    let mut room = Vec::new();
    for _ in 0..3 {
        feed(&mut rib, 0, NextHop::V4([192, 0, 2, 1].into()), 1 << 14);
        rib.sweep(0);
        rib.settle();
        rib.take_changes();
        rib.free_ids();
        assert_eq!((rib.len(), rib.attr_sets(), rib.next_hops().len()), (0, 0, 0));
        room.push(HELD.get());
    }
    assert_eq!(room[1], room[2], "the table grows by what it holds, not by what comes and goes");
}
