//! Calls from addresses of no peer (T9, T10).
//!
//! Owns: how many there were and from where, in bounded space, and one line of log a minute. Never: closes anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::{Afi, IpPrefix};
use tokio::time::Instant;
use tracing::info;

use super::caller::Caller;

/// How often strangers are told of.
const STRANGER_LOG: Duration = Duration::from_secs(60);
/// Networks of strangers that are counted one by one.
const STRANGER_NETWORKS: usize = 64;
/// Addresses of strangers that status shows.
const STRANGERS_SHOWN: usize = 4;

/// Calls from addresses of no peer, told once a minute (T9).
#[derive(Default)]
pub(super) struct Strangers {
    pub(super) total: u64,
    by_network: BTreeMap<IpPrefix, u64>,
    beyond: u64,
    told: Option<Instant>,
    /// Of this minute, and of the one before while nobody new came.
    pub(super) recent: Vec<IpAddr>,
    begin_anew: bool,
}

impl Strangers {
    pub(super) fn count(&mut self, addr: IpAddr, callers: &[Caller]) {
        self.total += 1;
        if std::mem::take(&mut self.begin_anew) {
            self.recent.clear();
        }
        if self.recent.len() < STRANGERS_SHOWN && !self.recent.contains(&addr) {
            self.recent.push(addr);
        }
        let network = IpPrefix::new(addr, if addr.is_ipv4() { 24 } else { 64 });
        match network {
            Some(network)
                if self.by_network.len() < STRANGER_NETWORKS || self.by_network.contains_key(&network) =>
            {
                *self.by_network.entry(network).or_default() += 1;
            }
            _ => self.beyond += 1,
        }
        if self.told.is_none() {
            info!(
                from = %addr,
                expected = nearest(addr, callers),
                "a connection from an address of no peer was closed; a peer with several addresses must dial from the \
                 one that it is configured with here"
            );
            self.by_network.clear();
            self.told = Some(Instant::now());
        }
    }

    pub(super) fn pending(&self) -> bool {
        self.told.is_some()
    }

    pub(super) fn due(&self) -> Instant {
        self.told.unwrap_or_else(Instant::now) + STRANGER_LOG
    }

    pub(super) fn tell(&mut self) {
        let calls: u64 = self.by_network.values().sum::<u64>() + self.beyond;
        self.told = None;
        self.begin_anew = calls > 0;
        if calls == 0 {
            self.recent.clear();
        } else {
            let mut networks: Vec<(&IpPrefix, &u64)> = self.by_network.iter().collect();
            networks.sort_by_key(|(prefix, count)| (std::cmp::Reverse(**count), **prefix));
            let worst: Vec<String> =
                networks.iter().take(5).map(|(prefix, count)| format!("{prefix} ({count})")).collect();
            info!(calls, from = worst.join(", "), "connections from addresses of no peer were closed");
            self.told = Some(Instant::now());
        }
        self.by_network.clear();
        self.beyond = 0;
    }
}

/// The peers with the addresses nearest to this one, at most three: one of them is probably meant (T10).
fn nearest(addr: IpAddr, callers: &[Caller]) -> String {
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let mut known: Vec<&Caller> =
        callers.iter().filter(|caller| Afi::of(caller.addr) == Afi::of(addr)).collect();
    known.sort_by_key(|caller| bits(caller.addr) ^ bits(addr));
    if known.is_empty() {
        return format!("nobody: no {} peer is configured", Afi::of(addr));
    }
    let few: Vec<String> =
        known.iter().take(3).map(|caller| format!("{} ({})", caller.addr, caller.name)).collect();
    let beyond = known.len() - few.len();
    if beyond == 0 { few.join(", ") } else { format!("{} or one of {beyond} more", few.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::caller::tests::caller;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn a_scan_from_everywhere_is_counted_in_bounded_space() {
        let mut strangers = Strangers::default();
        for n in 0..100_000u32 {
            strangers.count(IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + n * 256)), &[]);
        }
        assert_eq!(strangers.total, 100_000);
        assert_eq!(
            (strangers.by_network.len(), strangers.recent.len()),
            (STRANGER_NETWORKS, STRANGERS_SHOWN)
        );
        let counted = strangers.by_network.values().sum::<u64>() + strangers.beyond;
        assert_eq!(counted, 99_999, "the first was told by itself");
        strangers.tell();
        assert!(strangers.by_network.is_empty() && strangers.pending(), "and again in a minute");
        strangers.tell();
        assert!(strangers.recent.is_empty() && !strangers.pending(), "but not without news");
    }

    #[test]
    fn the_log_of_a_stranger_names_the_peers_with_the_nearest_addresses() {
        let callers: Vec<Caller> = ["10.9.0.1", "10.0.1.7", "10.0.0.3", "192.0.2.1", "fd00::1"]
            .map(|addr| caller(&format!("Node_{addr}"), addr, None).0)
            .into();
        let from = |addr: &str, callers: &[Caller]| nearest(addr.parse().unwrap(), callers);
        assert_eq!(
            from("10.0.0.9", &callers),
            "10.0.0.3 (Node_10.0.0.3), 10.0.1.7 (Node_10.0.1.7), 10.9.0.1 (Node_10.9.0.1) or one of 1 more"
        );
        assert_eq!(from("fd00::2", &callers), "fd00::1 (Node_fd00::1)");
        assert_eq!(from("fd00::2", callers.get(..4).unwrap()), "nobody: no ipv6 peer is configured");
    }
}
