//! RFC 7606 as one table: for each attribute and each fault, what follows.
//!
//! Owns: [`RULES`], the lengths and flags that attributes have, and the codes that are carried without being looked
//! into. Never: parses anything. The decoder asks the table; no action is decided anywhere else but for faults that
//! belong to the message and not to an attribute.
//!
//! Sources: RFC 7606 §3 (c) to (g) and §7; RFC 4271 §6.3 for the subcodes; RFC 6793 §6; RFC 7607; RFC 8092 §6;
//! RFC 9234 §5.

use crate::wire::fault::Action;

/// The optional bit of the attribute flags.
pub const OPTIONAL: u8 = 0x80;
/// The transitive bit.
pub const TRANSITIVE: u8 = 0x40;
/// The partial bit.
pub const PARTIAL: u8 = 0x20;
/// The bit that says that the length field has two octets.
pub const EXTENDED_LENGTH: u8 = 0x10;

/// Attribute type codes.
pub mod code {
    #![allow(missing_docs, reason = "the names are those of the RFCs")]
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MULTI_EXIT_DISC: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH_NLRI: u8 = 14;
    pub const MP_UNREACH_NLRI: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub const LARGE_COMMUNITY: u8 = 32;
    pub const ONLY_TO_CUSTOMER: u8 = 35;
}

/// Which lengths of its value an attribute may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LengthRule {
    /// Any; the value itself is parsed.
    Any,
    /// Exactly so many octets.
    Exactly(usize),
    /// A multiple of so many octets, and at least one of them.
    MultipleOf(usize),
    /// So many octets or more; the value itself is parsed.
    AtLeast(usize),
    /// The first with two-octet AS numbers, the second with four-octet ones.
    ByAsSize(usize, usize),
}

impl LengthRule {
    /// Whether a value of `len` octets is allowed.
    pub fn allows(self, len: usize, as4: bool) -> bool {
        match self {
            LengthRule::Any => true,
            LengthRule::Exactly(want) => len == want,
            LengthRule::MultipleOf(unit) => len != 0 && len.is_multiple_of(unit),
            LengthRule::AtLeast(least) => len >= least,
            LengthRule::ByAsSize(two, four) => len == if as4 { four } else { two },
        }
    }
}

/// What a fault leads to, and the subcode of the UPDATE error should that be a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// What follows.
    pub action: Action,
    /// Subcode of NOTIFICATION code 3.
    pub subcode: u8,
}

/// Subcodes of an UPDATE error (RFC 4271 §6.3).
pub mod subcode {
    #![allow(missing_docs, reason = "the names are those of the RFC")]
    pub const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
    pub const UNRECOGNIZED_WELL_KNOWN: u8 = 2;
    pub const MISSING_WELL_KNOWN: u8 = 3;
    pub const ATTRIBUTE_FLAGS: u8 = 4;
    pub const ATTRIBUTE_LENGTH: u8 = 5;
    pub const INVALID_ORIGIN: u8 = 6;
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    pub const INVALID_NETWORK_FIELD: u8 = 10;
    pub const MALFORMED_AS_PATH: u8 = 11;
}

/// One attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Type code.
    pub code: u8,
    /// The optional and transitive bits that it must have.
    pub flags: u8,
    /// The lengths that it may have.
    pub length: LengthRule,
    /// Optional or transitive bit wrong.
    pub on_flags: Verdict,
    /// Length not allowed.
    pub on_length: Verdict,
    /// Value not allowed.
    pub on_value: Verdict,
    /// A further copy.
    pub on_duplicate: Verdict,
    /// Received from an external peer; `None`: allowed.
    pub on_external: Option<Verdict>,
    /// Not there though the message announces prefixes; `None`: not mandatory.
    pub on_missing: Option<Verdict>,
}

const fn discard(subcode: u8) -> Verdict {
    Verdict { action: Action::Discard, subcode }
}

const fn withdraw(subcode: u8) -> Verdict {
    Verdict { action: Action::TreatAsWithdraw, subcode }
}

const fn reset(subcode: u8) -> Verdict {
    Verdict { action: Action::Reset, subcode }
}

const WELL_KNOWN: u8 = TRANSITIVE;
const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;

/// The usual row: flags and length lead to treat-as-withdraw, a further copy is discarded (RFC 7606 §3 (c), (g)).
const fn usual(code: u8, flags: u8, length: LengthRule) -> Rule {
    Rule {
        code,
        flags,
        length,
        on_flags: withdraw(subcode::ATTRIBUTE_FLAGS),
        on_length: withdraw(subcode::ATTRIBUTE_LENGTH),
        on_value: withdraw(subcode::OPTIONAL_ATTRIBUTE),
        on_duplicate: discard(subcode::MALFORMED_ATTRIBUTE_LIST),
        on_external: None,
        on_missing: None,
    }
}

const fn mandatory(rule: Rule) -> Rule {
    Rule { on_missing: Some(withdraw(subcode::MISSING_WELL_KNOWN)), ..rule }
}

const fn internal_only(rule: Rule) -> Rule {
    Rule { on_external: Some(discard(subcode::OPTIONAL_ATTRIBUTE)), ..rule }
}

/// Length and value faults lead to attribute discard (RFC 7606 §3 (f), §7.6, §7.7; RFC 6793 §6).
const fn inconsequential(rule: Rule) -> Rule {
    Rule {
        on_length: discard(subcode::ATTRIBUTE_LENGTH),
        on_value: discard(subcode::OPTIONAL_ATTRIBUTE),
        ..rule
    }
}

/// Nothing in it can be trusted once something is wrong: where the prefixes are is unknown (RFC 7606 §3 (g), §5.3,
/// §7.11).
const fn carries_prefixes(code: u8) -> Rule {
    Rule {
        on_flags: reset(subcode::OPTIONAL_ATTRIBUTE),
        on_length: reset(subcode::OPTIONAL_ATTRIBUTE),
        on_value: reset(subcode::OPTIONAL_ATTRIBUTE),
        on_duplicate: reset(subcode::MALFORMED_ATTRIBUTE_LIST),
        ..usual(code, OPTIONAL, LengthRule::Any)
    }
}

/// All attributes that are decoded, and IPV6_EXTENDED_COMMUNITIES, of which only the length is looked at.
pub const RULES: [Rule; 18] = {
    use LengthRule::{Any, AtLeast, ByAsSize, Exactly, MultipleOf};
    [
        Rule {
            on_value: withdraw(subcode::INVALID_ORIGIN),
            ..mandatory(usual(code::ORIGIN, WELL_KNOWN, Exactly(1)))
        },
        Rule {
            on_value: withdraw(subcode::MALFORMED_AS_PATH),
            ..mandatory(usual(code::AS_PATH, WELL_KNOWN, Any))
        },
        mandatory(usual(code::NEXT_HOP, WELL_KNOWN, Exactly(4))),
        usual(code::MULTI_EXIT_DISC, OPTIONAL, Exactly(4)),
        internal_only(usual(code::LOCAL_PREF, WELL_KNOWN, Exactly(4))),
        inconsequential(usual(code::ATOMIC_AGGREGATE, WELL_KNOWN, Exactly(0))),
        inconsequential(usual(code::AGGREGATOR, OPTIONAL_TRANSITIVE, ByAsSize(6, 8))),
        usual(code::COMMUNITIES, OPTIONAL_TRANSITIVE, MultipleOf(4)),
        internal_only(usual(code::ORIGINATOR_ID, OPTIONAL, Exactly(4))),
        internal_only(usual(code::CLUSTER_LIST, OPTIONAL, MultipleOf(4))),
        carries_prefixes(code::MP_REACH_NLRI),
        carries_prefixes(code::MP_UNREACH_NLRI),
        usual(code::EXTENDED_COMMUNITIES, OPTIONAL_TRANSITIVE, MultipleOf(8)),
        // One segment of one AS number: an empty path is malformed here (RFC 6793 §6), where an AS_PATH may be empty.
        inconsequential(usual(code::AS4_PATH, OPTIONAL_TRANSITIVE, AtLeast(6))),
        inconsequential(usual(code::AS4_AGGREGATOR, OPTIONAL_TRANSITIVE, Exactly(8))),
        usual(code::IPV6_EXTENDED_COMMUNITIES, OPTIONAL_TRANSITIVE, MultipleOf(20)),
        usual(code::LARGE_COMMUNITY, OPTIONAL_TRANSITIVE, MultipleOf(12)),
        usual(code::ONLY_TO_CUSTOMER, OPTIONAL_TRANSITIVE, Exactly(4)),
    ]
};

/// Position in [`RULES`] by code; 255: no rule.
const INDEX: [u8; 256] = {
    let mut index = [u8::MAX; 256];
    let mut at = 0;
    while at < RULES.len() {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            index[RULES[at].code as usize] = at as u8;
        }
        at += 1;
    }
    index
};

/// The row of an attribute that is decoded.
pub fn rule(code: u8) -> Option<&'static Rule> {
    let at = *INDEX.get(usize::from(code))?;
    RULES.get(usize::from(at))
}

/// Attributes of address families and features that we do not speak, with which others have had sessions reset all
/// over the world (W49): PMSI_TUNNEL, Tunnel Encapsulation, AIGP, BGP-LS, Prefix-SID, ATTR_SET, and 255. Whatever is
/// in them, they never reset a session.
pub const OPAQUE: [u8; 7] = [22, 23, 26, 29, 40, 128, 255];

/// Those of [`OPAQUE`] that are dropped by default when an external peer sends them, so that Calico's nodes do not
/// carry them on.
pub const STRIPPED_FROM_EXTERNAL: [u8; 5] = [22, 23, 29, 40, 128];

/// A well-known attribute with a code that nobody knows: RFC 7606 does not relax it.
pub const UNKNOWN_WELL_KNOWN: Verdict = reset(subcode::UNRECOGNIZED_WELL_KNOWN);

/// A code of [`OPAQUE`] that came without the optional bit.
pub const OPAQUE_FLAGS: Verdict = withdraw(subcode::ATTRIBUTE_FLAGS);

/// A further copy of an attribute without a row.
pub const UNKNOWN_DUPLICATE: Verdict = discard(subcode::MALFORMED_ATTRIBUTE_LIST);

/// Attributes that do not fit the total attribute length (RFC 7606 §4).
pub const LIST: Verdict = withdraw(subcode::MALFORMED_ATTRIBUTE_LIST);
