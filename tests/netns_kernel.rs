//! The reconciler and its netlink shell against the real kernel, each test in a network namespace of its own.
//!
//! Needs root and iproute2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod namespace;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bgp_proto::IpPrefix;
use calico_bgpd::fib::linux::{LinuxKernel, NetlinkSettings};
use calico_bgpd::fib::mirror::{Mirror, Notice};
use calico_bgpd::fib::plan::{Written, all_prefixes, plan};
use calico_bgpd::fib::reconciler::{FibInput, FibStatus, run};
use calico_bgpd::fib::view::RouteProblem;
use calico_bgpd::fib::{
    AlienRoute, Errno, FibChange, FibRoute, Kernel, KernelEvent, Leg, Ownership, PROTOCOL, Phase, RouteOp,
    Target, Wish,
};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use namespace::{in_namespace, ip};

const DEADLINE: Duration = Duration::from_secs(20);

fn ip_batch(lines: &[String]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    ip(&format!("-batch {}", file.path().display()));
}

/// A route in one line, as far as a daemon decides about it: `10.1.0.0/24 via 10.99.0.2 e0 metric 1024`.
fn routes(family: &str, protocol: &str) -> Vec<String> {
    let json = ip(&format!("-{family} -j -d route show table main proto {protocol}"));
    let all: Vec<Value> =
        if json.trim().is_empty() { Vec::new() } else { serde_json::from_str(&json).unwrap() };
    let mut lines: Vec<String> = all.iter().map(line).collect();
    lines.sort();
    lines
}

fn line(route: &Value) -> String {
    let mut text = route["dst"].as_str().unwrap().to_owned();
    let kind = route["type"].as_str().unwrap();
    if kind != "unicast" {
        text = format!("{kind} {text}");
    }
    if let Some(hops) = route["nexthops"].as_array() {
        let mut hops: Vec<String> = hops.iter().map(hop).collect();
        hops.sort();
        text += &hops.concat();
    } else if kind == "unicast" {
        text += &hop(route);
    }
    match route["metric"].as_u64() {
        Some(metric) => format!("{text} metric {metric}"),
        None => text,
    }
}

fn hop(hop: &Value) -> String {
    let mut text = String::new();
    if let Some(via) = hop["gateway"].as_str() {
        text += &format!(" via {via}");
    } else if let Some(via) = hop["via"]["host"].as_str() {
        text += &format!(" via {via}");
    }
    text += &format!(" {}", hop["dev"].as_str().unwrap());
    let flags = hop["flags"].as_array();
    if flags.is_some_and(|flags| flags.iter().any(|flag| flag == "onlink")) {
        text += " onlink";
    }
    text
}

fn ours() -> Vec<String> {
    [routes("4", "12"), routes("6", "12")].concat()
}

/// What `ip monitor route` prints meanwhile.
struct Monitor {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Monitor {
    fn start() -> Monitor {
        let mut child =
            Command::new("ip").args(["-o", "monitor", "route"]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn({
            let lines = lines.clone();
            move || {
                for line in stdout.lines() {
                    lines.lock().unwrap().push(line.unwrap());
                }
            }
        });
        let monitor = Monitor { child, lines };
        monitor.barrier();
        monitor
    }

    /// Everything up to now has been printed once this has.
    fn barrier(&self) {
        let begun = Instant::now();
        for n in 0.. {
            let mark = format!("192.0.2.{}", n % 250 + 1);
            ip(&format!("route add blackhole {mark}"));
            ip(&format!("route del blackhole {mark}"));
            std::thread::sleep(Duration::from_millis(20));
            let deleted = |line: &String| line.contains("Deleted") && line.contains(&mark);
            if self.lines.lock().unwrap().iter().any(deleted) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "ip monitor says nothing");
        }
    }

    /// What it printed of routes with our protocol.
    fn ours(&self) -> Vec<String> {
        self.barrier();
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line.contains("proto bird")).cloned().collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The daemon's part

struct Reconciler {
    input: mpsc::Sender<FibInput>,
    status: watch::Receiver<FibStatus>,
    events: Arc<Mutex<Vec<KernelEvent>>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Reconciler {
    fn start() -> Reconciler {
        Self::with(LinuxKernel::new())
    }

    fn with(kernel: LinuxKernel) -> Reconciler {
        let (input, inbox) = mpsc::channel(16);
        let (told, mut telling) = mpsc::channel(4);
        let (_, asked) = mpsc::channel(1);
        let (sender, status) = watch::channel(FibStatus::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(kernel, inbox, asked, told, sender, stop.clone()));
        let events = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn({
            let events = events.clone();
            async move {
                while let Some(event) = telling.recv().await {
                    events.lock().unwrap().push(event);
                }
            }
        });
        Reconciler { input, status, events, stop, task }
    }

    async fn want(&self, routes: impl IntoIterator<Item = (&str, FibRoute)>) {
        let changes = routes.into_iter().map(|(p, r)| FibChange { prefix: prefix(p), wish: Wish::Route(r) });
        self.input.send(FibInput::Changes(changes.collect())).await.unwrap();
    }

    async fn do_not_want(&self, prefixes: &[&str]) {
        let changes = prefixes.iter().map(|p| FibChange { prefix: prefix(p), wish: Wish::Nothing });
        self.input.send(FibInput::Changes(changes.collect())).await.unwrap();
    }

    async fn in_sync(&self) {
        self.input.send(FibInput::Phase(Phase::Normal)).await.unwrap();
    }

    async fn status(&mut self, what: &str, holds: impl Fn(&FibStatus) -> bool) -> FibStatus {
        let waited = tokio::time::timeout(DEADLINE, self.status.wait_for(|status| holds(status))).await;
        let seen = waited.ok().map(|status| status.unwrap().clone());
        seen.unwrap_or_else(|| panic!("never came: {what}; {:#?}", self.status.borrow()))
    }

    async fn event(&self, what: &str, holds: impl Fn(&KernelEvent) -> bool) {
        until(
            what,
            || self.events.lock().unwrap().iter().any(&holds),
            || self.events.lock().unwrap().clone(),
        )
        .await;
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn until<T: Debug>(what: &str, holds: impl Fn() -> bool, show: impl Fn() -> T) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "never came: {what}; {:#?}", show());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_ours(expected: &[&str]) {
    until("our routes in the kernel", || ours() == expected, || (ours(), expected.to_vec())).await;
}

fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

fn index(dev: &str) -> u32 {
    std::fs::read_to_string(format!("/sys/class/net/{dev}/ifindex"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_else(|| {
            // Inside `ip netns exec` /sys is remounted; without that, ask ip.
            let all: Vec<Value> = serde_json::from_str(&ip(&format!("-j link show dev {dev}"))).unwrap();
            u32::try_from(all[0]["ifindex"].as_u64().unwrap()).unwrap()
        })
}

fn leg(via: &str, dev: &str) -> Leg {
    Leg { via: Some(via.parse::<IpAddr>().unwrap()), ifindex: index(dev), onlink: false, weight: 1 }
}

fn via(hops: &[(&str, &str)], metric: u32) -> FibRoute {
    let legs = hops.iter().map(|(via, dev)| leg(via, dev)).collect();
    FibRoute { target: Target::Unicast(legs), metric }.normalized()
}

fn onlink(gateway: &str, dev: &str, metric: u32) -> FibRoute {
    let leg = Leg { onlink: true, ..leg(gateway, dev) };
    FibRoute { target: Target::Unicast([leg].into_iter().collect()), metric }
}

fn drop_all(target: Target, metric: u32) -> FibRoute {
    FibRoute { target, metric }
}

// ---------------------------------------------------------------------------------------------------------------------
// The tests

#[test]
fn wanted_routes_of_every_kind_appear_change_in_place_and_go() {
    in_namespace("wanted_routes_of_every_kind_appear_change_in_place_and_go", || async {
        let mut reconciler = Reconciler::start();
        reconciler
            .want([
                ("10.244.0.0/26", drop_all(Target::Blackhole, 0)),
                ("10.244.1.0/26", via(&[("10.99.0.2", "e0")], 1024)),
                ("10.244.2.0/26", via(&[("10.99.0.2", "e0"), ("10.98.0.2", "e1")], 1024)),
                ("10.244.3.0/26", drop_all(Target::Unreachable, 1024)),
                ("10.244.4.0/26", drop_all(Target::Prohibit, 2147483547)),
                ("10.244.5.0/26", onlink("192.168.7.7", "e1", 1024)),
                ("10.244.6.0/26", via(&[("fd99::6", "e0")], 512)),
                ("fd00:10:244::/122", drop_all(Target::Blackhole, 0)),
                ("fd00:10:244:1::/122", via(&[("fd99::2", "e0")], 1024)),
                ("fd00:10:244:2::/122", via(&[("fd99::2", "e0"), ("fd98::2", "e1")], 1024)),
                ("fd00:10:244:3::/122", drop_all(Target::Unreachable, 1024)),
                ("fd00:10:244:5::/122", onlink("fd77::7", "e1", 512)),
            ])
            .await;
        reconciler.in_sync().await;
        until_ours(&[
            "10.244.1.0/26 via 10.99.0.2 e0 metric 1024",
            "10.244.2.0/26 via 10.98.0.2 e1 via 10.99.0.2 e0 metric 1024",
            "10.244.5.0/26 via 192.168.7.7 e1 onlink metric 1024",
            "10.244.6.0/26 via fd99::6 e0 metric 512",
            "blackhole 10.244.0.0/26",
            "prohibit 10.244.4.0/26 metric 2147483547",
            "unreachable 10.244.3.0/26 metric 1024",
            "blackhole fd00:10:244::/122 metric 1024",
            "fd00:10:244:1::/122 via fd99::2 e0 metric 1024",
            "fd00:10:244:2::/122 via fd98::2 e1 via fd99::2 e0 metric 1024",
            "fd00:10:244:5::/122 via fd77::7 e1 onlink metric 512",
            "unreachable fd00:10:244:3::/122 metric 1024",
        ])
        .await;
        let status = reconciler.status("all installed", |s| s.installed == 12).await;
        assert_eq!((status.failed, status.conflicts, status.repaired), (0, 0, 0), "{status:?}");

        // Every transition between kinds happens at one key in one operation: nothing is ever deleted.
        let monitor = Monitor::start();
        reconciler
            .want([
                ("10.244.0.0/26", via(&[("10.99.0.9", "e0")], 0)),
                ("10.244.1.0/26", via(&[("10.99.0.3", "e0"), ("10.98.0.3", "e1")], 1024)),
                ("10.244.2.0/26", via(&[("10.99.0.3", "e0")], 1024)),
                ("10.244.3.0/26", via(&[("10.99.0.3", "e0")], 1024)),
                ("10.244.5.0/26", drop_all(Target::Unreachable, 1024)),
                ("fd00:10:244::/122", via(&[("fd99::9", "e0"), ("fd99::8", "e0")], 0)),
                (
                    "fd00:10:244:1::/122",
                    via(&[("fd99::3", "e0"), ("fd98::3", "e1"), ("fd98::4", "e1")], 1024),
                ),
                ("fd00:10:244:2::/122", via(&[("fd99::3", "e0"), ("fd98::2", "e1")], 1024)),
                ("fd00:10:244:3::/122", via(&[("fd99::3", "e0")], 1024)),
                ("fd00:10:244:5::/122", drop_all(Target::Unreachable, 512)),
            ])
            .await;
        until_ours(&[
            "10.244.0.0/26 via 10.99.0.9 e0",
            "10.244.1.0/26 via 10.98.0.3 e1 via 10.99.0.3 e0 metric 1024",
            "10.244.2.0/26 via 10.99.0.3 e0 metric 1024",
            "10.244.3.0/26 via 10.99.0.3 e0 metric 1024",
            "10.244.6.0/26 via fd99::6 e0 metric 512",
            "prohibit 10.244.4.0/26 metric 2147483547",
            "unreachable 10.244.5.0/26 metric 1024",
            "fd00:10:244:1::/122 via fd98::3 e1 via fd98::4 e1 via fd99::3 e0 metric 1024",
            "fd00:10:244:2::/122 via fd98::2 e1 via fd99::3 e0 metric 1024",
            "fd00:10:244:3::/122 via fd99::3 e0 metric 1024",
            "fd00:10:244::/122 via fd99::8 e0 via fd99::9 e0 metric 1024",
            "unreachable fd00:10:244:5::/122 metric 512",
        ])
        .await;
        let said = monitor.ours();
        assert_eq!(said.len(), 10, "{said:#?}");
        assert!(!said.iter().any(|line| line.contains("Deleted")), "{said:#?}");

        let status = reconciler.status("all installed again", |s| s.installed == 12).await;
        assert_eq!((status.failed, status.repaired), (0, 0), "{status:?}");
        let all: Vec<String> = (0..7).map(|n| format!("10.244.{n}.0/26")).collect();
        let all6: Vec<String> = ["", ":1", ":2", ":3", ":5"].map(|n| format!("fd00:10:244{n}::/122")).into();
        let all: Vec<&str> = all.iter().chain(&all6).map(String::as_str).collect();
        reconciler.do_not_want(&all).await;
        until_ours(&[]).await;
        let status = reconciler.status("nothing wanted", |s| s.desired == 0).await;
        assert_eq!((status.installed, status.failed), (0, 0));
    });
}

#[test]
fn a_changed_metric_is_added_before_the_old_route_goes() {
    in_namespace("a_changed_metric_is_added_before_the_old_route_goes", || async {
        let mut reconciler = Reconciler::start();
        reconciler.in_sync().await;
        let block = ["10.244.1.0/26", "fd00:10:244:1::/122"];
        reconciler
            .want([(block[0], drop_all(Target::Blackhole, 0)), (block[1], drop_all(Target::Blackhole, 0))])
            .await;
        reconciler.status("installed", |s| s.installed == 2).await;
        let monitor = Monitor::start();
        reconciler
            .want([(block[0], via(&[("10.99.0.2", "e0")], 512)), (block[1], via(&[("fd99::2", "e0")], 512))])
            .await;
        until_ours(&[
            "10.244.1.0/26 via 10.99.0.2 e0 metric 512",
            "fd00:10:244:1::/122 via fd99::2 e0 metric 512",
        ])
        .await;
        let said = monitor.ours();
        assert_eq!(said.len(), 4, "{said:#?}");
        assert!(said[2..].iter().all(|line| line.contains("Deleted blackhole")), "{said:#?}");
    });
}

#[test]
fn a_route_that_somebody_deletes_or_changes_is_repaired() {
    in_namespace("a_route_that_somebody_deletes_or_changes_is_repaired", || async {
        let mut reconciler = Reconciler::start();
        reconciler.in_sync().await;
        reconciler
            .want([
                ("10.244.1.0/26", via(&[("10.99.0.2", "e0")], 1024)),
                ("fd00:10:244:2::/122", via(&[("fd99::2", "e0"), ("fd98::2", "e1")], 1024)),
            ])
            .await;
        let right = [
            "10.244.1.0/26 via 10.99.0.2 e0 metric 1024",
            "fd00:10:244:2::/122 via fd98::2 e1 via fd99::2 e0 metric 1024",
        ];
        until_ours(&right).await;
        reconciler.status("installed", |s| s.installed == 2).await;
        ip("route flush proto 12");
        ip("-6 route flush proto 12");
        reconciler.status("repaired", |s| s.repaired == 2 && s.installed == 2).await;
        assert_eq!(ours(), right);
        // Another gateway, a source address; one leg less; one leg more.
        ip("route change 10.244.1.0/26 proto 12 metric 1024 via 10.99.0.66 src 10.99.0.1");
        ip("-6 route del fd00:10:244:2::/122 proto 12 metric 1024 via fd99::2");
        reconciler.status("repaired", |s| s.repaired == 4 && s.installed == 2).await;
        assert_eq!(ours(), right);
        ip("-6 route append fd00:10:244:2::/122 proto 12 metric 1024 via fd99::3");
        reconciler.status("repaired", |s| s.repaired == 5 && s.installed == 2).await;
        assert_eq!(ours(), right);
        // A route with our mark that we never wrote.
        ip("route add blackhole 10.9.9.0/24 proto 12");
        until_ours(&right).await;
    });
}

#[test]
fn a_route_that_somebody_keeps_deleting_is_back_within_a_second() {
    in_namespace("a_route_that_somebody_keeps_deleting_is_back_within_a_second", || async {
        let mut reconciler = Reconciler::start();
        reconciler.in_sync().await;
        let block = "10.244.1.0/26";
        reconciler.want([(block, drop_all(Target::Blackhole, 0))]).await;
        reconciler.status("installed", |s| s.installed == 1).await;
        for n in 1..=3 {
            ip("route del blackhole 10.244.1.0/26 proto 12");
            reconciler.status("repaired at once", |s| s.repaired == n && s.installed == 1).await;
        }
        ip("route del blackhole 10.244.1.0/26 proto 12");
        let removed = RouteProblem::Removed { repairs: 3 };
        reconciler.status("waits", |s| s.problems.get(&prefix(block)) == Some(&removed)).await;
        let status = reconciler.status("back", |s| s.repaired == 4 && s.installed == 1).await;
        assert_eq!(status.repeated[&prefix(block)], 4);
        // All of it, by the command that people use.
        reconciler.want([("fd00:10:244::/122", drop_all(Target::Blackhole, 0))]).await;
        reconciler.status("installed", |s| s.installed == 2).await;
        let all = ours();
        for _ in 0..3 {
            let repaired = reconciler.status("installed", |s| s.installed == 2).await.repaired;
            ip("route flush proto 12");
            ip("-6 route flush proto 12");
            reconciler.status("back", |s| s.repaired == repaired + 2 && s.installed == 2).await;
            assert_eq!(ours(), all);
        }
    });
}

#[test]
fn tunnel_routes_that_a_felix_deletes_are_left_to_it_and_a_flush_is_not_taken_for_one() {
    in_namespace(
        "tunnel_routes_that_a_felix_deletes_are_left_to_it_and_a_flush_is_not_taken_for_one",
        || async {
            ip("link add tunl0 type veth peer name tunl0p");
            ip("link set tunl0 up");
            let mut reconciler = Reconciler::start();
            let ownership = Ownership { ipip: true, unencapsulated: true, rival: true };
            reconciler.input.send(FibInput::Ownership(ownership)).await.unwrap();
            reconciler.in_sync().await;
            let block = "10.244.2.0/26";
            reconciler
                .want([
                    ("10.244.0.0/26", drop_all(Target::Blackhole, 0)),
                    (block, onlink("10.99.0.3", "tunl0", 1024)),
                ])
                .await;
            reconciler.status("installed", |s| s.installed == 2).await;
            let all = ours();
            for _ in 0..3 {
                let repaired = reconciler.status("installed", |s| s.installed == 2).await.repaired;
                ip("route flush proto 12");
                reconciler.status("back", |s| s.repaired == repaired + 2 && s.installed == 2).await;
                assert_eq!(ours(), all);
            }
            // The last flush is over for more than a second: what is deleted now is deleted by another hand.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            let repaired = reconciler.status("installed", |s| s.installed == 2).await.repaired;
            ip(&format!("route del {block} proto 12"));
            reconciler.status("back", |s| s.repaired == repaired + 1 && s.installed == 2).await;
            ip(&format!("route del {block} proto 12"));
            let yielded = Some(&RouteProblem::Yielded);
            reconciler.status("yielded", |s| s.problems.get(&prefix(block)) == yielded).await;
            assert_eq!(ours(), ["blackhole 10.244.0.0/26"]);
            reconciler
                .input
                .send(FibInput::Ownership(Ownership { rival: false, ..ownership }))
                .await
                .unwrap();
            reconciler.status("written again", |s| s.installed == 2 && s.problems.is_empty()).await;
            assert_eq!(ours(), all);
        },
    );
}

#[test]
fn a_foreign_route_with_our_key_is_yielded_to_until_it_goes() {
    in_namespace("a_foreign_route_with_our_key_is_yielded_to_until_it_goes", || async {
        // One is there before us; one takes the key of a route that stands; IPv6 without metric is 1024.
        ip("route add 10.244.1.0/26 dev e1 proto 80 metric 1024");
        ip("-6 route add fd00:10:244:1::/122 dev e1 proto 80 metric 1024");
        let mut reconciler = Reconciler::start();
        reconciler.in_sync().await;
        reconciler
            .want([
                ("10.244.1.0/26", via(&[("10.99.0.2", "e0")], 1024)),
                ("10.244.2.0/26", via(&[("10.99.0.2", "e0")], 1024)),
                ("fd00:10:244:1::/122", drop_all(Target::Blackhole, 0)),
            ])
            .await;
        let status = reconciler.status("conflicts", |s| s.conflicts == 2 && s.installed == 1).await;
        let conflict = RouteProblem::Conflict { metric: 1024, owner: 80 };
        assert_eq!(status.problems.get(&prefix("10.244.1.0/26")), Some(&conflict));
        assert_eq!(status.failed, 0);
        ip("route replace 10.244.2.0/26 dev e1 proto 80 metric 1024");
        reconciler.status("one more conflict", |s| s.conflicts == 3).await;
        assert_eq!(ours(), [""; 0]);
        assert_eq!(routes("4", "80").len(), 2);
        let is_alien = |event: &KernelEvent| match event {
            KernelEvent::Alien(p, Some(AlienRoute { protocol: 80, metric: 1024, .. })) => {
                *p == prefix("10.244.2.0/26")
            }
            _ => false,
        };
        reconciler.event("the foreign route is told", is_alien).await;
        for command in [
            "route del 10.244.1.0/26 dev e1",
            "route del 10.244.2.0/26 dev e1",
            "-6 route del fd00:10:244:1::/122 dev e1",
        ] {
            ip(command);
        }
        reconciler.status("all ours", |s| s.installed == 3 && s.conflicts == 0).await;
        until_ours(&[
            "10.244.1.0/26 via 10.99.0.2 e0 metric 1024",
            "10.244.2.0/26 via 10.99.0.2 e0 metric 1024",
            "blackhole fd00:10:244:1::/122 metric 1024",
        ])
        .await;
    });
}

#[test]
fn a_foreign_route_that_slips_in_before_a_replace_is_put_back_as_it_was() {
    in_namespace("a_foreign_route_that_slips_in_before_a_replace_is_put_back_as_it_was", || async {
        for (block, gateway, foreign) in [
            ("10.244.1.0/26", "10.99.0.", "dev e1 proto 80 metric 1024 src 10.98.0.1 mtu 1400"),
            ("fd00:10:244:1::/122", "fd99::", "dev e1 proto 80 metric 1024 src fd98::1 mtu 1400"),
        ] {
            let family = if block.contains(':') { "-6" } else { "-4" };
            let mut kernel = LinuxKernel::new();
            let mut mirror = Mirror::new();
            mirror.load(kernel.dump().await.unwrap().0);
            let block = prefix(block);
            let first = via(&[(&format!("{gateway}2"), "e0")], 1024);
            let mut desired = BTreeMap::from([(block, first)]);
            let step = plan([block], &desired, &mirror, Phase::Normal, &Written::default()).plan.operations();
            let applied = kernel.apply(&step).await.unwrap();
            assert_eq!(applied.results, [Ok(())]);
            applied.notices.into_iter().for_each(|notice| mirror.apply(notice));
            desired.insert(block, via(&[(&format!("{gateway}3"), "e0")], 1024));
            let step = plan([block], &desired, &mirror, Phase::Normal, &Written::default()).plan.operations();
            assert!(matches!(step[..], [RouteOp::Replace(..)]));
            // Felix, whose agent replaces by prefix and metric whoever the owner is.
            ip(&format!("{family} route replace {block} {foreign}"));
            let before = ip(&format!("{family} -d route show {block}"));
            let applied = kernel.apply(&step).await.unwrap();
            assert_eq!(ip(&format!("{family} -d route show {block}")), before);
            applied.notices.into_iter().for_each(|notice| mirror.apply(notice));
            let planned = plan([block], &desired, &mirror, Phase::Normal, &Written::default());
            assert!(planned.plan.is_empty(), "{planned:?}");
            assert_eq!(planned.conflicts.len(), 1);
        }
    });
}

#[test]
fn a_foreign_leg_that_joins_our_ipv6_route_does_not_make_it_foreign() {
    in_namespace("a_foreign_leg_that_joins_our_ipv6_route_does_not_make_it_foreign", || async {
        for verb in ["append", "prepend"] {
            let mut kernel = LinuxKernel::new();
            let mut mirror = Mirror::new();
            mirror.load(kernel.dump().await.unwrap().0);
            let block = prefix("fd00:10:244:1::/122");
            let mut desired = BTreeMap::from([(block, via(&[("fd99::2", "e0")], 1024))]);
            let step = plan([block], &desired, &mirror, Phase::Normal, &Written::default()).plan.operations();
            kernel.apply(&step).await.unwrap().notices.into_iter().for_each(|notice| mirror.apply(notice));
            desired.insert(block, via(&[("fd99::3", "e0")], 1024));
            let step = plan([block], &desired, &mirror, Phase::Normal, &Written::default()).plan.operations();
            ip(&format!("-6 route {verb} {block} via fd98::9 proto 80 metric 1024"));
            kernel.apply(&step).await.unwrap();
            assert_eq!(ours(), ["fd00:10:244:1::/122 via fd99::3 e0 metric 1024"], "{verb}");
            ip(&format!("-6 route del {block}"));
        }
    });
}

#[test]
fn routes_follow_their_link_down_and_up() {
    in_namespace("routes_follow_their_link_down_and_up", || async {
        let mut reconciler = Reconciler::start();
        reconciler.in_sync().await;
        reconciler
            .want([
                ("10.244.1.0/26", via(&[("10.99.0.2", "e0")], 1024)),
                ("10.244.2.0/26", via(&[("10.99.0.2", "e0"), ("10.98.0.2", "e1")], 1024)),
                ("fd00:10:244:1::/122", via(&[("fd99::2", "e0")], 1024)),
            ])
            .await;
        reconciler.status("installed", |s| s.installed == 3).await;
        let all = ours();
        ip("link set e0 down");
        let e0 = index("e0");
        let is_gone =
            |event: &KernelEvent| matches!(event, KernelEvent::AddressGone(gone) if gone.ifindex == e0);
        reconciler.event("no usable addresses", is_gone).await;
        // The core has not spoken yet; what is wanted cannot be had.
        let status = reconciler.status("refused", |s| s.failed == 2).await;
        let problem = status.problems.get(&prefix("10.244.1.0/26"));
        let unreachable = |p: &RouteProblem| matches!(p, RouteProblem::Refused(r) if r.errno == Errno::ENETUNREACH || r.errno == Errno::ENETDOWN);
        assert!(problem.is_some_and(unreachable), "{problem:?}");
        // When the core speaks, an unreachable route is there at once.
        reconciler.want([("10.244.1.0/26", drop_all(Target::Unreachable, 1024))]).await;
        reconciler.status("unreachable", |s| s.failed == 1).await;
        assert!(ours().contains(&"unreachable 10.244.1.0/26 metric 1024".to_owned()), "{:?}", ours());
        reconciler.want([("10.244.1.0/26", via(&[("10.99.0.2", "e0")], 1024))]).await;
        reconciler.status("refused again", |s| s.failed == 2).await;
        ip("link set e0 up");
        ip("-6 addr add fd99::1/64 dev e0 nodad");
        reconciler.status("installed again", |s| s.installed == 3).await;
        assert_eq!(ours(), all);
    });
}

#[test]
fn a_route_waits_for_its_gateways_address_and_others_do_not_wait_for_it() {
    in_namespace("a_route_waits_for_its_gateways_address_and_others_do_not_wait_for_it", || async {
        let mut reconciler = Reconciler::start();
        reconciler.in_sync().await;
        reconciler
            .want([
                ("10.244.1.0/26", via(&[("10.97.0.2", "e0")], 1024)),
                ("10.244.2.0/26", via(&[("10.99.0.2", "e0")], 1024)),
                ("fd00:10:244:1::/122", via(&[("fd97::2", "e0")], 1024)),
            ])
            .await;
        let status = reconciler.status("one installed", |s| s.installed == 1 && s.failed == 2).await;
        let told = status.problems.get(&prefix("10.244.1.0/26")).unwrap().to_string();
        assert!(told.contains("Nexthop has invalid gateway"), "{told}");
        ip("addr add 10.97.0.1/24 dev e0");
        ip("-6 addr add fd97::1/64 dev e0 nodad");
        reconciler.status("all installed", |s| s.installed == 3 && s.failed == 0).await;
    });
}

#[test]
fn leftovers_go_only_once_in_sync_and_what_is_right_is_not_written() {
    in_namespace("leftovers_go_only_once_in_sync_and_what_is_right_is_not_written", || async {
        let left = [
            "10.244.1.0/26 via 10.99.0.2 e0 metric 1024",
            "10.244.9.0/26 via 10.99.0.9 e0 metric 1024",
            "fd00:10:244:1::/122 via fd98::2 e1 via fd99::2 e0 metric 1024",
            "fd00:10:244:9::/122 via fd99::9 e0 metric 1024",
        ];
        ip("route add 10.244.1.0/26 proto 12 metric 1024 via 10.99.0.2");
        ip("route add 10.244.9.0/26 proto 12 metric 1024 via 10.99.0.9");
        // As BIRD writes it: the second leg by append.
        ip("-6 route add fd00:10:244:1::/122 proto 12 metric 1024 via fd99::2");
        ip("-6 route append fd00:10:244:1::/122 proto 12 metric 1024 via fd98::2");
        ip("-6 route add fd00:10:244:9::/122 proto 12 metric 1024 via fd99::9");
        ip("route add 10.7.0.0/16 proto 80 dev e1");
        assert_eq!(ours(), left);
        let monitor = Monitor::start();
        let mut reconciler = Reconciler::start();
        reconciler
            .want([
                ("10.244.1.0/26", via(&[("10.99.0.2", "e0")], 1024)),
                ("fd00:10:244:1::/122", via(&[("fd99::2", "e0"), ("fd98::2", "e1")], 1024)),
                ("10.244.3.0/26", drop_all(Target::Blackhole, 0)),
            ])
            .await;
        reconciler.status("installed", |s| s.installed == 3).await;
        let mut with_new: Vec<&str> = left.to_vec();
        with_new.insert(2, "blackhole 10.244.3.0/26");
        assert_eq!(ours(), with_new);
        // What came in this run and is taken back goes at once; what was found stays, wanted or not.
        reconciler.want([("10.244.4.0/26", via(&[("10.99.0.2", "e0")], 1024))]).await;
        reconciler.status("installed", |s| s.installed == 4).await;
        reconciler.do_not_want(&["10.244.4.0/26", "10.244.1.0/26"]).await;
        until_ours(&with_new).await;
        reconciler.want([("10.244.1.0/26", via(&[("10.99.0.2", "e0")], 1024))]).await;
        reconciler.in_sync().await;
        until_ours(&[left[0], "blackhole 10.244.3.0/26", left[2]]).await;
        let said = monitor.ours();
        let of_adopted = |line: &&String| line.contains("244.1.0/26") || line.contains("244:1::");
        assert_eq!(said.iter().filter(of_adopted).count(), 0, "{said:#?}");
        assert_eq!(routes("4", "80"), ["10.7.0.0/16 e1"]);
    });
}

#[test]
fn routes_stay_when_the_daemon_ends() {
    in_namespace("routes_stay_when_the_daemon_ends", || async {
        let mut reconciler = Reconciler::start();
        reconciler.in_sync().await;
        reconciler.want([("10.244.1.0/26", via(&[("10.99.0.2", "e0")], 1024))]).await;
        reconciler.status("installed", |s| s.installed == 1).await;
        reconciler.stop().await;
        assert_eq!(ours(), ["10.244.1.0/26 via 10.99.0.2 e0 metric 1024"]);
    });
}

#[test]
fn five_thousand_routes_are_written_in_batches_and_one_bad_one_stops_none() {
    in_namespace("five_thousand_routes_are_written_in_batches_and_one_bad_one_stops_none", || async {
        const COUNT: usize = 5000;
        let mut reconciler = Reconciler::start();
        reconciler.in_sync().await;
        let good = via(&[("10.99.0.2", "e0")], 1024);
        let bad = via(&[("10.55.0.2", "e0")], 1024);
        let texts: Vec<String> =
            (0..COUNT).map(|n| format!("10.{}.{}.0/24", 100 + n / 256, n % 256)).collect();
        let begun = Instant::now();
        reconciler
            .want(
                texts
                    .iter()
                    .enumerate()
                    .map(|(n, t)| (t.as_str(), if n == 700 { &bad } else { &good }.clone())),
            )
            .await;
        let status = reconciler.status("installed", |s| s.installed == COUNT - 1).await;
        println!("{COUNT} routes written and heard of in {:?}", begun.elapsed());
        assert_eq!((status.failed, status.overruns, status.repaired), (1, 0, 0));
        assert_eq!(ours().len(), COUNT - 1);
        let begun = Instant::now();
        reconciler.do_not_want(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        reconciler.status("nothing wanted", |s| s.desired == 0).await;
        until_ours(&[]).await;
        println!("and gone in {:?}", begun.elapsed());
    });
}

#[test]
fn lost_notifications_are_made_up_for_by_a_dump() {
    in_namespace("lost_notifications_are_made_up_for_by_a_dump", || async {
        const COUNT: usize = 2000;
        let mut reconciler = Reconciler::with(LinuxKernel::with_settings(NetlinkSettings { backlog: 8192 }));
        reconciler.in_sync().await;
        reconciler.want([("10.244.1.0/26", via(&[("10.99.0.2", "e0")], 1024))]).await;
        reconciler.status("installed", |s| s.installed == 1).await;
        // The runtime has one thread, and this blocks it: nobody reads meanwhile.
        let mut lines: Vec<String> = (0..COUNT)
            .map(|n| format!("route add blackhole 10.{}.{}.0/24 proto 80", 100 + n / 256, n % 256))
            .collect();
        lines.push("route del 10.244.1.0/26 proto 12".to_owned());
        ip_batch(&lines);
        reconciler.status("overrun seen", |s| s.overruns > 0).await;
        reconciler.status("repaired", |s| s.repaired == 1 && s.installed == 1).await;
        let told = || {
            let events = reconciler.events.lock().unwrap();
            events.iter().filter(|e| matches!(e, KernelEvent::Alien(_, Some(_)))).count()
        };
        until("all aliens told, each once", || told() == COUNT, told).await;
    });
}

#[test]
fn the_kernels_state_is_told_in_full_before_synced_and_then_as_it_changes() {
    in_namespace("the_kernels_state_is_told_in_full_before_synced_and_then_as_it_changes", || async {
        ip("route add default via 10.99.0.254 proto 4");
        ip("route add default via 10.98.0.254 proto 16 metric 100");
        ip("-6 route add default via fd99::fe proto 9 metric 512");
        ip("route add 10.7.0.0/16 via 192.168.9.9 dev e1 onlink proto 80");
        ip("route add 10.8.0.0/16 proto 4 nexthop via 10.99.0.7 nexthop via 10.98.0.7");
        ip("route add throw 10.9.0.0/16");
        ip("route add 10.10.0.0/16 dev e0 tos 4");
        ip("route add 10.11.0.0/16 dev e0 table 100");
        ip("addr add 10.99.0.11/24 dev e0");
        let reconciler = Reconciler::start();
        reconciler.event("synced", |event| *event == KernelEvent::Synced).await;
        let first: Vec<KernelEvent> = reconciler.events.lock().unwrap().clone();
        assert_eq!(first.last(), Some(&KernelEvent::Synced));
        let aliens: Vec<String> = first
            .iter()
            .filter_map(|event| match event {
                KernelEvent::Alien(prefix, Some(alien)) => {
                    let hops: Vec<String> = alien
                        .target
                        .legs()
                        .iter()
                        .map(|l| format!(" {}{}", l.via.unwrap(), if l.onlink { "!" } else { "" }))
                        .collect();
                    Some(format!(
                        "{prefix}{} proto {} metric {}",
                        hops.concat(),
                        alien.protocol,
                        alien.metric
                    ))
                }
                _ => None,
            })
            .collect();
        assert_eq!(
            aliens,
            [
                "0.0.0.0/0 10.99.0.254 proto 4 metric 0",
                "10.7.0.0/16 192.168.9.9! proto 80 metric 0",
                "10.8.0.0/16 10.98.0.7 10.99.0.7 proto 4 metric 0",
                "::/0 fd99::fe proto 9 metric 512",
            ]
        );
        let mut addresses: BTreeMap<u32, Vec<(String, bool, bool)>> = BTreeMap::new();
        for event in &first {
            let KernelEvent::Address(a) = event else { continue };
            if !a.addr.to_string().starts_with("fe80") {
                addresses.entry(a.ifindex).or_default().push((a.addr.to_string(), a.secondary, a.narrow));
            }
        }
        let expect = |list: &[(&str, bool, bool)]| -> Vec<(String, bool, bool)> {
            list.iter().map(|(a, s, n)| ((*a).to_owned(), *s, *n)).collect()
        };
        assert_eq!(addresses[&1], expect(&[("127.0.0.1", false, true), ("::1", false, true)]));
        assert_eq!(
            addresses[&index("e0")],
            expect(&[("10.99.0.1", false, false), ("10.99.0.11", true, false), ("fd99::1", false, false)])
        );

        ip("route del default via 10.99.0.254");
        let second = |event: &KernelEvent| matches!(event, KernelEvent::Alien(p, Some(alien)) if p.is_default() && alien.metric == 100);
        reconciler.event("the other default route", second).await;
        ip("link set e1 down");
        let none =
            |event: &KernelEvent| matches!(event, KernelEvent::Alien(p, None) if *p == prefix("10.7.0.0/16"));
        reconciler.event("the silent loss of a route", none).await;
        ip("link add e2 type veth peer name e2p");
        let named =
            |event: &KernelEvent| matches!(event, KernelEvent::Link(link) if link.name == "e2" && !link.up);
        reconciler.event("a new link", named).await;
        let e2 = index("e2");
        ip("link del e2");
        reconciler.event("the link's end", |event| *event == KernelEvent::LinkGone(e2)).await;
    });
}

#[test]
fn notifications_alone_keep_the_mirror_equal_to_a_dump() {
    in_namespace("notifications_alone_keep_the_mirror_equal_to_a_dump", || async {
        let mut kernel = LinuxKernel::new();
        let mut mirror = Mirror::new();
        mirror.load(kernel.dump().await.unwrap().0);
        let commands = [
            "route add 10.1.0.0/16 via 10.99.0.2 proto 80",
            "route append 10.1.0.0/16 via 10.99.0.3 proto 81",
            "route add 10.1.0.0/16 via 10.99.0.3 proto 12 metric 5",
            "route replace 10.1.0.0/16 via 10.98.0.3 proto 12 metric 5",
            "route del 10.1.0.0/16 proto 80",
            "route add 10.2.0.0/16 proto 12 nexthop via 10.99.0.2 nexthop via 10.98.0.2 weight 3",
            "-6 route add fd01::/64 via fd99::2 proto 12 metric 1024",
            "-6 route append fd01::/64 via fd99::3 proto 12 metric 1024",
            "-6 route append fd01::/64 via fd98::3 proto 80 metric 1024",
            "-6 route del fd01::/64 via fd99::2 metric 1024",
            "-6 route add fd02::/64 proto 12 nexthop via fd99::2 dev e0 nexthop via fd98::2 dev e1",
            "-6 route replace fd02::/64 proto 12 nexthop via fd99::4 dev e0 nexthop via fd98::4 dev e1",
            "-6 route replace blackhole fd02::/64 proto 12",
            "-6 route replace fd02::/64 proto 12 via fd99::9",
            "-6 route add fd03::/64 dev e0 proto 80",
            "-6 route append fd03::/64 dev e1 proto 80",
            "-6 route del fd03::/64 dev e0",
            "-6 route add fd04::/64 proto 12 nexthop via fd99::2 dev e0 nexthop via fd98::2 dev e1",
            "-6 route del fd04::/64 proto 12",
            "route add throw 10.3.0.0/16",
            "route replace 10.3.0.0/16 via 10.99.0.7",
            "addr add 10.50.0.1/16 dev e0",
            "-6 addr del fd98::1/64 dev e1",
            "link set e1p down",
        ];
        for command in commands {
            ip(command);
            if command.starts_with("route") || command.starts_with("-6 route") {
                // All that is said of a route is said before the command returns.
                let heard = tokio::time::timeout(DEADLINE, kernel.notices()).await.expect(command).unwrap();
                heard.into_iter().for_each(|notice| mirror.apply(notice));
                let mut fresh = Mirror::new();
                fresh.load(LinuxKernel::new().dump().await.unwrap().0);
                for prefix in all_prefixes(&BTreeMap::new(), &fresh) {
                    assert_eq!(sorted(&mirror, prefix), sorted(&fresh, prefix), "after: ip {command}");
                }
                assert_eq!(mirror.len(), fresh.len(), "after: ip {command}");
            }
        }
    });
}

fn sorted(mirror: &Mirror, prefix: IpPrefix) -> Vec<String> {
    let mut all: Vec<String> = mirror.routes_at(prefix).iter().map(|route| format!("{route:?}")).collect();
    all.sort();
    all
}

#[test]
fn an_echo_is_known_and_the_kernels_words_come_with_a_refusal() {
    in_namespace("an_echo_is_known_and_the_kernels_words_come_with_a_refusal", || async {
        let mut kernel = LinuxKernel::new();
        kernel.dump().await.unwrap();
        let block = prefix("10.244.1.0/26");
        let applied = kernel
            .apply(&[
                RouteOp::Add(block, drop_all(Target::Blackhole, 0)),
                RouteOp::Add(block, drop_all(Target::Blackhole, 0)),
                RouteOp::Delete { prefix: block, metric: 0, only: Some(Target::Blackhole) },
                RouteOp::Delete { prefix: block, metric: 0, only: None },
                RouteOp::Add(block, via(&[("10.55.0.1", "e0")], 0)),
            ])
            .await
            .unwrap();
        let answers: Vec<String> = applied
            .results
            .iter()
            .map(|result| result.as_ref().map_or_else(ToString::to_string, |()| "fine".to_owned()))
            .collect();
        assert_eq!(
            answers,
            [
                "fine",
                "File exists (os error 17)",
                "fine",
                "No such process (os error 3)",
                "Nexthop has invalid gateway (Network is unreachable (os error 101))",
            ]
        );
        assert!(
            matches!(
                &applied.notices[..],
                [Notice::Route { echo: true, route, .. }, Notice::RouteGone { echo: true, .. }]
                    if route.protocol == PROTOCOL
            ),
            "{:?}",
            applied.notices
        );
    });
}
