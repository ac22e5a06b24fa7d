//! The control socket over a real table: requests as a person would type them, and the program's own `show`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "these tests are shells")]

mod table_lab;

use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use table_lab::serve;

async fn ask(stream: &mut BufReader<UnixStream>, request: &str) -> Value {
    stream.get_mut().write_all(format!("{request}\n").as_bytes()).await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.ends_with('\n'), "{line:?}");
    serde_json::from_str(&line).unwrap()
}

async fn connect(run_dir: &Path) -> BufReader<UnixStream> {
    BufReader::new(UnixStream::connect(run_dir.join("calico-bgpd.sock")).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_request_a_line_gives_one_answer_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path()).await;
    let mut stream = connect(dir.path()).await;
    let peers = ask(&mut stream, r#"{"show":"peers"}"#).await;
    let names: Vec<&str> =
        peers["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Mesh_10_0_0_2", "Mesh_10_0_0_3", "Mesh_fd00__2", "Mesh_fd00__3"]);
    let routes = ask(&mut stream, r#"{"show":"routes","family":"ipv4"}"#).await;
    let route = &routes["routes"]["routes"][0];
    assert_eq!(route["prefix"], "10.244.1.0/26");
    assert_eq!((&route["source"], &route["best"]), (&"static".into(), &true.into()));
    let kernel = ask(&mut stream, r#"{"show":"kernel","family":"ipv6"}"#).await;
    let route = &kernel["kernelRoutes"]["routes"][0];
    assert_eq!((&route["prefix"], &route["state"]), (&"fd00:10:244::/122".into(), &"installed".into()));
    assert_eq!(route["actual"][0], "blackhole proto 12");
    let wrong = ask(&mut stream, r#"{"show":"kernel","family":"ipv6","after":"10.0.0.0/8"}"#).await;
    assert_eq!(wrong["error"], "\"10.0.0.0/8\" is no ipv6 prefix");
    let status = ask(&mut stream, r#"{"show":"status"}"#).await;
    assert_eq!(status["status"]["node"], "node-1");
    assert_eq!(status["status"]["releaseSource"], "clusterInformation");
    assert_eq!(status["status"]["datastore"]["state"], "connecting");
}

/// T10. Only the stranger's family can be meant.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_peer_that_is_waited_for_or_dialled_hears_of_connections_from_an_unexpected_source() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path()).await;
    let peers = ask(&mut connect(dir.path()).await, r#"{"show":"peers"}"#).await;
    let reasons: Vec<(&str, &str)> = peers["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| (peer["address"].as_str().unwrap(), peer["reason"].as_str().unwrap()))
        .collect();
    for (address, reason) in reasons {
        let hint = format!("unexpected source 10.0.0.77 were refused, expected is {address}");
        assert_eq!(reason.contains(&hint), address.starts_with("10."), "{address}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_peer_whose_connections_cannot_be_accepted_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path()).await;
    let peers = ask(&mut connect(dir.path()).await, r#"{"show":"peers"}"#).await;
    for peer in peers["peers"].as_array().unwrap() {
        let (address, reason) = (peer["address"].as_str().unwrap(), peer["reason"].as_str().unwrap());
        let expected = match address {
            "10.0.0.2" => Some("cannot be accepted: no room for its key"),
            v6 if v6.contains(':') => {
                Some("cannot be accepted: cannot listen on [::]:179: the port is in use")
            }
            _ => None,
        };
        match expected {
            Some(words) => assert!(reason.contains(words), "{address}: {reason}"),
            None => assert!(!reason.contains("accepted"), "{address}: {reason}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_request_gets_an_error_and_the_next_one_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path()).await;
    let mut stream = connect(dir.path()).await;
    for bad in ["", "{", r#"{"show":"secrets"}"#, r#"{"show":"routes","family":"ipx"}"#, "\u{0}\u{ff}"] {
        let answer = ask(&mut stream, bad).await;
        assert!(answer["error"].is_string(), "{bad:?}: {answer}");
    }
    let after = r#"{"show":"routes","family":"ipv4","after":"fd00::/64"}"#;
    assert_eq!(ask(&mut stream, after).await["error"], r#""fd00::/64" is no ipv4 prefix"#);
    assert!(ask(&mut stream, r#"{"show":"peers"}"#).await["peers"].is_array());
    let long = ask(&mut stream, &"x".repeat(10_000)).await;
    assert!(long["error"].as_str().unwrap().contains("4096"), "{long}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_refresh_of_a_session_that_is_down_is_refused_by_name_and_one_of_nobody_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path()).await;
    let mut stream = connect(dir.path()).await;
    let down = |name: &str| serde_json::json!({ "name": name, "refused": "the session is not established" });
    for wanted in ["Mesh_10_0_0_2", "10.0.0.2"] {
        let answer = ask(&mut stream, &format!(r#"{{"refresh":"{wanted}"}}"#)).await;
        assert_eq!(answer["refreshed"], Value::Array(vec![down("Mesh_10_0_0_2")]));
    }
    let all = ask(&mut stream, r#"{"refresh":"all"}"#).await;
    assert_eq!(all["refreshed"].as_array().unwrap().len(), 4);
    let nobody = ask(&mut stream, r#"{"refresh":"Mesh_10_0_0_9"}"#).await;
    assert_eq!(nobody["error"], r#"no session has the name or address "Mesh_10_0_0_9""#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hundred_clients_that_say_nothing_are_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path()).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(connect(dir.path()).await);
    }
    let mut stream = connect(dir.path()).await;
    let answer = ask(&mut stream, r#"{"show":"status"}"#);
    // A silent client is sent away after 30 s.
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), answer).await.unwrap();
    assert_eq!(answer["status"]["node"], "node-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_socket_of_a_dead_process_is_replaced_and_ours_goes_with_us() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calico-bgpd.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = serve(dir.path()).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(ask(&mut connect(dir.path()).await, r#"{"show":"peers"}"#).await["peers"].is_array());
    drop(server);
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while path.exists() {
        assert!(tokio::time::Instant::now() < end, "the socket stays behind");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn show_prints_tables_for_people_and_json_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path()).await;
    let show = |words: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_calico-bgpd"))
            .arg("show")
            .args(words)
            .env_clear()
            .env("CALICO_BGPD_RUN_DIR", dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(show(&["peers"]).lines().next().unwrap().starts_with("NAME"));
    assert!(show(&["peers", "10.0.0.2"]).contains("Mesh_10_0_0_2"));
    assert!(
        show(&["peers", "FD00:0:0::2"]).contains("Mesh_fd00__2"),
        "an address is one however it is written"
    );
    assert!(show(&["routes"]).contains("fd00:10:244:1::/122"));
    assert!(!show(&["routes", "--family", "ipv4"]).contains("fd00"));
    assert!(show(&["status"]).contains("0 of 4 established"));
    let json: Value = serde_json::from_str(&show(&["routes", "--json"])).unwrap();
    assert_eq!(json["routes"].as_array().unwrap().len(), 2);
    let json: Value = serde_json::from_str(&show(&["peers", "--json"])).unwrap();
    assert_eq!(json["peers"][0]["asNumber"], 64512);
}
