//! Which TCP MD5 keys a listening socket needs.
//!
//! Owns: the choice between one key for each peer and prefix-scoped keys: single keys use up `net.core.optmem_max` at
//! some hundreds of peers, and most clusters have one password for all. Never: sets socket options. T11.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp_proto::{Afi, IpPrefix};

use crate::model::SecretBytes;

/// Up to so many keys of a family each peer has its own.
const SINGLE_KEYS: usize = 32;

/// The keys of a listening socket of one family, for these peers with their keys.
///
/// Where there are many, peers next to each other with one key share a prefix that holds no peer without a key or with
/// another one, for the kernel takes the longest match and cannot be told "none" for a part of a prefix.
pub fn listener_keys<'a>(
    afi: Afi,
    peers: impl IntoIterator<Item = (IpAddr, Option<&'a SecretBytes>)>,
) -> BTreeMap<IpPrefix, SecretBytes> {
    // Of several peers at one address the first with a key decides: the kernel knows addresses only.
    let mut by_addr: BTreeMap<IpAddr, Option<&SecretBytes>> = BTreeMap::new();
    for (addr, key) in peers.into_iter().filter(|(addr, _)| Afi::of(*addr) == afi) {
        let known = by_addr.entry(addr).or_default();
        *known = known.or(key);
    }
    let all: Vec<(IpAddr, Option<&SecretBytes>)> = by_addr.into_iter().collect();
    let width: u8 = match afi {
        Afi::Ipv4 => 32,
        Afi::Ipv6 => 128,
    };
    let mut keys = BTreeMap::new();
    if all.iter().filter(|(_, key)| key.is_some()).count() <= SINGLE_KEYS {
        for (addr, key) in all {
            if let Some(key) = key {
                keys.insert(IpPrefix::host(addr), key.clone());
            }
        }
    } else {
        cover(&all, width, &mut keys);
    }
    keys
}

/// Emits the fewest prefixes for a sorted run of peers by splitting it where keys differ.
fn cover(run: &[(IpAddr, Option<&SecretBytes>)], width: u8, keys: &mut BTreeMap<IpPrefix, SecretBytes>) {
    let (Some((first, key)), Some((last, _))) = (run.first(), run.last()) else { return };
    let len = common_len(*first, *last, width);
    if run.iter().all(|(_, other)| other == key) {
        if let (Some(key), Some(prefix)) = (key, IpPrefix::new(*first, len)) {
            keys.insert(prefix, (*key).clone());
        }
        return;
    }
    // Addresses are sorted and the first and the last differ right after `len` bits: both halves are shorter.
    let split = run.partition_point(|(addr, _)| common_len(*first, *addr, width) > len);
    let (low, high) = run.split_at(split);
    cover(low, width, keys);
    cover(high, width, keys);
}

/// Leading bits that two addresses of one family share.
fn common_len(a: IpAddr, b: IpAddr, width: u8) -> u8 {
    let differing = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    u8::try_from(differing).unwrap_or(width).min(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn secret(text: &str) -> SecretBytes {
        SecretBytes::new(text.as_bytes().to_vec())
    }

    fn longest(keys: &BTreeMap<IpPrefix, SecretBytes>, addr: IpAddr) -> Option<&SecretBytes> {
        keys.iter().filter(|(p, _)| p.contains(addr)).max_by_key(|(p, _)| p.len()).map(|(_, key)| key)
    }

    #[test]
    fn a_thousand_peers_with_one_password_need_one_key() {
        let key = secret("same");
        let peers: Vec<IpAddr> =
            (0..1000u32).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n * 7).into()).collect();
        let keys = listener_keys(Afi::Ipv4, peers.iter().map(|addr| (*addr, Some(&key))));
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn few_peers_have_a_key_each_and_other_families_none() {
        let key = secret("a");
        let peers = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|a| a.parse::<IpAddr>().unwrap());
        let keys = listener_keys(Afi::Ipv4, peers.iter().map(|addr| (*addr, Some(&key))));
        let prefixes: Vec<String> = keys.keys().map(ToString::to_string).collect();
        assert_eq!(prefixes, ["192.0.2.1/32", "192.0.2.2/32"]);
    }

    proptest! {
        #[test]
        fn each_peer_is_covered_by_its_own_key_and_only_by_it(
            peers in prop::collection::btree_map(0u32..400, 0u8..3, 0..300)
        ) {
            let secrets = [secret("one"), secret("two")];
            let list: Vec<(IpAddr, Option<&SecretBytes>)> = peers
                .iter()
                .map(|(n, kind)| {
                    (Ipv4Addr::from_bits(0x0a00_0000 + n).into(), secrets.get(usize::from(*kind)))
                })
                .collect();
            let keys = listener_keys(Afi::Ipv4, list.iter().copied());
            for (addr, key) in list {
                prop_assert_eq!(longest(&keys, addr), key, "{}", addr);
            }
        }
    }
}
