//! What decoding allocates is bounded by what arrived, whatever the lengths in it declare.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unsafe_code, reason = "a counting allocator has to be one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bgp_proto::wire::{Context, PeerType, decode, encode_reach};
use bgp_proto::{AfiSet, V4, V6};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

/// Octets and calls, each thread by itself.
struct Counting;

thread_local! {
    static OCTETS: Cell<usize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged; counting touches constant-initialised
// thread-local cells only, which neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = OCTETS.try_with(|octets| octets.set(octets.get() + layout.size()));
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
        // SAFETY: the caller's promises are those of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Octets asked for in all, and how often, while `work` runs.
fn counted<T>(work: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = (OCTETS.get(), CALLS.get());
    let result = work();
    (OCTETS.get() - before.0, CALLS.get() - before.1, result)
}

/// The dearest octet is a `::/0`: 48 octets as a value, and as many again to find what is both withdrawn and announced.
const PER_OCTET: usize = 2 * 48 + 16;
const FIXED: usize = 1024;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend((19 + body.len() as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [&[flags | 0x10, code][..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn update(attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    message(2, &[&[0, 0][..], &(attributes.len() as u16).to_be_bytes(), attributes, nlri].concat())
}

fn extended() -> Context {
    Context { extended_message: true, ..Context::new(PeerType::Ibgp) }
}

fn check(message: &[u8], ctx: &Context) {
    let (octets, _, _) = counted(|| decode(message, ctx));
    let bound = PER_OCTET * message.len() + FIXED;
    assert!(
        octets <= bound,
        "{octets} for {} octets: {:02x?}",
        message.len(),
        &message[..message.len().min(80)]
    );
}

#[test]
fn messages_that_are_dear_for_their_size_stay_within_the_bound() {
    let zeros = vec![0; 20_000];
    let reach = attribute(0x80, 14, &[&[0, 2, 1, 16][..], &[1; 16], &[0], &zeros].concat());
    let unreach = attribute(0x80, 15, &[&[0, 2, 1][..], &zeros].concat());
    let segments = attribute(0x40, 2, &[2, 1, 0, 0, 0, 9].repeat(2_000));
    let declared = attribute(0x40, 2, &[2, 255]);
    let unknown: Vec<u8> = (100..=254).flat_map(|code| attribute(0xc0, code, &[])).collect();
    let twice = attribute(0xc0, 99, &[]).repeat(5_000);
    let ends = [[0xc0, 8, 255]; 1].concat();
    for message in [
        update(&[], &zeros),
        update(&[reach.clone(), unreach].concat(), &zeros),
        update(&reach, &[]),
        update(&segments, &zeros),
        update(&declared, &zeros),
        update(&unknown, &zeros),
        update(&twice, &zeros),
        update(&ends, &zeros),
        message(
            1,
            &[&[4, 0, 1, 0, 90, 1, 1, 1, 1, 255, 255, 0x0f, 0xa0][..], &[2, 0, 2, 99, 0].repeat(800)]
                .concat(),
        ),
        message(3, &zeros),
        message(5, &zeros),
    ] {
        check(&message, &extended());
    }
}

#[test]
fn a_length_that_is_only_declared_costs_nothing() {
    for body in [
        &[0xff, 0xff, 0, 0][..],
        &[0, 0, 0xff, 0xff],
        &[0, 0, 0, 4, 0xd0, 8, 0xff, 0xff],
        &[0, 0, 0, 5, 0x40, 2, 2, 2, 255],
    ] {
        let (octets, ..) = counted(|| decode(&message(2, body), &extended()));
        assert!(octets <= FIXED, "{octets}: {body:02x?}");
    }
}

#[test]
fn prefixes_cost_one_allocation_for_all_of_them() {
    let ctx = extended();
    let attributes =
        [attribute(0x40, 1, &[0]), attribute(0x40, 2, &[2, 1, 0, 0, 0, 9]), attribute(0x40, 3, &[1; 4])]
            .concat();
    let one = update(&attributes, &[24, 10, 0, 0]);
    let many = update(&attributes, &[24, 10, 0, 0].repeat(10_000));
    let (_, calls_one, _) = counted(|| decode(&one, &ctx).unwrap());
    let (_, calls_many, decoded) = counted(|| decode(&many, &ctx).unwrap());
    assert_eq!(calls_one, calls_many);
    let bgp_proto::wire::Message::Update(update) = decoded.message else { panic!() };
    let bgp_proto::wire::NlriList::V4(list) = &update.reach[0].nlri else { panic!() };
    let mut out = BytesMut::with_capacity(70_000);
    let (octets, _, count) =
        counted(|| encode_reach::<V4>(&ctx, &update.attributes, update.reach[0].next_hop, list, &mut out));
    assert_eq!((octets, count), (0, 10_000));
    let list: Vec<bgp_proto::wire::Nlri<V6>> = vec![];
    assert_eq!(encode_reach(&ctx, &update.attributes, update.reach[0].next_hop, &list, &mut out), 0);
}

proptest! {
    #[test]
    fn any_octets_stay_within_the_bound(
        kind in 1..=5u8, body in vec(any::<u8>(), 0..2000), add_path in any::<bool>(), as4 in any::<bool>(),
    ) {
        let add_path_rx = if add_path { AfiSet::BOTH } else { AfiSet::EMPTY };
        check(&message(kind, &body), &Context { add_path_rx, as4, ..extended() });
    }

    #[test]
    fn any_attributes_stay_within_the_bound(
        attributes in vec((any::<u8>(), prop_oneof![0..=40u8, any::<u8>()], vec(any::<u8>(), 0..60)), 0..40),
        nlri in vec(0..=40u8, 0..200),
    ) {
        let attributes: Vec<u8> =
            attributes.iter().flat_map(|(flags, code, value)| attribute(*flags, *code, value)).collect();
        check(&update(&attributes, &nlri), &extended());
    }
}
