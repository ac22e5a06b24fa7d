//! Limits on what a peer may send: prefixes (T18) and refreshes (W55).
//!
//! Owns: counting. Never: closes a session; it says that a limit is passed and the session acts.

use std::collections::BTreeMap;

use crate::prefix::{Afi, AfiSet, Prefix4, Prefix6};
use crate::session::MaxPrefix;
use crate::time::Millis;
use crate::wire::{NlriList, Update};

/// Counts the routes that a peer has announced and not withdrawn, for one session. It exists only where a limit is
/// configured, because it must know each route, and it never holds more than one route above the limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PrefixLimit {
    rule: MaxPrefix,
    v4: Routes<Prefix4>,
    v6: Routes<Prefix6>,
}

/// Routes of one family by prefix and path id, with the number of the refresh in which each was last seen.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Routes<P> {
    seen: BTreeMap<(P, u32), u32>,
    refresh: u32,
    /// Above the limit, and said so.
    above: bool,
}

impl<P: Ord> Routes<P> {
    fn new() -> Self {
        Routes { seen: BTreeMap::new(), refresh: 0, above: false }
    }

    fn announce(&mut self, routes: impl Iterator<Item = (P, u32)>, limit: usize) {
        for route in routes {
            // The set must not grow with what the peer sends beyond its limit.
            if self.seen.len() <= limit || self.seen.contains_key(&route) {
                self.seen.insert(route, self.refresh);
            }
        }
    }

    fn withdraw(&mut self, routes: impl Iterator<Item = (P, u32)>) {
        for route in routes {
            self.seen.remove(&route);
        }
    }

    /// Whether the limit has just been passed.
    fn passes(&mut self, limit: usize) -> bool {
        let above = self.seen.len() > limit;
        let news = above && !self.above;
        self.above = above;
        news
    }
}

impl PrefixLimit {
    pub(crate) fn new(rule: MaxPrefix) -> Self {
        PrefixLimit { rule, v4: Routes::new(), v6: Routes::new() }
    }

    pub(crate) fn rule(&self) -> MaxPrefix {
        self.rule
    }

    /// The same count under another rule.
    pub(crate) fn with_rule(mut self, rule: MaxPrefix) -> Self {
        self.rule = rule;
        self
    }

    /// Counts an UPDATE. The families whose limit it passes and did not before.
    pub(crate) fn count(&mut self, update: &Update) -> AfiSet {
        let limit = usize::try_from(self.rule.limit).unwrap_or(usize::MAX);
        for list in &update.withdrawn {
            match list {
                NlriList::V4(list) => self.v4.withdraw(list.iter().map(|n| (n.prefix, n.path_id))),
                NlriList::V6(list) => self.v6.withdraw(list.iter().map(|n| (n.prefix, n.path_id))),
            }
        }
        for reach in &update.reach {
            match &reach.nlri {
                NlriList::V4(list) => self.v4.announce(list.iter().map(|n| (n.prefix, n.path_id)), limit),
                NlriList::V6(list) => self.v6.announce(list.iter().map(|n| (n.prefix, n.path_id)), limit),
            }
        }
        let passed = [(Afi::Ipv4, self.v4.passes(limit)), (Afi::Ipv6, self.v6.passes(limit))];
        passed.into_iter().filter(|(_, passed)| *passed).map(|(afi, _)| afi).collect()
    }

    /// A refresh begins: what is not announced again before it ends is gone then.
    pub(crate) fn refresh_begins(&mut self, afi: Afi) {
        match afi {
            Afi::Ipv4 => self.v4.refresh = self.v4.refresh.wrapping_add(1),
            Afi::Ipv6 => self.v6.refresh = self.v6.refresh.wrapping_add(1),
        }
    }

    /// A refresh ends, or its time is over.
    pub(crate) fn refresh_ends(&mut self, afi: Afi) {
        match afi {
            Afi::Ipv4 => {
                let current = self.v4.refresh;
                self.v4.seen.retain(|_, seen| *seen == current);
            }
            Afi::Ipv6 => {
                let current = self.v6.refresh;
                self.v6.seen.retain(|_, seen| *seen == current);
            }
        }
    }
}

/// How often a peer may make us walk its routes or ours: a bucket of [`Bucket::BURST`] tokens, one more every
/// [`Bucket::REFILL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bucket {
    tokens: u8,
    /// Since when the present tokens count.
    since: Millis,
}

impl Bucket {
    pub(crate) const BURST: u8 = 4;
    pub(crate) const REFILL: Millis = Millis::secs(5);

    pub(crate) fn full(now: Millis) -> Self {
        Bucket { tokens: Self::BURST, since: now }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Millis) -> bool {
        let earned = (now - self.since).0 / Self::REFILL.0;
        if earned > 0 {
            let tokens = u64::from(self.tokens).saturating_add(earned).min(Self::BURST.into());
            self.tokens = u8::try_from(tokens).unwrap_or(Self::BURST);
            self.since = self.since + Millis(earned.saturating_mul(Self::REFILL.0));
        }
        if self.tokens == Self::BURST {
            self.since = now;
        }
        let there = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        there
    }

    /// When an empty bucket has a token again.
    pub(crate) fn next(&self) -> Millis {
        self.since + Self::REFILL
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::wire::{Attributes, NextHop, Nlri, Reach};

    const V4: AfiSet = AfiSet::only(Afi::Ipv4);

    fn list(prefixes: &[&str]) -> NlriList {
        NlriList::V4(prefixes.iter().map(|p| Nlri { path_id: 1, prefix: p.parse().unwrap() }).collect())
    }

    fn announce(prefixes: &[&str]) -> Update {
        Update {
            reach: smallvec![Reach {
                next_hop: NextHop::V4("10.0.0.1".parse().unwrap()),
                nlri: list(prefixes)
            }],
            attributes: Attributes::default(),
            ..Update::default()
        }
    }

    fn withdraw(prefixes: &[&str]) -> Update {
        Update { withdrawn: smallvec![list(prefixes)], ..Update::default() }
    }

    fn limit(limit: u32) -> PrefixLimit {
        PrefixLimit::new(MaxPrefix { limit, close: true, restart: None })
    }

    #[test]
    fn the_limit_is_passed_by_distinct_routes_only() {
        let mut count = limit(2);
        assert_eq!(count.count(&announce(&["10.0.0.0/24", "10.0.1.0/24"])), AfiSet::EMPTY);
        assert_eq!(count.count(&announce(&["10.0.0.0/24", "10.0.1.0/24"])), AfiSet::EMPTY);
        assert_eq!(count.count(&announce(&["10.0.2.0/24"])), V4);
    }

    #[test]
    fn a_withdrawal_makes_room_and_the_next_excess_is_told_again() {
        let mut count = limit(1);
        assert_eq!(count.count(&announce(&["10.0.0.0/24", "10.0.1.0/24"])), V4);
        assert_eq!(count.count(&announce(&["10.0.2.0/24"])), AfiSet::EMPTY);
        assert_eq!(count.count(&withdraw(&["10.0.0.0/24", "10.0.1.0/24"])), AfiSet::EMPTY);
        assert_eq!(count.count(&announce(&["10.0.5.0/24", "10.0.6.0/24"])), V4);
    }

    #[test]
    fn routes_that_a_refresh_did_not_bring_again_do_not_count() {
        let mut count = limit(2);
        count.count(&announce(&["10.0.0.0/24", "10.0.1.0/24"]));
        count.refresh_begins(Afi::Ipv4);
        assert_eq!(count.count(&announce(&["10.0.1.0/24"])), AfiSet::EMPTY);
        count.refresh_ends(Afi::Ipv4);
        assert_eq!(count.count(&announce(&["10.0.2.0/24"])), AfiSet::EMPTY);
        assert_eq!(count.count(&announce(&["10.0.3.0/24"])), V4);
    }

    #[test]
    fn each_family_that_passes_its_limit_in_one_update_is_told() {
        let mut count = limit(1);
        let mut update = announce(&["10.0.0.0/24", "10.0.1.0/24"]);
        let v6 = ["2001:db8:1::/64", "2001:db8:2::/64"];
        update.reach.push(Reach {
            next_hop: NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None },
            nlri: NlriList::V6(v6.iter().map(|p| Nlri { path_id: 1, prefix: p.parse().unwrap() }).collect()),
        });
        assert_eq!(count.count(&update), AfiSet::BOTH);
        assert_eq!(count.count(&update), AfiSet::EMPTY, "once");
    }

    #[test]
    fn a_bucket_lets_a_burst_pass_and_then_one_in_five_seconds() {
        let mut bucket = Bucket::full(Millis(0));
        let taken = (0..10_000).filter(|_| bucket.take(Millis(1))).count();
        assert_eq!(taken, 4);
        let next = bucket.next();
        assert!(!bucket.take(Millis(next.0 - 1)) && bucket.take(next) && !bucket.take(next));
        assert!(bucket.take(Millis::secs(1000)));
    }
}
