//! Lists of prefixes, with and without path identifiers (RFC 4271 §4.3, RFC 7911 §3).
//!
//! Owns: both directions of the `<length, prefix>` encoding for every family. Never: decides what a bad prefix leads
//! to. Input: the octets of one field. Output: the prefixes, masked, in wire order, or the offset of the bad one.

use bytes::BytesMut;

use crate::prefix::{Family, Prefix};
use crate::wire::Nlri;

/// Offset in the field of a prefix that is longer than its family allows, or than the field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadPrefix(pub usize);

/// Octets of a prefix of `len` bits.
#[inline]
const fn octets(len: u8) -> usize {
    (len as usize).div_ceil(8)
}

/// The length octet and where the address begins; checks that the whole prefix is there.
#[inline]
fn step<F: Family>(rest: &[u8], add_path: bool) -> Option<(u32, u8, &[u8], &[u8])> {
    let (path_id, rest) = if add_path {
        let (id, rest) = rest.split_first_chunk::<4>()?;
        (u32::from_be_bytes(*id), rest)
    } else {
        (0, rest)
    };
    let (&len, rest) = rest.split_first()?;
    if len > F::MAX_LEN {
        return None;
    }
    let (_, after) = rest.split_at_checked(octets(len))?;
    Some((path_id, len, rest, after))
}

/// Decodes a whole field. Allocates once, by the number of prefixes that really are there.
pub fn decode<F: Family>(field: &[u8], add_path: bool) -> Result<Vec<Nlri<F>>, BadPrefix> {
    let mut count = 0usize;
    let mut rest = field;
    while !rest.is_empty() {
        let Some((.., after)) = step::<F>(rest, add_path) else {
            return Err(BadPrefix(field.len() - rest.len()));
        };
        count += 1;
        rest = after;
    }
    let mut list = Vec::with_capacity(count);
    rest = field;
    while let Some((path_id, len, address, after)) = step::<F>(rest, add_path) {
        // What follows the prefix in the field may be read into its host bits: they are masked away (W25).
        if let Some(prefix) = Prefix::from_parts(F::bits_from_bytes(address), len) {
            list.push(Nlri { path_id, prefix });
        }
        rest = after;
    }
    Ok(list)
}

/// Octets that `nlri` takes.
#[inline]
pub fn encoded_len<F: Family>(nlri: &Nlri<F>, add_path: bool) -> usize {
    let id = if add_path { 4 } else { 0 };
    id + 1 + octets(nlri.prefix.len())
}

/// How many of `list`, from its start, fit into `room` octets, and how many octets they take.
pub fn fitting<F: Family>(list: &[Nlri<F>], add_path: bool, room: usize) -> (usize, usize) {
    let mut used = 0;
    for (count, nlri) in list.iter().enumerate() {
        let len = encoded_len(nlri, add_path);
        if used + len > room {
            return (count, used);
        }
        used += len;
    }
    (list.len(), used)
}

/// Appends the prefixes, which take `len` octets together ([`fitting`]).
pub fn encode<F: Family>(list: &[Nlri<F>], add_path: bool, len: usize, out: &mut BytesMut) {
    let start = out.len();
    // Each address is written whole and then overwritten from behind its prefix on; the last one needs the room.
    out.resize(start + len + F::ADDR_BYTES, 0);
    let mut rest: &mut [u8] = out.get_mut(start..).unwrap_or_default();
    for nlri in list {
        if add_path {
            let Some((id, after)) = rest.split_first_chunk_mut() else { break };
            *id = nlri.path_id.to_be_bytes();
            rest = after;
        }
        let Some((count, after)) = rest.split_first_mut() else { break };
        *count = nlri.prefix.len();
        if let Some(mut address) = after.get_mut(..F::ADDR_BYTES) {
            F::put_bytes(nlri.prefix.bits(), F::ADDR_BYTES, &mut address);
        }
        rest = after.get_mut(octets(nlri.prefix.len())..).unwrap_or_default();
    }
    out.truncate(start + len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::{V4, V6};

    fn texts<F: Family>(field: &[u8], add_path: bool) -> Result<Vec<String>, BadPrefix> {
        decode::<F>(field, add_path)
            .map(|list| list.iter().map(|n| format!("{} {}", n.path_id, n.prefix)).collect())
    }

    #[test]
    fn host_bits_beyond_the_length_are_masked() {
        assert_eq!(texts::<V4>(&[9, 10, 0xff, 8, 11], false).unwrap(), ["0 10.128.0.0/9", "0 11.0.0.0/8"]);
        assert_eq!(texts::<V6>(&[0, 3, 0xff], false).unwrap(), ["0 ::/0", "0 e000::/3"]);
    }

    #[test]
    fn the_offset_of_the_first_bad_prefix_is_told() {
        assert_eq!(texts::<V4>(&[8, 10, 33, 1, 2, 3, 4, 5], false), Err(BadPrefix(2)));
        assert_eq!(texts::<V4>(&[8, 10, 24, 1, 2], false), Err(BadPrefix(2)));
        assert_eq!(texts::<V6>(&[129], false), Err(BadPrefix(0)));
        assert_eq!(texts::<V4>(&[0, 0, 0, 1, 0, 0, 0, 0], true), Err(BadPrefix(5)));
        assert_eq!(texts::<V4>(&[0, 0, 0, 1], true), Err(BadPrefix(0)));
    }

    #[test]
    fn path_ids_stand_before_each_prefix() {
        let field = [0, 0, 0, 1, 26, 10, 244, 0, 64, 0, 0, 0, 1, 26, 10, 244, 0, 0];
        assert_eq!(texts::<V4>(&field, true).unwrap(), ["1 10.244.0.64/26", "1 10.244.0.0/26"]);
        let mut out = BytesMut::new();
        encode(&decode::<V4>(&field, true).unwrap(), true, field.len(), &mut out);
        assert_eq!(out[..], field);
    }

    #[test]
    fn only_whole_prefixes_count_as_fitting() {
        let list = decode::<V4>(&[8, 10, 16, 10, 1, 24, 10, 1, 2], false).unwrap();
        assert_eq!(fitting(&list, false, 1), (0, 0));
        assert_eq!(fitting(&list, false, 4), (1, 2));
        assert_eq!(fitting(&list, false, 5), (2, 5));
        assert_eq!(fitting(&list, false, 100), (3, 9));
        assert_eq!(fitting(&list, true, 100), (3, 21));
    }
}
