//! `/metrics`: OpenMetrics, made anew for each scrape from what tasks publish.
//!
//! Owns: names, labels and help texts. The number of series is bounded whatever the cluster's size: sessions of the mesh
//! are counted by state, family and reason; only sessions that somebody wrote a BGPPeer for have series of their own. Never:
//! asks the table but for counts, which are shared and at most a second old.

use std::collections::BTreeMap;
use std::fmt;

use bgp_proto::session::{DownReason, Messages};
use bgp_proto::{Afi, PeerId};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::server::Views;
use crate::desired::PeerClass;
use crate::fib::Phase;
use crate::fib::reconciler::FibStatus;
use crate::net::peer_view::PeerView;

type Labels = Vec<(&'static str, String)>;

/// Most sessions with series of their own; those beyond are counted together with the others.
const OWN_SERIES: usize = 256;

/// One scrape.
pub async fn scrape(views: &Views) -> Result<String, fmt::Error> {
    let mut page = Page(<Registry>::with_prefix("calico_bgpd"));
    page.process(views);
    page.sessions(views).await;
    page.kernel(&views.fib.borrow().clone());
    let mut text = String::new();
    encode(&mut text, &page.0)?;
    Ok(text)
}

struct Page(Registry);

impl Page {
    fn gauge(&mut self, name: &str, help: &str) -> Family<Labels, Gauge> {
        let family = Family::<Labels, Gauge>::default();
        self.0.register(name, help, family.clone());
        family
    }

    fn one(&mut self, name: &str, help: &str, value: impl TryInto<i64>) {
        let gauge = Gauge::<i64>::default();
        gauge.set(number(value));
        self.0.register(name, help, gauge);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn process(&mut self, views: &Views) {
        let info = self.gauge("build_info", "Always 1; the version of the program");
        info.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION").to_string())]).set(1);
        self.one("uptime_seconds", "Since the start", views.clock.now().as_secs());
        let in_force = views.in_force.borrow().clone();
        self.one("configured", "Whether a configuration is in force", u8::from(in_force.state.is_some()));
        self.counter("configurations", "Configurations that were applied", in_force.generation);
        let stays = u8::from(in_force.waiting_for.is_some());
        self.one("configuration_waits", "Whether the last snapshot could not be applied", stays);
        let recovering = u8::from(*views.phase.borrow() == Phase::Recovering);
        self.one("recovering", "Whether the end of a restart is waited for", recovering);
        let problems = self.gauge("problems", "What is wrong, or not done, in the datastore");
        for problem in &in_force.problems {
            let labels = vec![
                ("severity", problem.severity().name().to_string()),
                ("code", problem.code.name().to_string()),
            ];
            problems.get_or_create(&labels).inc();
        }
        let source = views.source.borrow().clone();
        self.one("datastore_in_sync", "Whether everything was listed once", u8::from(source.in_sync));
        let connected = u8::from(source.state.name() == "connected");
        self.one("datastore_connected", "Whether the datastore answers", connected);
        self.one("datastore_failures", "Failed attempts since it was last reached", source.failures);
        if let Some(heard) = source.heard {
            let age = heard.elapsed().as_secs();
            self.one("datastore_age_seconds", "Since the datastore last said anything", age);
        }
        let listen = views.listen.borrow().clone();
        let listening = self.gauge("listening", "Whether connections are accepted");
        for (afi, socket) in &listen.sockets {
            listening.get_or_create(&vec![("family", afi.name().into())]).set(i64::from(socket.is_ok()));
        }
        self.counter("strangers", "Connections from addresses of no peer", listen.strangers);
    }

    async fn sessions(&mut self, views: &Views) {
        let in_force = views.in_force.borrow().clone();
        let ids: Vec<(PeerId, Afi)> =
            in_force.peers.iter().map(|entry| (entry.id, entry.peer.key.afi)).collect();
        let counts = views.counts.peers(&ids).await.unwrap_or_default();
        let states = self.gauge("sessions", "Sessions by state of RFC 4271");
        let reasons = self.gauge("sessions_down", "Sessions that are not established, by reason");
        let routes = self.gauge("routes", "Routes received, of these accepted, and sent");
        let messages =
            self.gauge("messages", "Messages of the sessions that there are, since each was configured");
        let established =
            self.gauge("session_establishments", "Times that the sessions that there are came up");
        let up = self.gauge("peer_up", "Whether the session of a BGPPeer is established");
        let peer_routes = self.gauge("peer_routes", "Routes of the session of a BGPPeer");
        let peer_since =
            self.gauge("peer_state_seconds", "Since when the session of a BGPPeer is in its state");
        let mut own = OWN_SERIES;
        let now = views.clock.now();
        for entry in in_force.peers.iter() {
            let view = entry.view.borrow();
            let peer = &entry.peer;
            let class = || ("class", peer.class.name().to_string());
            let family = || ("family", peer.key.afi.name().to_string());
            let state = view.state().name().to_string();
            states.get_or_create(&vec![class(), family(), ("state", state)]).inc();
            if !view.is_established() {
                reasons.get_or_create(&vec![class(), family(), ("reason", reason(&view).into())]).inc();
            }
            let counted = counts.get(&entry.id).map(|counts| {
                BTreeMap::from([
                    ("received", counts.imported + counts.filtered),
                    ("accepted", counts.imported),
                    ("sent", counts.exported),
                ])
            });
            for (kind, count) in counted.iter().flatten() {
                let labels = vec![class(), family(), ("kind", (*kind).to_string())];
                routes.get_or_create(&labels).inc_by(number(*count));
            }
            if let Some(status) = &view.status {
                for (direction, counted) in
                    [("received", status.counters.received), ("sent", status.counters.sent)]
                {
                    for (kind, count) in by_kind(counted) {
                        let labels = vec![("direction", direction.to_string()), ("type", kind.to_string())];
                        messages.get_or_create(&labels).inc_by(number(count));
                    }
                }
                established
                    .get_or_create(&vec![class(), family()])
                    .inc_by(number(status.counters.established));
            }
            if peer.class == PeerClass::Mesh || own == 0 {
                continue;
            }
            own -= 1;
            let of = |more: Labels| {
                let mut labels =
                    vec![("name", peer.name.clone()), ("peer", peer.spec.transport.peer.to_string())];
                labels.extend(more);
                labels
            };
            up.get_or_create(&of(vec![])).set(i64::from(view.is_established()));
            let since = view.status.as_ref().map_or(now, |status| now - status.since);
            peer_since.get_or_create(&of(vec![])).set(number(since.as_secs()));
            for (kind, count) in counted.iter().flatten() {
                peer_routes.get_or_create(&of(vec![("kind", (*kind).to_string())])).set(number(*count));
            }
        }
    }

    fn kernel(&mut self, fib: &FibStatus) {
        self.one("kernel_connected", "Whether the kernel can be asked and told", u8::from(fib.connected));
        let routes = self.gauge("kernel_routes", "Routes wanted in the kernel, and how they fare");
        for (state, count) in [
            ("wanted", fib.desired),
            ("installed", fib.installed),
            ("pending", fib.pending),
            ("failed", fib.failed),
            ("conflict", fib.conflicts),
        ] {
            routes.get_or_create(&vec![("state", state.to_string())]).set(number(count));
        }
        self.counter(
            "kernel_repairs",
            "Routes written again because somebody had changed them",
            fib.repaired,
        );
        self.counter("kernel_reads", "Full reads of the kernel", fib.dumps);
        self.counter("kernel_overruns", "Times that notifications were lost", fib.overruns);
    }
}

fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

const fn by_kind(messages: Messages) -> [(&'static str, u64); 5] {
    [
        ("open", messages.open),
        ("update", messages.update),
        ("notification", messages.notification),
        ("keepalive", messages.keepalive),
        ("refresh", messages.refresh),
    ]
}

/// One word of a short list.
fn reason(view: &PeerView) -> &'static str {
    if view.held.is_some() {
        return "held";
    }
    match view.status.as_ref().and_then(|status| status.last.as_ref()) {
        None | Some(DownReason::Idle) => "none",
        Some(DownReason::Dial(_)) => "dial",
        Some(DownReason::Closed(_)) => "closed",
        Some(DownReason::Sent(_)) => "notification-sent",
        Some(DownReason::Received(_)) => "notification-received",
        Some(DownReason::Malformed { .. }) => "malformed",
        Some(DownReason::AsMismatch { .. }) => "as-mismatch",
        Some(DownReason::Restarted) => "restarted",
        Some(DownReason::HoldExpired) => "hold-expired",
        Some(DownReason::SendHoldExpired) => "send-hold-expired",
        Some(DownReason::Stopped(_)) => "stopped",
    }
}
