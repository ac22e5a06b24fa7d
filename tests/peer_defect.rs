//! A panic in one peer's task (P8). Alone in its program, because what panics is the log of the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "these tests are shells")]

mod shell_lab;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bgp_proto::session::StateName;
use calico_bgpd::speaker::SpeakerInput;

use shell_lab::{Shells, ip};

/// Panics when the session called `panics` comes up for the first time.
struct Mine(Arc<AtomicUsize>);

impl tracing::Subscriber for Mine {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{value:?} ");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let hit = text.0.contains("established") && text.0.contains("panics");
        assert!(!hit || self.0.fetch_add(1, Ordering::Relaxed) > 0, "a defect");
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(flavor = "current_thread")]
async fn a_defect_in_one_peers_task_costs_that_session_only_and_it_comes_back() {
    let panics = Arc::new(AtomicUsize::new(0));
    let _guard = tracing::subscriber::set_default(Mine(panics.clone()));
    let downs = Arc::new(Mutex::new(Vec::new()));
    let told = downs.clone();
    let mut a = Shells::new(move |input, _| {
        if let SpeakerInput::PeerDown(peer) = input {
            told.lock().unwrap().push(peer);
        }
    });
    let mut b = Shells::new(|_, _| {});
    let ours = ip("127.0.56.1");
    let bad = a.add("panics", ours, SocketAddr::new(ip("127.0.56.2"), 1), true, 90);
    let good = a.add("good", ours, SocketAddr::new(ip("127.0.56.3"), 1), true, 90);
    let addr = a.listen(ours).await;
    b.add("one", ip("127.0.56.2"), addr, false, 90);
    b.add("two", ip("127.0.56.3"), addr, false, 90);
    a.start().await;
    b.start().await;
    let view = a.wait(bad, "established after a defect", |v| v.is_established() && v.defects == 1).await;
    assert_eq!(view.state(), StateName::Established);
    let other = a.established(good).await;
    assert_eq!((other.defects, other.status.unwrap().counters.established), (0, 1));
    assert_eq!(*downs.lock().unwrap(), [bad]);
}
