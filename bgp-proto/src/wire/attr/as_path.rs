//! AS_PATH and AS4_PATH (RFC 4271 §4.3, §5.1.2; RFC 6793).
//!
//! Owns: segments in both directions and in both sizes of AS numbers, the length of a path, and the reconstruction of a
//! path from an old speaker. Never: looks for loops or prepends; that is import and export.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::ids::Asn;
use crate::wire::attr::{AsPath, AsnList, Segment};
use crate::wire::fault::FaultKind;
use crate::wire::input::{In, Malformed, Parsed, be_u8, take};

const AS_SET: u8 = 1;
const AS_SEQUENCE: u8 = 2;
const AS_CONFED_SEQUENCE: u8 = 3;
const AS_CONFED_SET: u8 = 4;

/// Most AS numbers in one segment.
pub(crate) const SEGMENT_MAX: usize = 255;

/// A fault of a path: its offset in the value, and what it is.
pub type PathFault = (usize, FaultKind);

/// A path as it came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PathIn {
    /// Everything that could be read, confederation segments left out.
    pub path: AsPath,
    /// The segments do not parse; the path ends before the fault.
    pub broken: Option<PathFault>,
    /// The first AS number 0.
    pub zero: Option<usize>,
    /// The first AS_SET.
    pub set: Option<usize>,
    /// The first confederation segment.
    pub confederation: Option<usize>,
    /// The first AS_CONFED_SET.
    pub confederation_set: Option<usize>,
}

/// One segment: type, and its AS numbers as octets.
fn segment(input: In<'_>, as_size: usize) -> Parsed<'_, (u8, In<'_>)> {
    let (input, kind) = be_u8(input)?;
    let (input, count) = be_u8(input)?;
    let (input, asns) = take(usize::from(count) * as_size)(input)?;
    Ok((input, (kind, asns)))
}

fn asns(octets: In<'_>, as4: bool) -> AsnList {
    if as4 {
        octets.as_chunks::<4>().0.iter().map(|asn| Asn(u32::from_be_bytes(*asn))).collect()
    } else {
        octets.as_chunks::<2>().0.iter().map(|asn| Asn(u16::from_be_bytes(*asn).into())).collect()
    }
}

/// Reads the value of AS_PATH (`as4` by negotiation) or AS4_PATH (`as4` always).
pub fn read(value: In<'_>, as4: bool) -> PathIn {
    let as_size = if as4 { 4 } else { 2 };
    let mut found = PathIn::default();
    let mut rest = value;
    while !rest.is_empty() {
        let at = value.len() - rest.len();
        let (after, (kind, octets)) = match segment(rest, as_size) {
            Ok(parsed) => parsed,
            Err(error) => {
                // An unknown type is the better explanation than the length that follows from misreading it.
                let known = rest.first().is_none_or(|kind| (AS_SET..=AS_CONFED_SET).contains(kind));
                let fault = if known {
                    (value.len() - Malformed::from(error).rest, FaultKind::SegmentLength)
                } else {
                    (at, FaultKind::SegmentType)
                };
                found.broken = Some(fault);
                return found;
            }
        };
        rest = after;
        if !(AS_SET..=AS_CONFED_SET).contains(&kind) {
            found.broken = Some((at, FaultKind::SegmentType));
            return found;
        }
        if octets.is_empty() {
            found.broken = Some((at + 1, FaultKind::SegmentEmpty));
            return found;
        }
        let asns = asns(octets, as4);
        if found.zero.is_none() {
            found.zero = asns.iter().position(|asn| asn.0 == 0).map(|index| at + 2 + index * as_size);
        }
        match kind {
            AS_SEQUENCE => found.path.segments.push(Segment::Sequence(asns)),
            AS_SET => {
                found.set.get_or_insert(at);
                found.path.segments.push(Segment::Set(asns));
            }
            AS_CONFED_SEQUENCE => {
                found.confederation.get_or_insert(at);
            }
            _ => {
                found.confederation.get_or_insert(at);
                found.confederation_set.get_or_insert(at);
            }
        }
    }
    found
}

impl AsPath {
    /// A path of one AS_SEQUENCE; the empty path of a route of our own if there is none.
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> AsPath {
        let asns: AsnList = asns.into_iter().collect();
        let sequence = (!asns.is_empty()).then_some(Segment::Sequence(asns));
        AsPath { segments: sequence.into_iter().collect() }
    }

    /// Length for the decision: an AS_SET counts as one (RFC 4271 §9.1.2.2 (a)).
    pub fn hops(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Sequence(asns) => asns.len(),
                Segment::Set(_) => 1,
            })
            .sum()
    }

    /// All AS numbers, in wire order, those of sets too.
    pub fn asns(&self) -> impl Iterator<Item = Asn> {
        self.segments.iter().flat_map(|segment| match segment {
            Segment::Sequence(asns) | Segment::Set(asns) => asns.iter().copied(),
        })
    }

    /// The path behind an AS_PATH from an old speaker and the AS4_PATH that it carried along: as many hops of
    /// `self` as it is longer, then `as4_path` (RFC 6793 §4.2.3). `None` if AS4_PATH is longer and must be ignored.
    pub fn reconstruct(&self, as4_path: &AsPath) -> Option<AsPath> {
        let mut missing = self.hops().checked_sub(as4_path.hops())?;
        let mut segments: SmallVec<[Segment; 1]> = SmallVec::new();
        for segment in &self.segments {
            if missing == 0 {
                break;
            }
            match segment {
                Segment::Sequence(asns) => {
                    let taken: AsnList = asns.iter().copied().take(missing).collect();
                    missing -= taken.len();
                    segments.push(Segment::Sequence(taken));
                }
                Segment::Set(asns) => {
                    missing -= 1;
                    segments.push(Segment::Set(asns.clone()));
                }
            }
        }
        let mut tail = as4_path.segments.as_slice();
        // One sequence at the seam, as the path was before an old speaker prepended itself.
        if let (Some(Segment::Sequence(head)), Some((Segment::Sequence(first), rest))) =
            (segments.last_mut(), tail.split_first())
            && head.len() + first.len() <= SEGMENT_MAX
        {
            head.extend_from_slice(first);
            tail = rest;
        }
        segments.extend(tail.iter().cloned());
        Some(AsPath { segments })
    }

    /// Octets of the value.
    pub(crate) fn encoded_len(&self, as4: bool) -> usize {
        let as_size = if as4 { 4 } else { 2 };
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Sequence(asns) | Segment::Set(asns) => {
                    2 * asns.len().div_ceil(SEGMENT_MAX) + as_size * asns.len()
                }
            })
            .sum()
    }

    /// Appends the value. Segments of more than 255 AS numbers are cut; empty ones are left out.
    pub(crate) fn encode(&self, as4: bool, out: &mut BytesMut) {
        for segment in &self.segments {
            let (kind, asns) = match segment {
                Segment::Sequence(asns) => (AS_SEQUENCE, asns),
                Segment::Set(asns) => (AS_SET, asns),
            };
            for part in asns.chunks(SEGMENT_MAX) {
                out.put_u8(kind);
                out.put_u8(part.len().try_into().unwrap_or(u8::MAX));
                for asn in part {
                    if as4 { out.put_u32(asn.0) } else { out.put_u16(asn.two_octets()) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> AsPath {
        // "1 2 {3 4} 5": sequences and sets.
        let mut segments = SmallVec::new();
        for part in text.split_inclusive(['}', '{']) {
            let (set, part) = match part.strip_suffix('}') {
                Some(part) => (true, part),
                None => (false, part.trim_end_matches('{')),
            };
            let asns: AsnList = part.split_whitespace().map(|asn| asn.parse().unwrap()).collect();
            if !asns.is_empty() {
                segments.push(if set { Segment::Set(asns) } else { Segment::Sequence(asns) });
            }
        }
        AsPath { segments }
    }

    #[test]
    fn an_old_speakers_path_gets_its_large_numbers_back() {
        for (as_path, as4_path, whole) in [
            ("23456 23456 5", "70000 80000 5", Some("70000 80000 5")),
            ("1 23456 5", "70000 5", Some("1 70000 5")),
            ("1 2 3", "", Some("1 2 3")),
            ("1", "1 2", None),
            ("1 {2 3} 4", "4", Some("1 {2 3} 4")),
            ("1 2 {3 4}", "2 {3 4}", Some("1 2 {3 4}")),
        ] {
            assert_eq!(path(as_path).reconstruct(&path(as4_path)), whole.map(path), "{as_path} + {as4_path}");
        }
    }

    #[test]
    fn a_segment_of_more_than_255_numbers_is_cut() {
        let long = AsPath::sequence((1..=300).map(Asn));
        let mut out = BytesMut::new();
        long.encode(true, &mut out);
        assert_eq!(out.len(), long.encoded_len(true));
        let back = read(&out, true).path;
        assert_eq!(back.segments.len(), 2);
        assert_eq!(back.hops(), 300);
        assert!(back.asns().eq(long.asns()));
    }

    #[test]
    fn each_way_to_break_a_path_is_told_apart() {
        for (value, fault) in [
            (&[5u8, 1, 0, 1][..], (0, FaultKind::SegmentType)),
            (&[0, 9], (0, FaultKind::SegmentType)),
            (&[2, 0], (1, FaultKind::SegmentEmpty)),
            (&[2, 2, 0, 1], (2, FaultKind::SegmentLength)),
            (&[2, 1, 0, 1, 2], (5, FaultKind::SegmentLength)),
        ] {
            assert_eq!(read(value, false).broken, Some(fault), "{value:?}");
        }
        let found = read(&[2, 1, 0, 7, 3, 1, 0, 8, 1, 2, 0, 9, 0, 0], false);
        assert_eq!(
            (found.broken, found.zero, found.set, found.confederation),
            (None, Some(12), Some(8), Some(4))
        );
        assert_eq!(found.path, path("7 {9 0}"));
    }
}
