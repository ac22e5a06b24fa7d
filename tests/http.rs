//! HTTP over a real table: bytes as a scraper and a probe send them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "these tests are shells")]

mod table_lab;

use std::net::SocketAddr;
use std::time::Duration;

use calico_bgpd::control::http;
use table_lab::{Table, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Nothing here takes as long on a machine that is merely busy.
const SOON: Duration = Duration::from_secs(20);

async fn start(table: &Table) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(http::serve(listener, table.views.clone(), stop.clone()));
    (address, stop.drop_guard())
}

/// Status line and body.
async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_string(), body.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_scrape_counts_sessions_by_state_and_every_name_stands_in_the_documentation() {
    let dir = tempfile::tempdir().unwrap();
    let table = serve(dir.path()).await;
    let (address, _stop) = start(&table).await;
    let (status, text) = get(address, "/metrics").await;
    assert!(status.contains("200"), "{status}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let sessions: u64 = text
        .lines()
        .filter(|line| line.starts_with("calico_bgpd_sessions{class=\"mesh\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(sessions, 4, "{text}");
    assert!(text.contains("calico_bgpd_configurations_total 1\n"), "{text}");
    let documented = include_str!("../docs/control.md");
    let names =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE calico_bgpd_")).map(|line| line.split(' '));
    let mut count = 0;
    for mut words in names {
        let name = words.next().unwrap();
        let name = if words.next() == Some("counter") { format!("{name}_total") } else { name.to_string() };
        assert!(documented.contains(&format!("`{name}`")), "{name}");
        count += 1;
    }
    assert!(count > 20, "{count}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_whose_sessions_are_down_lives_and_is_not_ready_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let table = serve(dir.path()).await;
    let (address, _stop) = start(&table).await;
    let (status, text) = get(address, "/healthz").await;
    assert!(status.contains("200") && text == "ok\n", "{status}: {text}");
    let (status, text) = get(address, "/readyz").await;
    assert!(status.contains("503"), "{status}: {text}");
    assert!(text.contains("BGP not established with 10.0.0.2,10.0.0.3\n"), "{text}");
    let (_, text) = get(address, "/debug/peers").await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["peers"].as_array().unwrap().len(), 4);
    assert!(get(address, "/nothing").await.0.contains("404"));
}
