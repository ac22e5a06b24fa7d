//! Every attribute × every fault × external and internal peer.
//!
//! The expectations are written from the RFCs, clause by clause, and not from the table in `attr/rules.rs`: RFC 7606 §3
//! (c) flags, (d) missing, (g) twice; §4 length zero; §5.2 nothing reachable; §5.3 and §7.11 multiprotocol; §7.1 to
//! §7.10, §7.14, §7.15 each attribute; RFC 6793 §4.1 and §6; RFC 7607; RFC 8092 §6; RFC 9234 §5; RFC 9774.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use bgp_proto::wire::attr::AttributeCodes;
use bgp_proto::wire::{Action, Context, Message, PeerType, decode};

/// One attribute: name, code, flags, a good value of it, and what follows from each fault. The two letters are for an
/// external and an internal peer: `.` accept, `D` attribute discard, `W` treat-as-withdraw, `R` session reset; blanks
/// where the fault cannot be.
struct Row {
    name: &'static str,
    code: u8,
    flags: u8,
    value: &'static [u8],
    /// The optional bit the other way round (§3 (c)).
    optional: &'static str,
    /// The transitive bit the other way round (§3 (c)).
    transitive: &'static str,
    /// The partial bit set, which §3 (c) does not name.
    partial: &'static str,
    /// An extended length field for the same value.
    extended: &'static str,
    /// One octet less.
    short: &'static str,
    /// One octet more.
    long: &'static str,
    /// No value (§4).
    zero: &'static str,
    /// A second copy (§3 (g)).
    twice: &'static str,
    /// Not there, though prefixes are announced (§3 (d)).
    missing: &'static str,
    /// Nothing wrong at all: what the mere presence leads to.
    good: &'static str,
}

macro_rules! rows {
    ($($name:literal $code:literal $flags:literal $value:expr => $($cell:literal)*;)*) => {
        &[$({
            let [optional, transitive, partial, extended, short, long, zero, twice, missing, good] = [$($cell),*];
            Row {
                name: $name, code: $code, flags: $flags, value: $value,
                optional, transitive, partial, extended, short, long, zero, twice, missing, good,
            }
        }),*]
    };
}

const PATH: &[u8] = &[2, 1, 0, 0, 0xfd, 0xe9];
const REACH: &[u8] =
    &[0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 32, 0x20, 1, 0xd, 0xb8];
const UNREACH: &[u8] = &[0, 2, 1, 32, 0x20, 1, 0xd, 0xb9];

/// With four-octet AS numbers negotiated.
const MATRIX: &[Row] = rows! {
    // name              code flags value        optional transitive partial extended short long zero twice missing good
    "ORIGIN"                1 0x40 &[0]            => "WW" "WW" ".." ".." "  " "WW" "WW" "DD" "WW" "..";
    "AS_PATH"               2 0x40 PATH            => "WW" "WW" ".." ".." "WW" "WW" ".." "DD" "WW" "..";
    "NEXT_HOP"              3 0x40 &[10, 0, 0, 1]  => "WW" "WW" ".." ".." "WW" "WW" "WW" "DD" "WW" "..";
    "MULTI_EXIT_DISC"       4 0x80 &[0; 4]         => "WW" "WW" ".." ".." "WW" "WW" "WW" "DD" ".." "..";
    // §7.5: from an external peer discarded whatever its length; but flags make it malformed first, and the stronger
    // action counts (§3 (h)).
    "LOCAL_PREF"            5 0x40 &[0; 4]         => "WW" "WW" "D." "D." "DW" "DW" "DW" "DD" ".." "D.";
    "ATOMIC_AGGREGATE"      6 0x40 &[]             => "WW" "WW" ".." ".." "  " "DD" "  " "DD" ".." "..";
    "AGGREGATOR"            7 0xc0 &[1; 8]         => "WW" "WW" ".." ".." "DD" "DD" "DD" "DD" ".." "..";
    "COMMUNITIES"           8 0xc0 &[1; 8]         => "WW" "WW" ".." ".." "WW" "WW" "WW" "DD" ".." "..";
    "ORIGINATOR_ID"         9 0x80 &[1; 4]         => "WW" "WW" "D." "D." "DW" "DW" "DW" "DD" ".." "D.";
    "CLUSTER_LIST"         10 0x80 &[1; 8]         => "WW" "WW" "D." "D." "DW" "DW" "DW" "DD" ".." "D.";
    "MP_REACH_NLRI"        14 0x80 REACH           => "RR" "RR" ".." ".." "RR" "RR" "RR" "RR" ".." "..";
    "MP_UNREACH_NLRI"      15 0x80 UNREACH         => "RR" "RR" ".." ".." "RR" ".." "RR" "RR" ".." "..";
    "EXTENDED COMMUNITIES" 16 0xc0 &[1; 16]        => "WW" "WW" ".." ".." "WW" "WW" "WW" "DD" ".." "..";
    // RFC 6793 §4.1: from a new speaker discarded, always.
    "AS4_PATH"             17 0xc0 PATH            => "WW" "WW" "DD" "DD" "DD" "DD" "DD" "DD" ".." "DD";
    "AS4_AGGREGATOR"       18 0xc0 &[1; 8]         => "WW" "WW" "DD" "DD" "DD" "DD" "DD" "DD" ".." "DD";
    "IPV6 EXT COMMUNITIES" 25 0xc0 &[1; 40]        => "WW" "WW" ".." ".." "WW" "WW" "WW" "DD" ".." "..";
    "LARGE_COMMUNITY"      32 0xc0 &[1; 24]        => "WW" "WW" ".." ".." "WW" "WW" "WW" "DD" ".." "..";
    "ONLY_TO_CUSTOMER"     35 0xc0 &[1; 4]         => "WW" "WW" ".." ".." "WW" "WW" "WW" "DD" ".." "..";
    // Nobody knows their form: only a second copy is wrong, and being well-known (RFC 4271 §6.3).
    "an unknown one"       99 0xc0 &[1; 4]         => "RR" ".." ".." ".." ".." ".." ".." "DD" ".." "..";
    // Known by name only. What is taken from external peers is taken before anything is looked at (W49); the others
    // have flags that their RFCs give (6514 §5, 9012 §2, 7311 §3, 8669 §3, 6368 §5), so without the optional bit they
    // are malformed (§3 (c)), not unknown.
    "PMSI_TUNNEL"          22 0xc0 &[1; 4]         => ".W" ".." ".." ".." ".." ".." ".." "DD" ".." "..";
    "Tunnel Encapsulation" 23 0xc0 &[1; 4]         => ".W" ".." ".." ".." ".." ".." ".." "DD" ".." "..";
    "AIGP"                 26 0x80 &[1; 11]        => "WW" ".." ".." ".." ".." ".." ".." "DD" ".." "..";
    "BGP-LS"               29 0x80 &[1; 4]         => ".W" ".." ".." ".." ".." ".." ".." "DD" ".." "..";
    "Prefix-SID"           40 0xc0 &[0; 7]         => ".W" ".." ".." ".." ".." ".." ".." "DD" ".." "..";
    "ATTR_SET"            128 0xc0 &[0; 4]         => ".W" ".." ".." ".." ".." ".." ".." "DD" ".." "..";
    "an unknown local one" 98 0x80 &[1; 4]         => "RR" ".." ".." ".." ".." ".." ".." "DD" ".." "..";
};

/// Value faults: code, flags, value; then the same two letters. Four-octet AS numbers.
const VALUES: &[(&str, u8, u8, &[u8], &str)] = &[
    ("§7.1: an undefined ORIGIN", 1, 0x40, &[3], "WW"),
    ("§7.2: an unrecognized segment type", 2, 0x40, &[9, 1, 0, 0, 0, 1], "WW"),
    ("§7.2: a segment overrun", 2, 0x40, &[2, 2, 0, 0, 0, 1], "WW"),
    ("§7.2: a segment underrun", 2, 0x40, &[2, 1, 0, 0, 0, 1, 2], "WW"),
    ("§7.2: a segment of length zero", 2, 0x40, &[2, 0], "WW"),
    ("RFC 7607: AS 0 in AS_PATH", 2, 0x40, &[2, 1, 0, 0, 0, 0], "WW"),
    ("RFC 9774: an AS_SET", 2, 0x40, &[1, 1, 0, 0, 0, 1], "WW"),
    ("RFC 5065: a confederation sequence", 2, 0x40, &[3, 1, 0, 0, 0, 1], "WW"),
    ("RFC 9774: a confederation set", 2, 0x40, &[4, 1, 0, 0, 0, 1], "WW"),
    ("RFC 7607: AS 0 in AGGREGATOR", 7, 0xc0, &[0, 0, 0, 0, 1, 1, 1, 1], "DD"),
    (
        "§7.11: a next hop of 15 octets",
        14,
        0x80,
        &[0, 2, 1, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0x20],
        "RR",
    ),
    (
        "§5.3: MP_REACH_NLRI with a prefix of 129 bits",
        14,
        0x80,
        &[
            0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 129, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
        "RR",
    ),
    ("§5.3: MP_UNREACH_NLRI with a prefix cut off", 15, 0x80, &[0, 2, 1, 32, 0x20], "RR"),
];

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    if flags & 0x10 != 0 {
        [&[flags, code][..], &(value.len() as u16).to_be_bytes(), value].concat()
    } else {
        [&[flags, code, value.len() as u8][..], value].concat()
    }
}

/// What carries the reachable prefixes beside the attribute under test.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Carrier {
    Nlri,
    MpReach,
    Nothing,
}

fn update(carrier: Carrier, attributes: &[u8]) -> Vec<u8> {
    let nlri: &[u8] = if carrier == Carrier::Nlri { &[16, 10, 1] } else { &[] };
    let len = 19 + 4 + attributes.len() + nlri.len();
    [
        &[0xff; 16][..],
        &(len as u16).to_be_bytes(),
        &[2, 0, 0],
        &(attributes.len() as u16).to_be_bytes(),
        attributes,
        nlri,
    ]
    .concat()
}

/// The good attributes that every message needs, but for `without`.
fn base(carrier: Carrier, without: u8) -> Vec<u8> {
    let mut out = Vec::new();
    if carrier == Carrier::Nothing {
        return out;
    }
    for (code, value) in [(1, &[0][..]), (2, PATH), (3, &[10, 0, 0, 1])] {
        if code != without && (code != 3 || carrier == Carrier::Nlri) {
            out.extend(attribute(0x40, code, value));
        }
    }
    if carrier == Carrier::MpReach && without != 14 {
        out.extend(attribute(0x80, 14, REACH));
    }
    out
}

/// The letter of what the codec does, and whether it did to the prefixes what the letter says.
fn outcome(peer_type: PeerType, as4: bool, message: &[u8]) -> char {
    let ctx = Context { as4, ..Context::new(peer_type) };
    match decode(message, &ctx) {
        Err(fatal) => {
            assert_eq!(fatal.notification.code, 3);
            assert!(fatal.faults.contains(&fatal.fault));
            'R'
        }
        Ok(decoded) => {
            let Message::Update(update) = decoded.message else { panic!() };
            match decoded.faults.iter().map(|fault| fault.action).max() {
                None => '.',
                Some(Action::Discard) => 'D',
                Some(Action::TreatAsWithdraw) => {
                    assert!(update.reach.is_empty());
                    assert!(!update.withdrawn.is_empty(), "nothing was withdrawn");
                    'W'
                }
                Some(Action::Reset) => panic!("a reset that is none"),
            }
        }
    }
}

struct Report(Vec<String>);

impl Report {
    fn check(&mut self, what: &str, as4: bool, want: &str, message: &[u8]) {
        for (peer_type, want) in [PeerType::Ebgp, PeerType::Ibgp].into_iter().zip(want.chars()) {
            let got = outcome(peer_type, as4, message);
            if got != want {
                self.0.push(format!("{what}, {peer_type:?}: {got} instead of {want}"));
            }
        }
    }

    fn done(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// All faults of a row but for its absence, as attributes.
fn faults(row: &Row) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let one = |flags: u8, value: &[u8]| attribute(flags, row.code, value);
    let short = row.value.get(..row.value.len().saturating_sub(1)).unwrap_or_default();
    let long = [row.value, &[0]].concat();
    let mut long = long;
    if row.code == 14 || row.code == 15 {
        // One octet more is a prefix ::/0 there; a wrong one is a length without its octets.
        if row.code == 14 {
            *long.last_mut().unwrap() = 9;
        }
    }
    let twice = [one(row.flags, row.value), one(row.flags, row.value)].concat();
    [
        ("optional bit", one(row.flags ^ 0x80, row.value), row.optional),
        ("transitive bit", one(row.flags ^ 0x40, row.value), row.transitive),
        ("partial bit", one(row.flags | 0x20, row.value), row.partial),
        ("extended length", one(row.flags | 0x10, row.value), row.extended),
        ("one octet less", one(row.flags, short), row.short),
        ("one octet more", one(row.flags, &long), row.long),
        ("no value", one(row.flags, &[]), row.zero),
        ("twice", twice, row.twice),
        ("nothing wrong", one(row.flags, row.value), row.good),
    ]
    .into_iter()
    .filter(|(_, _, want)| *want != "  ")
    .collect()
}

#[test]
fn every_attribute_and_fault_leads_to_what_the_rfcs_say() {
    let mut report = Report(Vec::new());
    for row in MATRIX {
        for carrier in [Carrier::Nlri, Carrier::MpReach] {
            if row.code == 14 && carrier == Carrier::MpReach {
                continue;
            }
            let base = base(carrier, row.code);
            for (fault, bad, want) in faults(row) {
                for message in [[&base[..], &bad].concat(), [&bad[..], &base].concat()] {
                    report.check(
                        &format!("{}, {fault}, {carrier:?}", row.name),
                        true,
                        want,
                        &update(carrier, &message),
                    );
                }
            }
            // NEXT_HOP is mandatory for the NLRI field only (RFC 7606 §3 (d), RFC 4760 §3).
            let missing = if row.code == 3 && carrier == Carrier::MpReach { ".." } else { row.missing };
            report.check(
                &format!("{}, missing, {carrier:?}", row.name),
                true,
                missing,
                &update(carrier, &base),
            );
        }
    }
    report.done();
}

#[test]
fn every_wrong_value_leads_to_what_the_rfcs_say() {
    let mut report = Report(Vec::new());
    for (what, code, flags, value, want) in VALUES {
        for carrier in [Carrier::Nlri, Carrier::MpReach] {
            if *code == 14 && carrier == Carrier::MpReach {
                continue;
            }
            let attributes = [base(carrier, *code), attribute(*flags, *code, value)].concat();
            report.check(&format!("{what}, {carrier:?}"), true, want, &update(carrier, &attributes));
        }
    }
    report.done();
}

#[test]
fn no_length_but_those_of_the_rfcs_is_accepted() {
    fn times(unit: usize) -> impl Fn(usize) -> bool {
        move |len| len > 0 && len.is_multiple_of(unit)
    }
    fn only(want: usize) -> impl Fn(usize) -> bool {
        move |len| len == want
    }
    type Allowed = Box<dyn Fn(usize) -> bool>;
    // Code, flags, the lengths that are allowed, what follows from them and from others.
    let rows: [(u8, u8, Allowed, &str, &str); 13] = [
        (1, 0x40, Box::new(only(1)), "..", "WW"),
        (3, 0x40, Box::new(only(4)), "..", "WW"),
        (4, 0x80, Box::new(only(4)), "..", "WW"),
        (5, 0x40, Box::new(only(4)), "D.", "DW"),
        (6, 0x40, Box::new(only(0)), "..", "DD"),
        (7, 0xc0, Box::new(only(8)), "..", "DD"),
        (8, 0xc0, Box::new(times(4)), "..", "WW"),
        (9, 0x80, Box::new(only(4)), "D.", "DW"),
        (10, 0x80, Box::new(times(4)), "D.", "DW"),
        (16, 0xc0, Box::new(times(8)), "..", "WW"),
        (25, 0xc0, Box::new(times(20)), "..", "WW"),
        (32, 0xc0, Box::new(times(12)), "..", "WW"),
        (35, 0xc0, Box::new(only(4)), "..", "WW"),
    ];
    let mut report = Report(Vec::new());
    for (code, flags, allowed, good, bad) in rows {
        for len in 0..=120 {
            let attributes = [base(Carrier::Nlri, code), attribute(flags, code, &vec![1; len])].concat();
            let want = if allowed(len) { good } else { bad };
            report.check(&format!("{code} of {len} octets"), true, want, &update(Carrier::Nlri, &attributes));
        }
    }
    report.done();
}

#[test]
fn with_nothing_reachable_every_error_but_a_discard_resets() {
    let stronger = |want: &str| want.replace('W', "R");
    let mut report = Report(Vec::new());
    for row in MATRIX.iter().filter(|row| row.code != 14) {
        for (fault, bad, want) in faults(row) {
            // A mandatory attribute more or less does not matter without prefixes.
            report.check(
                &format!("{}, {fault}, alone", row.name),
                true,
                &stronger(want),
                &update(Carrier::Nothing, &bad),
            );
        }
    }
    for (what, code, flags, value, want) in VALUES.iter().filter(|(_, code, ..)| *code != 14) {
        let message = update(Carrier::Nothing, &attribute(*flags, *code, value));
        report.check(&format!("{what}, alone"), true, &stronger(want), &message);
    }
    report.done();
}

#[test]
fn attributes_that_do_not_fit_withdraw_what_is_reachable_and_reset_if_nothing_is() {
    let mut report = Report(Vec::new());
    let mut communities = attribute(0xc0, 8, &[1; 4]);
    communities[2] = 5;
    for (what, tail) in [
        ("§4: an attribute beyond the total length", &communities[..]),
        ("§4: two octets left", &[0xc0, 8]),
        ("§4: one octet left", &[0xc0]),
        ("§4: three octets left where the extended length needs four", &[0xd0, 8, 0]),
    ] {
        for carrier in [Carrier::Nlri, Carrier::MpReach, Carrier::Nothing] {
            let want = if carrier == Carrier::Nothing { "RR" } else { "WW" };
            let message = update(carrier, &[&base(carrier, 0), tail].concat());
            report.check(&format!("{what}, {carrier:?}"), true, want, &message);
        }
    }
    // §3 (j): where the prefixes themselves are beyond the end, nothing can be withdrawn instead.
    for code in [14, 15] {
        let mut attributes = [base(Carrier::Nlri, 0), attribute(0x80, code, REACH)].concat();
        let at = attributes.len() - REACH.len() - 1;
        attributes[at] += 1;
        report.check(&format!("§3 (j): {code}"), true, "RR", &update(Carrier::Nlri, &attributes));
    }
    report.done();
}

#[test]
fn what_a_message_needs_is_never_stripped() {
    let ctx =
        Context { strip: AttributeCodes::of(&[1, 2, 3, 4, 14, 15, 99]), ..Context::new(PeerType::Ibgp) };
    let attributes = [
        base(Carrier::MpReach, 0),
        attribute(0x40, 3, &[10, 0, 0, 1]),
        attribute(0x80, 4, &[0, 0, 0, 7]),
        attribute(0x80, 15, UNREACH),
        attribute(0xc0, 99, &[1]),
    ]
    .concat();
    let decoded = decode(&update(Carrier::Nlri, &attributes), &ctx).unwrap();
    assert_eq!(decoded.faults, []);
    let Message::Update(update) = decoded.message else { panic!() };
    assert_eq!((update.reach.len(), update.withdrawn.len()), (2, 1));
    assert_eq!(update.attributes.as_path.hops(), 1);
    assert_eq!((update.attributes.med, update.attributes.unknown.len()), (None, 0));
}

#[test]
fn the_strongest_of_several_errors_decides() {
    let mut report = Report(Vec::new());
    let discard = attribute(0x40, 6, &[1]);
    let withdraw = attribute(0x80, 4, &[1]);
    let reset = attribute(0x40, 99, &[1]);
    let base = base(Carrier::Nlri, 0);
    for (parts, want) in [
        (vec![&discard, &withdraw], "WW"),
        (vec![&withdraw, &discard], "WW"),
        (vec![&discard, &withdraw, &reset], "RR"),
        (vec![&reset, &withdraw], "RR"),
    ] {
        let attributes = [base.clone(), parts.into_iter().flatten().copied().collect()].concat();
        report.check("§3 (h)", true, want, &update(Carrier::Nlri, &attributes));
    }
    report.done();
}

#[test]
fn an_old_speakers_as4_attributes_are_discarded_when_malformed() {
    let old: &[u8] = &[2, 2, 0x5b, 0xa0, 0xfd, 0xe9];
    let base =
        [attribute(0x40, 1, &[0]), attribute(0x40, 2, old), attribute(0x40, 3, &[10, 0, 0, 1])].concat();
    let trans = attribute(0xc0, 7, &[0x5b, 0xa0, 1, 1, 1, 1]);
    let mut report = Report(Vec::new());
    for (what, extra, want) in [
        ("nothing", vec![], ".."),
        ("a good AS4_PATH", attribute(0xc0, 17, PATH), ".."),
        ("RFC 6793 §6: no AS number at all", attribute(0xc0, 17, &[]), "DD"),
        ("RFC 6793 §6: too short", attribute(0xc0, 17, &[2, 1]), "DD"),
        ("RFC 6793 §6: not even", attribute(0xc0, 17, &[2, 1, 0, 0, 0]), "DD"),
        ("RFC 6793 §6: empty segment", attribute(0xc0, 17, &[2, 0]), "DD"),
        ("RFC 6793 §6: segment type", attribute(0xc0, 17, &[7, 1, 0, 0, 0, 1]), "DD"),
        ("RFC 7607: AS 0", attribute(0xc0, 17, &[2, 1, 0, 0, 0, 0]), "DD"),
        ("RFC 6793 §6: confederation", attribute(0xc0, 17, &[3, 1, 0, 0, 0, 1]), "DD"),
        (
            "RFC 6793 §4.2.3: more hops than AS_PATH",
            attribute(0xc0, 17, &[2, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]),
            "DD",
        ),
        ("§3 (c): AS4_PATH, optional bit", attribute(0x40, 17, PATH), "WW"),
        ("§3 (c): AS4_PATH, transitive bit", attribute(0x80, 17, PATH), "WW"),
        ("§3 (g): AS4_PATH twice", [attribute(0xc0, 17, PATH), attribute(0xc0, 17, PATH)].concat(), "DD"),
        ("RFC 9774: AS_SET in AS4_PATH", attribute(0xc0, 17, &[1, 1, 0, 0, 0, 1]), "WW"),
        ("RFC 9774: AS_CONFED_SET in AS4_PATH", attribute(0xc0, 17, &[4, 1, 0, 0, 0, 1]), "WW"),
        ("RFC 6793 §4.2.3: AS4_AGGREGATOR alone", attribute(0xc0, 18, &[1; 8]), "DD"),
        (
            "RFC 6793 §4.2.3: AS4_AGGREGATOR with another AGGREGATOR",
            [attribute(0xc0, 7, &[1; 6]), attribute(0xc0, 18, &[1; 8])].concat(),
            "DD",
        ),
        ("AGGREGATOR with six octets", attribute(0xc0, 7, &[1; 6]), ".."),
        ("AS4_AGGREGATOR with AS_TRANS", [trans.clone(), attribute(0xc0, 18, &[1; 8])].concat(), ".."),
        ("RFC 6793 §6: AS4_AGGREGATOR length", [trans.clone(), attribute(0xc0, 18, &[1; 6])].concat(), "DD"),
        ("RFC 7607: AS 0", [trans, attribute(0xc0, 18, &[0, 0, 0, 0, 1, 1, 1, 1])].concat(), "DD"),
        ("AGGREGATOR with eight octets", attribute(0xc0, 7, &[1; 8]), "DD"),
    ] {
        report.check(what, false, want, &update(Carrier::Nlri, &[&base[..], &extra].concat()));
    }
    report.done();
}
