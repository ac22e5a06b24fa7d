//! BIRD's control sockets over a real table: bytes as Calico's programs and birdc send and read them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "these tests are shells")]

mod table_lab;

use std::path::Path;
use std::time::Duration;

use calico_bgpd::fib::Phase;
use table_lab::{serve, unconfigured};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

/// Nothing here takes as long on a machine that is merely busy.
const SOON: Duration = Duration::from_secs(20);

/// Connects as soon as the socket is there.
async fn connect(run_dir: &Path, name: &str) -> BufReader<UnixStream> {
    let end = Instant::now() + SOON;
    loop {
        match UnixStream::connect(run_dir.join(name)).await {
            Ok(stream) => return BufReader::new(stream),
            Err(error) => assert!(Instant::now() < end, "{name}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One request and its reply, up to the line whose code has a blank behind it.
async fn ask(stream: &mut BufReader<UnixStream>, command: &str) -> String {
    stream.get_mut().write_all(format!("{command}\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    loop {
        let start = text.len();
        timeout(SOON, stream.read_line(&mut text)).await.unwrap().unwrap();
        let line = &text.as_bytes()[start..];
        if line.is_empty() || (line.len() > 4 && line[..4].iter().all(u8::is_ascii_digit) && line[4] == b' ')
        {
            return text;
        }
    }
}

async fn greeted(run_dir: &Path, name: &str) -> BufReader<UnixStream> {
    let mut stream = connect(run_dir, name).await;
    let mut line = String::new();
    timeout(SOON, stream.read_line(&mut line)).await.unwrap().unwrap();
    assert_eq!(line, format!("0001 BIRD v{}-calico-bgpd ready.\n", env!("CARGO_PKG_VERSION")));
    stream
}

/// CTL-29 and CTL-30: what Calico's readiness makes of `show protocols`: names and BGP states of the peers that count.
fn calicos_peers(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut peers = Vec::new();
    for line in text.lines() {
        let row = match line.get(..4) {
            Some("0000") => return Ok(peers),
            Some("0001") => continue,
            Some("2002") => {
                let header: Vec<&str> = line[5..].split_whitespace().collect();
                assert_eq!(header, ["name", "proto", "table", "state", "since", "info"]);
                continue;
            }
            Some("1002") => &line[5..],
            _ if line.starts_with(' ') => &line[1..],
            _ => return Err(format!("unexpected line {line:?}")),
        };
        let fields: Vec<&str> = row.split_whitespace().collect();
        if fields.len() < 6 || fields[1] != "BGP" {
            continue;
        }
        if ["Global_", "Node_", "Mesh_"].iter().any(|class| fields[0].starts_with(class)) {
            peers.push((fields[0].to_string(), fields[5].to_string()));
        }
    }
    Ok(peers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_family_has_its_socket_with_its_sessions_and_its_routes() {
    let dir = tempfile::tempdir().unwrap();
    let _table = serve(dir.path()).await;
    for (name, peers, block) in [
        ("bird.ctl", ["Mesh_10_0_0_2", "Mesh_10_0_0_3"], "10.244.1.0/26      blackhole [static1 "),
        ("bird6.ctl", ["Mesh_fd00__2", "Mesh_fd00__3"], "fd00:10:244:1::/122 blackhole [static1 "),
    ] {
        let mut stream = greeted(dir.path(), name).await;
        let found = calicos_peers(&ask(&mut stream, "show protocols").await).unwrap();
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), peers);
        assert!(
            found.iter().all(|(_, state)| ["Passive", "Active", "Connect"].contains(&state.as_str())),
            "{found:?}"
        );
        let routes = ask(&mut stream, "show route").await;
        assert!(routes.starts_with(&format!("1007-{block}")) && routes.ends_with("0000 \n"), "{routes}");
        let one = ask(&mut stream, &format!("show protocols all {}", peers[0])).await;
        let address =
            peers[0].trim_start_matches("Mesh_").replace('_', if name == "bird.ctl" { "." } else { ":" });
        assert!(one.contains(&format!("\n     Neighbor address: {address}\n")), "{one}");
        assert!(one.contains("Routes:         0 imported, 0 exported, 0 preferred"), "{one}");
        assert!(one.ends_with("\n \n0000 \n"), "{one}");
        let fixed = ask(&mut stream, "show protocols all static1").await;
        assert!(fixed.contains("Routes:         1 imported, 0 exported, 1 preferred"), "{fixed}");
    }
}

/// HEALTH-5: no peers is ready; so a daemon that knows nothing yet must not say that there are none.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_without_configuration_is_alive_and_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let table = unconfigured(dir.path()).await;
    let mut stream = greeted(dir.path(), "bird.ctl").await;
    let peers = calicos_peers(&ask(&mut stream, "show protocols").await);
    assert!(peers.unwrap_err().contains("waiting for the datastore"));
    assert!(ask(&mut stream, "show status").await.ends_with("0013 Daemon is up and running\n"));
    table.configure().await;
    assert_eq!(calicos_peers(&ask(&mut stream, "show protocols").await).unwrap().len(), 2);
}

/// CTL-14, CTL-15: readiness waits for the end of recovery, which it knows by these lines.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_end_of_a_restart_is_waited_for_in_birds_words() {
    let dir = tempfile::tempdir().unwrap();
    let table = serve(dir.path()).await;
    let mut stream = greeted(dir.path(), "bird.ctl").await;
    let status = ask(&mut stream, "show status").await;
    assert!(!status.contains("0024"), "{status}");
    table.phase.send_replace(Phase::Recovering);
    let status = ask(&mut stream, "show status").await;
    assert!(status.contains("\n0024-Graceful restart recovery in progress\n   Waiting for 4 protocols to recover\n   Wait timer is "), "{status}");
    let known = ["1000", "1011", "0024", "0013"];
    assert!(status.lines().all(|line| line.starts_with(' ') || known.contains(&&line[..4])), "{status}");
    let kernel = ask(&mut stream, "show protocols kernel1").await;
    assert!(kernel.contains("1002-kernel1  Kernel   master   wait "), "{kernel}");
}

/// What the recorded session with BIRD and one with us have in common: everything but names, versions and times.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn errors_and_access_are_birds_word_for_word() {
    let dir = tempfile::tempdir().unwrap();
    let _table = serve(dir.path()).await;
    let mut stream = greeted(dir.path(), "bird.ctl").await;
    let recorded =
        include_str!("../fixtures/bird-ctl/errors-and-access.txt").replace("Mesh_10_99_0_2", "Mesh_10_0_0_2");
    let mut compared = 0;
    for exchange in recorded.split(">>> ").skip(1) {
        let (command, expected) = exchange.split_once('\n').unwrap();
        let answer = ask(&mut stream, command).await;
        match command {
            // A default route of the recorded node.
            "show route for 203.0.113.9" => assert_eq!(answer, "8001 Network not in table\n"),
            // A file is never read.
            "configure check \"/nonexistent\"" => {
                assert!(answer.ends_with("0020 Configuration OK\n"), "{answer}")
            }
            "show status" => assert!(answer.ends_with("0013 Daemon is up and running\n"), "{answer}"),
            _ => {
                assert_eq!(answer, expected, "{command}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 17, "{compared}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn commands_may_come_together_and_before_the_greeting_is_read_and_one_too_long_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _table = serve(dir.path()).await;
    let mut stream = connect(dir.path(), "bird.ctl").await;
    let long = "x".repeat(10_000);
    let all = format!("show protocols\r\n{long}\nshow route count\n");
    stream.get_mut().write_all(all.as_bytes()).await.unwrap();
    stream.get_mut().shutdown().await.unwrap();
    let mut text = String::new();
    timeout(SOON, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let ends: Vec<&str> = text.lines().filter(|line| line.as_bytes().get(4) == Some(&b' ')).collect();
    let ready = format!("0001 BIRD v{}-calico-bgpd ready.", env!("CARGO_PKG_VERSION"));
    assert_eq!(ends, [ready.as_str(), "0000 ", "9000 Command too long", "0014 1 of 1 routes for 1 networks"]);
}

/// A table that is at work for long keeps nobody from being asked whether the node lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_sessions_are_told_while_the_table_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let table = serve(dir.path()).await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (at_work, works) = std::sync::mpsc::channel();
    let core = table.views.core.clone();
    let work = tokio::spawn(async move {
        let look = core.look(move |_| {
            at_work.send(()).unwrap();
            held.recv().is_err()
        });
        look.await.ok()
    });
    works.recv().unwrap();
    table.phase.send_replace(Phase::Recovering);
    let mut stream = greeted(dir.path(), "bird.ctl").await;
    assert!(ask(&mut stream, "show status").await.contains("Waiting for 4 protocols"));
    assert_eq!(calicos_peers(&ask(&mut stream, "show protocols").await).unwrap().len(), 2);
    // Counts that cannot be had in time are told as none.
    assert_eq!(calicos_peers(&ask(&mut stream, "show protocols \"Mesh_*\"").await).unwrap().len(), 2);
    assert!(ask(&mut stream, "show protocols all Mesh_10_0_0_2").await.ends_with("\n \n0000 \n"));
    drop(release);
    assert_eq!(work.await.unwrap(), Some(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn configure_compiles_again_and_down_ends_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let table = serve(dir.path()).await;
    let mut stream = greeted(dir.path(), "bird.ctl").await;
    let before = table.views.in_force.borrow().at;
    let answer = ask(&mut stream, "configure").await;
    assert_eq!(
        answer,
        "0002-Reading configuration from /etc/calico/confd/config/bird.cfg\n0003 Reconfigured\n"
    );
    assert!(table.views.in_force.borrow().at > before, "what is said to be done is done");
    assert_eq!(ask(&mut stream, "disable Mesh_10_0_0_2").await.get(..4), Some("8007"));
    assert_eq!(ask(&mut stream, "down").await, "0007 Shutdown requested\n");
    assert!(table.down.is_cancelled());
    let mut rest = String::new();
    assert_eq!(timeout(SOON, stream.read_to_string(&mut rest)).await.unwrap().unwrap(), 0);
}

/// A BIRD that still runs keeps its socket; when it ends, ours takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_socket_of_a_bird_that_answers_is_left_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let bird = tokio::net::UnixListener::bind(dir.path().join("bird.ctl")).unwrap();
    let _table = serve(dir.path()).await;
    // Ours asks who is there before it takes the place.
    let (mut asks, _) = timeout(SOON, bird.accept()).await.unwrap().unwrap();
    asks.write_all(b"0001 BIRD 1.6.8 ready.\n").await.unwrap();
    drop(asks);
    let (asks_again, _) = timeout(SOON, bird.accept()).await.unwrap().unwrap();
    drop((asks_again, bird));
    greeted(dir.path(), "bird.ctl").await;
}
