//! One table of cases that the kernel in memory and the real one both pass: what an operation is answered, what is there
//! afterwards, and that notifications alone bring a mirror to the same. Whatever the fake kernel lets a test of the
//! reconciler believe is so.
//!
//! The half with the real kernel needs root and iproute2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod namespace;

use std::collections::BTreeMap;

use bgp_proto::IpPrefix;
use calico_bgpd::fib::fake::{FakeKernel, SharedKernel};
use calico_bgpd::fib::linux::LinuxKernel;
use calico_bgpd::fib::mirror::Mirror;
use calico_bgpd::fib::{FibRoute, Kernel, Leg, RouteOp, Target};

use namespace::{in_namespace, ip};

/// What is done. Routes are written `via 10.99.0.2 e0`, several legs with ` + ` between them, or `blackhole`.
enum Act {
    Add(&'static str, u32, &'static str),
    Replace(&'static str, u32, &'static str),
    Delete(&'static str, u32, Option<&'static str>),
    /// Another program replaces what is at the key.
    Other(&'static str, u8, u32, &'static str),
    /// Another program appends.
    Append(&'static str, u8, u32, &'static str),
}

use Act::{Add, Append, Delete, Other, Replace};

/// An act, the number of its errno (0: done), and the routes of its prefix afterwards, as `ROUTE proto N metric N`.
type Step = (Act, i32, &'static [&'static str]);

const EXIST: i32 = 17;
const SRCH: i32 = 3;
const NET_UNREACHABLE: i32 = 101;
const HOST_UNREACHABLE: i32 = 113;

const A: &str = "10.244.1.0/26";
const B: &str = "fd00:10:244:1::/122";

const CASES: &[(&str, &[Step])] = &[
    (
        "a second route at a key is refused",
        &[
            (Add(A, 1024, "via 10.99.0.2 e0"), 0, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
            (Add(A, 1024, "via 10.98.0.2 e1"), EXIST, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
            (Add(A, 1024, "blackhole"), EXIST, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
        ],
    ),
    (
        "a foreign route holds its key against an add",
        &[
            (Other(A, 80, 1024, "via 10.98.0.2 e1"), 0, &["via 10.98.0.2 e1 proto 80 metric 1024"]),
            (Add(A, 1024, "via 10.99.0.2 e0"), EXIST, &["via 10.98.0.2 e1 proto 80 metric 1024"]),
        ],
    ),
    (
        "the metric is a part of the key",
        &[
            (Add(A, 1024, "via 10.99.0.2 e0"), 0, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
            (
                Add(A, 512, "via 10.99.0.3 e0"),
                0,
                &["via 10.99.0.2 e0 proto 12 metric 1024", "via 10.99.0.3 e0 proto 12 metric 512"],
            ),
            (
                Replace(A, 512, "via 10.98.0.3 e1"),
                0,
                &["via 10.98.0.3 e1 proto 12 metric 512", "via 10.99.0.2 e0 proto 12 metric 1024"],
            ),
            (Delete(A, 512, None), 0, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
            (Delete(A, 512, None), SRCH, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
        ],
    ),
    (
        "a replace does not look at the protocol, a delete does",
        &[
            (Other(A, 80, 1024, "via 10.98.0.2 e1"), 0, &["via 10.98.0.2 e1 proto 80 metric 1024"]),
            (Delete(A, 1024, None), SRCH, &["via 10.98.0.2 e1 proto 80 metric 1024"]),
            (Replace(A, 1024, "via 10.99.0.2 e0"), 0, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
            (Other(A, 80, 1024, "blackhole"), 0, &["blackhole proto 80 metric 1024"]),
        ],
    ),
    (
        "a replace where nothing is makes the route",
        &[(Replace(A, 1024, "blackhole"), 0, &["blackhole proto 12 metric 1024"])],
    ),
    (
        "a delete of metric 0 takes the route that it describes",
        &[
            (Add(A, 1024, "via 10.99.0.2 e0"), 0, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
            (
                Add(A, 0, "blackhole"),
                0,
                &["blackhole proto 12 metric 0", "via 10.99.0.2 e0 proto 12 metric 1024"],
            ),
            (Delete(A, 0, Some("blackhole")), 0, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
            (Delete(A, 0, Some("blackhole")), SRCH, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
        ],
    ),
    (
        "legs are replaced as a whole",
        &[
            (
                Add(A, 1024, "via 10.99.0.2 e0 + via 10.98.0.2 e1"),
                0,
                &["via 10.98.0.2 e1 + via 10.99.0.2 e0 proto 12 metric 1024"],
            ),
            (
                Replace(A, 1024, "via 10.99.0.3 e0 + via 10.98.0.3 e1"),
                0,
                &["via 10.98.0.3 e1 + via 10.99.0.3 e0 proto 12 metric 1024"],
            ),
            (Replace(A, 1024, "via 10.99.0.4 e0"), 0, &["via 10.99.0.4 e0 proto 12 metric 1024"]),
            (Delete(A, 1024, None), 0, &[]),
        ],
    ),
    (
        "a gateway must be on its link, or be said to be",
        &[
            (Add(A, 1024, "via 10.55.0.2 e0"), NET_UNREACHABLE, &[]),
            (Add(A, 1024, "via 10.55.0.2 e0 onlink"), 0, &["via 10.55.0.2 e0 onlink proto 12 metric 1024"]),
            (
                Replace(A, 1024, "via 10.55.0.3 e0"),
                NET_UNREACHABLE,
                &["via 10.55.0.2 e0 onlink proto 12 metric 1024"],
            ),
            (Add(B, 1024, "via fd55::2 e0"), HOST_UNREACHABLE, &[]),
        ],
    ),
    (
        "each leg may be on its link by word only",
        &[(
            Add(A, 1024, "via 10.55.0.2 e1 onlink + via 10.99.0.2 e0"),
            0,
            &["via 10.55.0.2 e1 onlink + via 10.99.0.2 e0 proto 12 metric 1024"],
        )],
    ),
    (
        "IPv6 has no metric 0",
        &[
            (Add(B, 0, "blackhole"), 0, &["blackhole proto 12 metric 1024"]),
            (Add(B, 1024, "blackhole"), EXIST, &["blackhole proto 12 metric 1024"]),
            (Add(B, 1024, "via fd99::2 e0"), EXIST, &["blackhole proto 12 metric 1024"]),
            (Delete(B, 1024, None), 0, &[]),
        ],
    ),
    (
        "an IPv6 route is replaced whole, whatever the number of its legs",
        &[
            (Add(B, 1024, "via fd99::2 e0"), 0, &["via fd99::2 e0 proto 12 metric 1024"]),
            (
                Replace(B, 1024, "via fd99::3 e0 + via fd98::3 e1"),
                0,
                &["via fd98::3 e1 + via fd99::3 e0 proto 12 metric 1024"],
            ),
            (
                Replace(B, 1024, "via fd99::4 e0 + via fd98::4 e1"),
                0,
                &["via fd98::4 e1 + via fd99::4 e0 proto 12 metric 1024"],
            ),
            (Replace(B, 1024, "via fd99::5 e0"), 0, &["via fd99::5 e0 proto 12 metric 1024"]),
            (Replace(B, 1024, "blackhole"), 0, &["blackhole proto 12 metric 1024"]),
            (Other(B, 80, 1024, "via fd98::9 e1"), 0, &["via fd98::9 e1 proto 80 metric 1024"]),
            (Delete(B, 1024, None), SRCH, &["via fd98::9 e1 proto 80 metric 1024"]),
        ],
    ),
    (
        "an IPv6 gateway that is appended becomes a leg of the route that is there",
        &[
            (Add(B, 1024, "via fd99::2 e0"), 0, &["via fd99::2 e0 proto 12 metric 1024"]),
            (
                Append(B, 12, 1024, "via fd99::3 e0"),
                0,
                &["via fd99::2 e0 + via fd99::3 e0 proto 12 metric 1024"],
            ),
            (
                Append(B, 80, 1024, "via fd98::3 e1"),
                0,
                &["via fd98::3 e1 + via fd99::2 e0 + via fd99::3 e0 proto 12 metric 1024"],
            ),
            (Replace(B, 1024, "via fd99::2 e0"), 0, &["via fd99::2 e0 proto 12 metric 1024"]),
        ],
    ),
    (
        "an IPv4 route that is appended stands behind the one that is there",
        &[
            (Add(A, 1024, "via 10.99.0.2 e0"), 0, &["via 10.99.0.2 e0 proto 12 metric 1024"]),
            (
                Append(A, 80, 1024, "via 10.98.0.2 e1"),
                0,
                &["via 10.98.0.2 e1 proto 80 metric 1024", "via 10.99.0.2 e0 proto 12 metric 1024"],
            ),
            (Delete(A, 1024, None), 0, &["via 10.98.0.2 e1 proto 80 metric 1024"]),
        ],
    ),
];

impl Act {
    fn prefix(&self) -> IpPrefix {
        match self {
            Add(prefix, ..)
            | Replace(prefix, ..)
            | Delete(prefix, ..)
            | Other(prefix, ..)
            | Append(prefix, ..) => prefix.parse().unwrap(),
        }
    }

    /// One of ours.
    fn operation(&self, links: &BTreeMap<String, u32>) -> Option<RouteOp> {
        let prefix = self.prefix();
        let route = |metric: u32, text| FibRoute { target: target(text, links), metric }.normalized();
        match self {
            Add(_, metric, text) => Some(RouteOp::Add(prefix, route(*metric, text))),
            Replace(_, metric, text) => Some(RouteOp::Replace(prefix, route(*metric, text))),
            Delete(_, metric, only) => {
                let only = only.map(|text| target(text, links));
                Some(RouteOp::Delete { prefix, metric: *metric, only })
            }
            Other(..) | Append(..) => None,
        }
    }
}

fn target(text: &str, links: &BTreeMap<String, u32>) -> Target {
    if text == "blackhole" {
        return Target::Blackhole;
    }
    let legs = text.split(" + ").map(|leg| {
        let words: Vec<&str> = leg.split(' ').collect();
        let via = Some(words[1].parse().unwrap());
        Leg { via, ifindex: links[words[2]], onlink: words.len() > 3, weight: 1 }
    });
    let mut target = Target::Unicast(legs.collect());
    target.normalize();
    target
}

/// The routes of a prefix, in the words of the cases.
fn there(mirror: &Mirror, prefix: IpPrefix) -> Vec<String> {
    let mut lines: Vec<String> = mirror
        .routes_at(prefix)
        .iter()
        .map(|seen| {
            let target = seen.target.as_ref().unwrap();
            let leg = |leg: &Leg| {
                let onlink = if leg.onlink { " onlink" } else { "" };
                format!("via {} {}{onlink}", leg.via.unwrap(), mirror.link(leg.ifindex).unwrap().name)
            };
            let mut legs: Vec<String> = target.legs().iter().map(leg).collect();
            legs.sort();
            let what = if legs.is_empty() { target.kind().to_owned() } else { legs.join(" + ") };
            format!("{what} proto {} metric {}", seen.protocol, seen.metric)
        })
        .collect();
    lines.sort();
    lines
}

/// Plays every case on a kernel with `e0` and `e1`; `other` acts as another program.
async fn play<K: Kernel>(kernel: &mut K, links: &BTreeMap<String, u32>, mut other: impl FnMut(&Act)) {
    for (name, steps) in CASES {
        let mut mirror = Mirror::new();
        mirror.load(kernel.dump().await.unwrap().0);
        for (n, (act, errno, expected)) in steps.iter().enumerate() {
            match act.operation(links) {
                Some(op) => {
                    let applied = kernel.apply(&[op]).await.unwrap();
                    let answer = applied.results[0].as_ref().map_or_else(|refusal| refusal.errno.0, |()| 0);
                    assert_eq!(answer, *errno, "{name}, step {n}");
                    applied.notices.into_iter().for_each(|notice| mirror.apply(notice));
                }
                None => {
                    other(act);
                    kernel.waiting().unwrap().into_iter().for_each(|notice| mirror.apply(notice));
                }
            }
            let mut fresh = Mirror::new();
            fresh.load(kernel.dump().await.unwrap().0);
            assert_eq!(there(&fresh, act.prefix()), *expected, "{name}, step {n}");
            assert_eq!(there(&mirror, act.prefix()), *expected, "{name}, step {n}: by notifications alone");
        }
        // The next case begins with nothing, and says so itself: every route goes by its own key.
        let mut fresh = Mirror::new();
        fresh.load(kernel.dump().await.unwrap().0);
        for prefix in [A, B] {
            if !fresh.routes_at(prefix.parse().unwrap()).is_empty() {
                other(&Delete(prefix, 0, None));
            }
        }
        kernel.waiting().unwrap();
    }
}

#[tokio::test]
async fn the_kernel_in_memory_passes_every_case() {
    let mut kernel = FakeKernel::new();
    let mut links = BTreeMap::new();
    for (n, dev) in [(99, "e0"), (98, "e1")] {
        let index = kernel.add_link(dev);
        kernel.add_address(index, &format!("10.{n}.0.1/24"));
        kernel.add_address(index, &format!("fd{n}::1/64"));
        links.insert(dev.to_owned(), index);
    }
    let mut kernel = SharedKernel::new(kernel);
    let shared = kernel.clone();
    let names = links.clone();
    play(&mut kernel, &links, |act| {
        let prefix = act.prefix();
        shared.with(|kernel| match act {
            Other(_, protocol, metric, text) => {
                kernel.add_route(prefix, *protocol, *metric, target(text, &names));
            }
            Append(_, protocol, metric, text) => {
                kernel.append_route(prefix, *protocol, *metric, target(text, &names));
            }
            _ => {
                kernel.remove_route(prefix, 12);
                kernel.remove_route(prefix, 80);
            }
        });
    })
    .await;
}

#[test]
fn the_real_kernel_passes_every_case() {
    in_namespace("the_real_kernel_passes_every_case", || async {
        let mut links = BTreeMap::new();
        for dev in ["e0", "e1"] {
            let all: serde_json::Value =
                serde_json::from_str(&ip(&format!("-j link show dev {dev}"))).unwrap();
            links.insert(dev.to_owned(), u32::try_from(all[0]["ifindex"].as_u64().unwrap()).unwrap());
        }
        let mut kernel = LinuxKernel::new();
        play(&mut kernel, &links, |act| {
            let prefix = act.prefix();
            let family = if prefix.afi() == bgp_proto::Afi::Ipv4 { "-4" } else { "-6" };
            let write = |verb: &str, protocol: &u8, metric: &u32, text: &str| {
                let (kind, hop) = match text.split_once(" e") {
                    Some((via, dev)) => ("", format!("{via} dev e{dev}")),
                    None => (text, String::new()),
                };
                ip(&format!("{family} route {verb} {kind} {prefix} {hop} proto {protocol} metric {metric}"));
            };
            match act {
                Other(_, protocol, metric, text) => write("replace", protocol, metric, text),
                Append(_, protocol, metric, text) => write("append", protocol, metric, text),
                _ => drop(ip(&format!("{family} route flush {prefix}"))),
            }
        })
        .await;
    });
}
