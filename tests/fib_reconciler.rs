//! The reconciler on a kernel in memory: what the real kernel cannot be made to do on demand, in no time at all (the
//! clock of the runtime is paused and jumps to the next deadline).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use std::collections::BTreeMap;
use std::time::Duration;

use bgp_proto::IpPrefix;
use calico_bgpd::fib::cleanup;
use calico_bgpd::fib::dry_run::DryRun;
use calico_bgpd::fib::fake::{FakeKernel, SharedKernel};
use calico_bgpd::fib::reconciler::{FibInput, FibStatus, run};
use calico_bgpd::fib::view::KernelLook;
use calico_bgpd::fib::view::RouteProblem;
use calico_bgpd::fib::{
    Errno, FibChange, FibRoute, KernelEvent, Leg, Ownership, PROTOCOL, Phase, Refusal, RouteOp, Target, Wish,
};
use proptest::prelude::*;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const FELIX: u8 = 80;

struct Bench {
    kernel: SharedKernel,
    input: mpsc::Sender<FibInput>,
    looks: mpsc::Sender<KernelLook>,
    events: mpsc::Receiver<KernelEvent>,
    status: watch::Receiver<FibStatus>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn p(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

fn blackhole() -> FibRoute {
    FibRoute { target: Target::Blackhole, metric: 0 }
}

fn via(gateway: &str, metric: u32) -> FibRoute {
    let leg = Leg { via: Some(gateway.parse().unwrap()), ifindex: 2, onlink: false, weight: 1 };
    FibRoute { target: Target::Unicast([leg].into_iter().collect()), metric }
}

/// A node with eth0 (index 2, 10.99.0.1/24 and fd99::1/64).
fn node() -> FakeKernel {
    let mut kernel = FakeKernel::new();
    let eth0 = kernel.add_link("eth0");
    kernel.add_address(eth0, "10.99.0.1/24");
    kernel.add_address(eth0, "fd99::1/64");
    kernel.take_written();
    kernel
}

impl Bench {
    fn start(kernel: FakeKernel) -> Bench {
        let kernel = SharedKernel::new(kernel);
        let (input, inbox) = mpsc::channel(4);
        let (told, events) = mpsc::channel(1);
        let (looks, asked) = mpsc::channel(1);
        let (sender, status) = watch::channel(FibStatus::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(kernel.clone(), inbox, asked, told, sender, stop.clone()));
        Bench { kernel, input, looks, events, status, stop, task }
    }

    async fn say(&self, input: FibInput) {
        self.input.send(input).await.unwrap();
    }

    async fn want(&self, prefix: &str, route: Option<FibRoute>) {
        self.say(FibInput::Changes(vec![FibChange { prefix: p(prefix), wish: route.into() }])).await;
    }

    async fn until(&mut self, holds: impl Fn(&FibStatus) -> bool) -> FibStatus {
        let waited = tokio::time::timeout(Duration::from_secs(600), self.status.wait_for(|s| holds(s))).await;
        let seen = waited.ok().map(|status| status.unwrap().clone());
        seen.unwrap_or_else(|| panic!("never came: {:#?}", self.status.borrow()))
    }

    /// The events up to and including `Synced`.
    async fn first_events(&mut self) -> Vec<KernelEvent> {
        let mut all = Vec::new();
        while all.last() != Some(&KernelEvent::Synced) {
            all.push(self.events.recv().await.unwrap());
        }
        all
    }

    /// `show kernel` of IPv4, a line each.
    async fn shown(&self, after: Option<IpPrefix>, limit: usize) -> Vec<String> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let look = KernelLook { afi: bgp_proto::Afi::Ipv4, after, limit, answer };
        self.looks.send(look).await.unwrap();
        let lines = answered.await.unwrap();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        lines
            .into_iter()
            .map(|line| {
                let (wanted, there) = (or_none(line.desired), line.actual.join("; "));
                format!(
                    "{} {} | {wanted} | {there} | {}",
                    line.prefix,
                    line.state.name(),
                    or_none(line.reason)
                )
            })
            .collect()
    }

    fn ours(&self) -> Vec<String> {
        let all = self.kernel.with(|kernel| kernel.owned_routes());
        all.iter().map(|route| format!("{} {} {}", route.kind, route.prefix, route.metric)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_core_that_reads_no_events_does_not_hold_up_the_writing() {
    let mut kernel = node();
    for n in 0..50 {
        kernel.add_route(p(&format!("10.7.{n}.0/24")), FELIX, 0, Target::Blackhole);
    }
    let mut bench = Bench::start(kernel);
    // The channel holds one event and nobody takes it.
    bench.want("10.244.1.0/26", Some(via("10.99.0.2", 1024))).await;
    bench.until(|s| s.installed == 1).await;
    let events = bench.first_events().await;
    assert_eq!(events.iter().filter(|e| matches!(e, KernelEvent::Alien(_, Some(_)))).count(), 50);
}

#[tokio::test(start_paused = true)]
async fn the_latest_wish_for_a_prefix_wins_and_no_other_is_written() {
    let mut bench = Bench::start(node());
    bench.first_events().await;
    let change = |route: Option<FibRoute>| FibChange { prefix: p("10.244.1.0/26"), wish: route.into() };
    let changes = vec![change(Some(blackhole())), change(None), change(Some(via("10.99.0.2", 512)))];
    bench.say(FibInput::Changes(changes)).await;
    bench.until(|s| s.installed == 1).await;
    let written = bench.kernel.with(FakeKernel::take_written);
    assert_eq!(written, [RouteOp::Add(p("10.244.1.0/26"), via("10.99.0.2", 512))]);
}

#[tokio::test(start_paused = true)]
async fn what_this_run_wrote_and_nobody_wants_any_more_goes_before_recovery_ends() {
    let mut kernel = node();
    for n in 1..4 {
        kernel.apply(&RouteOp::Add(p(&format!("10.244.{n}.0/26")), blackhole())).unwrap();
    }
    let mut bench = Bench::start(kernel);
    // The first is found as it is wanted, the second has another metric, the third is new, the fourth changes once.
    bench.want("10.244.1.0/26", Some(blackhole())).await;
    bench.want("10.244.2.0/26", Some(via("10.99.0.2", 1024))).await;
    bench.want("10.244.7.0/26", Some(via("10.99.0.2", 1024))).await;
    bench.want("10.244.8.0/26", Some(via("10.99.0.2", 1024))).await;
    bench.until(|s| s.installed == 4).await;
    bench.want("10.244.8.0/26", Some(via("10.99.0.2", 512))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let found = ["blackhole 10.244.1.0/26 0", "blackhole 10.244.2.0/26 0", "blackhole 10.244.3.0/26 0"];
    let ours = bench.ours();
    assert!(ours.contains(&"unicast 10.244.8.0/26 512".to_owned()), "{ours:?}");
    assert_eq!(ours.len(), 3 + 3, "the old metric of the fourth is gone: {ours:?}");
    for block in ["10.244.1.0/26", "10.244.2.0/26", "10.244.7.0/26", "10.244.8.0/26"] {
        bench.want(block, None).await;
    }
    let status = bench.until(|s| s.desired == 0).await;
    assert_eq!(status.phase, Phase::Recovering);
    assert_eq!(bench.ours(), found);
    bench.say(FibInput::Phase(Phase::Normal)).await;
    bench.until(|s| s.phase == Phase::Normal).await;
    assert_eq!(bench.ours(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn no_route_found_at_start_is_deleted_before_the_phase_is_normal_and_none_at_all_on_exit() {
    let mut kernel = node();
    for n in 1..4 {
        kernel.apply(&RouteOp::Add(p(&format!("10.244.{n}.0/26")), blackhole())).unwrap();
    }
    kernel.take_written();
    let mut bench = Bench::start(kernel);
    bench.want("10.244.1.0/26", Some(blackhole())).await;
    bench.want("10.244.2.0/26", Some(via("10.99.0.2", 1024))).await;
    bench.until(|s| s.installed == 2).await;
    // The audits of an hour change nothing.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(bench.until(|s| s.dumps >= 60).await.dumps < 90);
    assert_eq!(
        bench.ours(),
        [
            "blackhole 10.244.1.0/26 0",
            "blackhole 10.244.2.0/26 0",
            "unicast 10.244.2.0/26 1024",
            "blackhole 10.244.3.0/26 0"
        ]
    );
    let written = bench.kernel.with(FakeKernel::take_written);
    assert_eq!(written, [RouteOp::Add(p("10.244.2.0/26"), via("10.99.0.2", 1024))]);
    bench.say(FibInput::Phase(Phase::Normal)).await;
    bench.until(|s| s.phase == Phase::Normal).await;
    assert_eq!(bench.ours(), ["blackhole 10.244.1.0/26 0", "unicast 10.244.2.0/26 1024"]);
    bench.stop.cancel();
    bench.task.await.unwrap();
    assert_eq!(bench.kernel.with(|kernel| kernel.owned_routes()).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_connection_is_opened_again_and_everything_compared() {
    let mut bench = Bench::start(node());
    bench.want("10.244.1.0/26", Some(blackhole())).await;
    bench.until(|s| s.installed == 1).await;
    bench.first_events().await;
    bench.kernel.lose(true);
    let status = bench.until(|s| !s.connected).await;
    assert!(status.last_error.is_some());
    bench.kernel.with(|kernel| {
        kernel.remove_route(p("10.244.1.0/26"), PROTOCOL);
        kernel.add_route(p("10.7.0.0/16"), FELIX, 0, Target::Blackhole);
    });
    bench.want("10.244.2.0/26", Some(blackhole())).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(bench.ours(), [""; 0], "there is no way to write");
    bench.kernel.lose(false);
    bench.until(|s| s.connected && s.installed == 2).await;
    assert_eq!(bench.ours(), ["blackhole 10.244.1.0/26 0", "blackhole 10.244.2.0/26 0"]);
    assert!(matches!(bench.events.recv().await, Some(KernelEvent::Alien(_, Some(_)))));
}

#[tokio::test(start_paused = true)]
async fn an_audit_finds_what_no_notification_told() {
    let mut bench = Bench::start(node());
    bench.want("10.244.1.0/26", Some(blackhole())).await;
    bench.until(|s| s.installed == 1).await;
    bench.kernel.with(|kernel| {
        kernel.remove_route(p("10.244.1.0/26"), PROTOCOL);
        kernel.take_notices();
    });
    let begun = tokio::time::Instant::now();
    bench.until(|s| s.repaired == 1 && s.installed == 1).await;
    assert!(begun.elapsed() <= Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(bench.ours(), ["blackhole 10.244.1.0/26 0"]);
}

#[tokio::test(start_paused = true)]
async fn lost_notifications_cause_a_dump() {
    let mut bench = Bench::start(node());
    bench.want("10.244.1.0/26", Some(blackhole())).await;
    bench.until(|s| s.installed == 1).await;
    bench.kernel.with(|kernel| kernel.remove_route(p("10.244.1.0/26"), PROTOCOL));
    bench.kernel.overrun();
    let begun = tokio::time::Instant::now();
    let status = bench.until(|s| s.overruns == 1 && s.installed == 1 && s.repaired == 1).await;
    assert_eq!(status.dumps, 2);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_route_is_tried_again_ever_more_slowly_and_others_are_not_held_up() {
    let mut kernel = node();
    kernel.refuse(p("10.244.1.0/26"), Some(Errno::ENOMEM));
    let mut bench = Bench::start(kernel);
    bench.want("10.244.1.0/26", Some(blackhole())).await;
    bench.want("10.244.2.0/26", Some(blackhole())).await;
    let status = bench.until(|s| s.installed == 1 && s.failed == 1 && s.pending == 0).await;
    let problem = RouteProblem::Refused(Refusal::from(Errno::ENOMEM));
    assert_eq!(*status.problems, BTreeMap::from([(p("10.244.1.0/26"), problem)]));
    tokio::time::sleep(Duration::from_secs(300)).await;
    bench.kernel.with(|kernel| kernel.refuse(p("10.244.1.0/26"), None));
    let begun = tokio::time::Instant::now();
    let status = bench.until(|s| s.installed == 2 && s.failed == 0).await;
    assert!(begun.elapsed() <= Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(status.problems.is_empty());
    assert_eq!(status.repaired, 0);
}

#[tokio::test(start_paused = true)]
async fn where_the_new_metric_is_refused_the_old_route_stays() {
    let mut bench = Bench::start(node());
    bench.say(FibInput::Phase(Phase::Normal)).await;
    bench.want("10.244.1.0/26", Some(via("10.99.0.2", 1024))).await;
    bench.until(|s| s.installed == 1).await;
    bench.want("10.244.1.0/26", Some(via("10.55.0.2", 512))).await;
    bench.until(|s| s.failed == 1).await;
    assert_eq!(bench.ours(), ["unicast 10.244.1.0/26 1024"]);
    bench.kernel.with(|kernel| kernel.add_address(2, "10.55.0.1/24"));
    bench.until(|s| s.installed == 1).await;
    assert_eq!(bench.ours(), ["unicast 10.244.1.0/26 512"]);
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_is_taken_back_leaves_no_problem_behind() {
    let mut kernel = node();
    kernel.refuse(p("10.244.1.0/26"), Some(Errno::EINVAL));
    kernel.add_route(p("10.244.2.0/26"), FELIX, 0, Target::Blackhole);
    let mut bench = Bench::start(kernel);
    bench.say(FibInput::Phase(Phase::Normal)).await;
    bench.want("10.244.1.0/26", Some(blackhole())).await;
    bench.want("10.244.2.0/26", Some(blackhole())).await;
    bench.until(|s| s.failed == 1 && s.conflicts == 1).await;
    bench.want("10.244.1.0/26", None).await;
    bench.want("10.244.2.0/26", None).await;
    let status = bench.until(|s| s.desired == 0).await;
    assert_eq!((status.failed, status.conflicts, status.problems.len()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn another_owner_of_our_mark_is_not_fought_without_end() {
    let mut bench = Bench::start(node());
    bench.say(FibInput::Phase(Phase::Normal)).await;
    bench.first_events().await;
    // A second BIRD that writes a route we do not want, as soon as it is gone, for ten minutes.
    let prefix = p("10.244.1.0/26");
    let mut deleted = 0;
    for _ in 0..6000 {
        bench.kernel.with(|kernel| {
            let removed = RouteOp::Delete { prefix, metric: 0, only: None };
            deleted +=
                kernel.take_written().iter().filter(|op| **op == removed || op.prefix() == prefix).count();
            if kernel.routes_at(prefix).is_empty() {
                kernel.add_route(prefix, PROTOCOL, 0, Target::Blackhole);
            }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((10..40).contains(&deleted), "{deleted} times");
    // Once it stops, the route goes and nothing remains of the matter.
    bench.until(|s| s.problems.is_empty() && s.desired == 0).await;
    assert_eq!(bench.ours(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn routes_that_are_flushed_again_and_again_are_back_within_a_second_each_time() {
    let mut bench = Bench::start(node());
    bench.say(FibInput::Phase(Phase::Normal)).await;
    let wanted = ["10.244.1.0/26", "10.244.2.0/26", "fd00:10:244::/122"];
    for prefix in wanted {
        bench.want(prefix, Some(blackhole())).await;
    }
    bench.until(|s| s.installed == 3).await;
    for n in 0..7 {
        bench.kernel.with(|kernel| wanted.iter().for_each(|text| kernel.remove_route(p(text), PROTOCOL)));
        let begun = tokio::time::Instant::now();
        while bench.ours().len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let limit = if n < 3 { Duration::from_millis(20) } else { Duration::from_secs(1) };
        assert!(begun.elapsed() <= limit, "flush {n}: {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Faster than that it waits, but not longer; the status says why, and afterwards that it happened.
    let repaired = bench.until(|s| s.installed == 3).await.repaired;
    bench.kernel.with(|kernel| kernel.remove_route(p(wanted[0]), PROTOCOL));
    bench.until(|s| s.repaired == repaired + 1 && s.installed == 3).await;
    bench.kernel.with(|kernel| kernel.remove_route(p(wanted[0]), PROTOCOL));
    let status = bench.until(|s| s.failed == 1).await;
    assert!(matches!(status.problems[&p(wanted[0])], RouteProblem::Removed { .. }), "{status:#?}");
    let begun = tokio::time::Instant::now();
    let status = bench.until(|s| s.installed == 3 && s.problems.is_empty()).await;
    assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(status.repeated[&p(wanted[0])] > status.repeated[&p(wanted[1])]);
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert!(bench.until(|s| s.repeated.is_empty()).await.problems.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_and_what_is_there_is_shown_with_the_reasons() {
    let mut kernel = node();
    kernel.apply(&RouteOp::Add(p("10.244.9.0/26"), via("10.99.0.9", 1024))).unwrap();
    kernel.add_route(p("10.244.2.0/26"), FELIX, 1024, Target::Blackhole);
    kernel.add_route(p("10.7.0.0/16"), FELIX, 0, Target::Blackhole);
    kernel.refuse(p("10.244.3.0/26"), Some(Errno::EINVAL));
    let mut bench = Bench::start(kernel);
    bench.want("10.244.1.0/26", Some(via("10.99.0.2", 1024))).await;
    bench.want("10.244.2.0/26", Some(via("10.99.0.2", 1024))).await;
    bench.want("10.244.3.0/26", Some(blackhole())).await;
    bench.want("fd00:10:244::/122", Some(blackhole())).await;
    let wish = Wish::Waits { device: "tunl0" };
    bench.say(FibInput::Changes(vec![FibChange { prefix: p("10.244.4.0/26"), wish }])).await;
    bench.until(|s| s.installed == 2 && s.failed == 1 && s.conflicts == 1 && s.waiting == 1).await;
    let all = [
        "10.244.1.0/26 installed | via 10.99.0.2 dev eth0 metric 1024 | via 10.99.0.2 dev eth0 proto 12 metric 1024 | -",
        "10.244.2.0/26 conflicting | via 10.99.0.2 dev eth0 metric 1024 | blackhole proto 80 metric 1024 \
         | a route of protocol 80 has the same prefix and metric 1024",
        "10.244.3.0/26 failed | blackhole |  | the kernel refuses it: Invalid argument (os error 22)",
        "10.244.4.0/26 waiting | - |  | the device tunl0 is not there or not up; what the kernel holds stays until then",
        "10.244.9.0/26 adopted | - | via 10.99.0.9 dev eth0 proto 12 metric 1024 \
         | found at start; stays until recovery ends",
    ];
    assert_eq!(bench.shown(None, 100).await, all);
    assert_eq!(bench.shown(None, 2).await, all[..2]);
    assert_eq!(bench.shown(Some(p("10.244.2.0/26")), 2).await, all[2..4]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_it_would_do_once_and_writes_nothing() {
    let mut kernel = node();
    kernel.apply(&RouteOp::Add(p("10.244.9.0/26"), via("10.99.0.9", 1024))).unwrap();
    kernel.apply(&RouteOp::Add(p("10.244.8.0/26"), blackhole())).unwrap();
    kernel.take_written();
    let kernel = SharedKernel::new(kernel);
    let (lines, mut said) = mpsc::channel(100);
    let (input, inbox) = mpsc::channel(4);
    let (told, mut events) = mpsc::channel(100);
    let (_looks, asked) = mpsc::channel(1);
    let (sender, mut status) = watch::channel(FibStatus::default());
    let stop = CancellationToken::new();
    let dry = DryRun::new(kernel.clone(), lines);
    let task = tokio::spawn(run(dry, inbox, asked, told, sender, stop.clone()));
    let want = |prefix: &str, route| FibChange { prefix: p(prefix), wish: Wish::Route(route) };
    let changes = vec![
        want("10.244.1.0/26", via("10.99.0.2", 1024)),
        want("10.244.8.0/26", via("10.99.0.8", 0)),
        want("fd00:10:244::/122", blackhole()),
    ];
    input.send(FibInput::Changes(changes)).await.unwrap();
    input.send(FibInput::Phase(Phase::Normal)).await.unwrap();
    status.wait_for(|s| s.installed == 3 && s.phase == Phase::Normal).await.unwrap();
    // Audits see what is there with what would be.
    tokio::time::sleep(Duration::from_secs(600)).await;
    while events.try_recv().is_ok() {}
    assert_eq!(status.borrow().repaired, 0);
    let mut all = Vec::new();
    while let Ok(line) = said.try_recv() {
        all.push(line);
    }
    all.sort();
    assert_eq!(
        all,
        [
            "add 10.244.1.0/26 via 10.99.0.2 dev eth0 proto bird metric 1024",
            "add blackhole fd00:10:244::/122 proto bird metric 1024",
            "del 10.244.9.0/26 proto bird metric 1024",
            "replace 10.244.8.0/26 via 10.99.0.8 dev eth0 proto bird",
        ]
    );
    assert_eq!(kernel.with(FakeKernel::take_written), []);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn cleanup_finds_and_removes_what_is_ours_and_nothing_else() {
    let mut kernel = node();
    kernel.apply(&RouteOp::Add(p("10.244.9.0/26"), via("10.99.0.9", 1024))).unwrap();
    kernel.apply(&RouteOp::Add(p("10.244.9.0/26"), blackhole())).unwrap();
    kernel.apply(&RouteOp::Add(p("fd00:10:244::/122"), blackhole())).unwrap();
    kernel.add_route(p("10.244.9.0/26"), FELIX, 512, Target::Blackhole);
    let mut kernel = SharedKernel::new(kernel);
    let (found, operations) = cleanup::find(&mut kernel).await.unwrap();
    let found: Vec<String> = found.into_iter().map(|left| left.words).collect();
    assert_eq!(
        found,
        [
            "10.244.9.0/26 blackhole",
            "10.244.9.0/26 via 10.99.0.9 dev eth0 metric 1024",
            "fd00:10:244::/122 blackhole metric 1024",
        ]
    );
    assert_eq!(kernel.with(|kernel| kernel.owned_routes().len()), 3, "finding removes nothing");
    assert_eq!(cleanup::remove(&mut kernel, &operations).await.unwrap(), []);
    assert_eq!(kernel.with(|kernel| (kernel.owned_routes().len(), kernel.other_routes().len())), (0, 1));
}

/// A node with tunl0 (index 3) and the wish for an own block and for one over the tunnel, both written.
async fn with_tunnel(rival: bool) -> Bench {
    let mut kernel = node();
    assert_eq!(kernel.add_link("tunl0"), 3);
    let mut bench = Bench::start(kernel);
    bench.say(FibInput::Ownership(Ownership { ipip: true, unencapsulated: true, rival })).await;
    bench.say(FibInput::Phase(Phase::Normal)).await;
    let leg = Leg { via: Some("10.99.0.2".parse().unwrap()), ifindex: 3, onlink: true, weight: 1 };
    let tunnelled = FibRoute { target: Target::Unicast([leg].into_iter().collect()), metric: 1024 };
    bench.want("10.244.1.0/26", Some(tunnelled)).await;
    bench.want("10.244.0.0/26", Some(blackhole())).await;
    bench.until(|s| s.installed == 2).await;
    bench
}

#[tokio::test(start_paused = true)]
async fn to_a_felix_that_deletes_tunnel_routes_alone_ours_yields_and_tries_again() {
    let mut bench = with_tunnel(true).await;
    let block = p("10.244.1.0/26");
    let delete = |bench: &Bench| bench.kernel.with(|kernel| kernel.remove_route(block, PROTOCOL));
    delete(&bench);
    bench.until(|s| s.repaired == 1 && s.installed == 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    delete(&bench);
    let status = bench.until(|s| s.failed == 1).await;
    assert_eq!(status.problems[&block], RouteProblem::Yielded);
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(bench.ours(), ["blackhole 10.244.0.0/26 0"]);
    bench.until(|s| s.installed == 2 && s.problems.is_empty()).await;
    delete(&bench);
    bench.until(|s| s.problems.get(&block) == Some(&RouteProblem::Yielded)).await;
    // The owner is another now.
    let begun = tokio::time::Instant::now();
    bench.say(FibInput::Ownership(Ownership { ipip: true, unencapsulated: false, rival: true })).await;
    bench.until(|s| s.installed == 2 && s.problems.is_empty()).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_flush_of_everything_is_no_rival_nor_is_anything_beside_an_older_felix() {
    let mut bench = with_tunnel(true).await;
    for _ in 0..4 {
        bench.kernel.with(|kernel| {
            for text in ["10.244.1.0/26", "10.244.0.0/26"] {
                kernel.remove_route(p(text), PROTOCOL);
            }
        });
        bench.until(|s| s.installed == 2 && s.problems.is_empty()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(bench.ours().len(), 2);
    }
    let mut bench = with_tunnel(false).await;
    for _ in 0..4 {
        bench.kernel.with(|kernel| kernel.remove_route(p("10.244.1.0/26"), PROTOCOL));
        tokio::time::sleep(Duration::from_secs(2)).await;
        bench.until(|s| s.installed == 2 && s.problems.is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_routes_device_is_missing_the_kernel_keeps_what_it_holds() {
    let mut bench = Bench::start(node());
    bench.say(FibInput::Phase(Phase::Normal)).await;
    let block = "10.244.1.0/26";
    bench.want(block, Some(via("10.99.0.2", 1024))).await;
    bench.until(|s| s.installed == 1).await;
    let waits = Wish::Waits { device: "tunl0" };
    let wait = |prefix: &str| FibChange { prefix: p(prefix), wish: waits.clone() };
    bench.say(FibInput::Changes(vec![wait(block), wait("10.244.2.0/26")])).await;
    let status = bench.until(|s| s.waiting == 2).await;
    assert_eq!((status.desired, status.installed, status.failed, status.pending), (2, 0, 0, 0));
    assert_eq!(status.problems[&p(block)], RouteProblem::Waits { device: "tunl0" });
    // Audits leave it as it is.
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(bench.ours(), ["unicast 10.244.1.0/26 1024"]);
    bench.want("10.244.2.0/26", None).await;
    bench.want(block, Some(via("10.99.0.3", 1024))).await;
    let status = bench.until(|s| s.installed == 1 && s.problems.is_empty()).await;
    assert_eq!((status.waiting, status.repaired), (0, 0));
    bench.say(FibInput::Changes(vec![wait(block)])).await;
    bench.until(|s| s.waiting == 1).await;
    bench.want(block, None).await;
    bench.until(|s| s.desired == 0 && s.problems.is_empty()).await;
    assert_eq!(bench.ours(), [""; 0]);
}

/// What the world may do to the reconciler.
#[derive(Clone, Debug)]
enum Act {
    Want(u8, Option<u8>),
    Foreign(u8, u32),
    ForeignGone(u8),
    Steal(u8),
    Link(bool),
    Overrun,
    Lose,
    Wait,
}

fn any_act() -> impl Strategy<Value = Act> {
    let n = 0u8..4;
    prop_oneof![
        4 => (n.clone(), proptest::option::of(0u8..4)).prop_map(|(n, r)| Act::Want(n, r)),
        1 => (n.clone(), prop_oneof![Just(0u32), Just(512)]).prop_map(|(n, m)| Act::Foreign(n, m)),
        1 => n.clone().prop_map(Act::ForeignGone),
        1 => n.prop_map(Act::Steal),
        1 => any::<bool>().prop_map(Act::Link),
        1 => Just(Act::Overrun),
        1 => Just(Act::Lose),
        2 => Just(Act::Wait),
    ]
}

fn block(n: u8) -> IpPrefix {
    if n.is_multiple_of(2) { p(&format!("10.244.{n}.0/26")) } else { p(&format!("fd00:10:244:{n}::/122")) }
}

fn wish(n: u8, kind: u8) -> FibRoute {
    let gateway = |host: u8| {
        if n.is_multiple_of(2) { format!("10.99.0.{host}") } else { format!("fd99::{host}") }
    };
    match kind {
        0 => blackhole(),
        1 => via(&gateway(2), 512),
        2 => via(&gateway(3), 512),
        _ => FibRoute { target: Target::Unreachable, metric: 1024 },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happened, once it is over the kernel is as wanted, or the status says why not; and what others wrote
    /// is there.
    #[test]
    fn in_the_end_the_kernel_is_as_wanted_or_the_status_says_why_not(acts in proptest::collection::vec(any_act(), 1..40)) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::start(node());
            bench.say(FibInput::Phase(Phase::Normal)).await;
            let mut desired: BTreeMap<IpPrefix, FibRoute> = BTreeMap::new();
            let mut others: BTreeMap<(IpPrefix, u32), ()> = BTreeMap::new();
            for act in acts {
                match act {
                    Act::Want(n, kind) => {
                        let route = kind.map(|kind| wish(n, kind));
                        match route.clone() {
                            Some(route) => desired.insert(block(n), route),
                            None => desired.remove(&block(n)),
                        };
                        bench.say(FibInput::Changes(vec![FibChange { prefix: block(n), wish: route.into() }])).await;
                    }
                    Act::Foreign(n, metric) => {
                        bench.kernel.with(|k| k.add_route(block(n), FELIX, metric, Target::Prohibit));
                        let stored = calico_bgpd::fib::stored_metric(block(n).afi(), metric);
                        others.insert((block(n), stored), ());
                    }
                    Act::ForeignGone(n) => {
                        bench.kernel.with(|k| k.remove_route(block(n), FELIX));
                        others.retain(|(prefix, _), ()| *prefix != block(n));
                    }
                    Act::Steal(n) => bench.kernel.with(|k| k.remove_route(block(n), PROTOCOL)),
                    Act::Link(up) => bench.kernel.with(|k| {
                        k.set_link(2, up);
                        if up {
                            k.add_address(2, "fd99::1/64");
                        }
                    }),
                    Act::Overrun => bench.kernel.overrun(),
                    Act::Lose => bench.kernel.lose(false),
                    Act::Wait => tokio::time::sleep(Duration::from_millis(200)).await,
                }
                while bench.events.try_recv().is_ok() {}
            }
            tokio::time::sleep(Duration::from_secs(300)).await;
            let status = bench.status.borrow().clone();
            let (owned, foreign) = bench.kernel.with(|k| (k.owned_routes(), k.other_routes()));
            let foreign: BTreeMap<_, ()> = foreign.iter().map(|r| ((r.prefix, r.metric), ())).collect();
            assert_eq!(foreign, others);
            for (prefix, route) in &desired {
                let metric = calico_bgpd::fib::stored_metric(prefix.afi(), route.metric);
                let there =
                    owned.iter().any(|r| (r.prefix, r.metric, r.kind) == (*prefix, metric, route.target.kind()));
                assert!(there != status.problems.contains_key(prefix), "{prefix}: {there}, {status:#?}");
            }
            for route in &owned {
                assert!(desired.contains_key(&route.prefix), "{route:?} is not wanted");
            }
            assert_eq!(status.desired, desired.len());
            assert_eq!(status.installed + status.failed + status.conflicts, desired.len(), "{:#?}", status);
            assert!(status.connected);
        });
    }
}
