//! Another BIRD on this node (KRT-50, DEF of a change-over by hand).
//!
//! Owns: the question whether a BIRD answers on its control sockets, asked before our own take their place. While one
//! does, it has the sessions and the kernel's routes: two daemons that write protocol 12 would delete each other's. So
//! nothing is configured until it has fallen silent; then recovery begins as after a restart. Never: ends anybody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// How long a program at the other end may take for its greeting.
const GREETING: Duration = Duration::from_secs(2);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// Who answers at a path: the first line that is said there, or `None` where nobody listens.
pub async fn who_answers(path: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(path).await.ok()?;
    let mut greeting = vec![0; 128];
    // One that accepts and says nothing is alive all the same.
    let read = timeout(GREETING, stream.read(&mut greeting)).await.unwrap_or(Ok(0)).unwrap_or(0);
    greeting.truncate(read);
    let text = String::from_utf8_lossy(&greeting);
    Some(text.lines().next().unwrap_or_default().escape_debug().to_string())
}

/// Whoever answers first, in words for people.
pub async fn found(sockets: &[PathBuf]) -> Option<String> {
    for path in sockets {
        if let Some(greeting) = who_answers(path).await {
            let path = path.display();
            return Some(format!(
                "the end of another BIRD on this node, which answers at {path}: {greeting}"
            ));
        }
    }
    None
}

/// Asks until nobody answers. `told` says what is waited for meanwhile.
pub async fn until_silent(sockets: Vec<PathBuf>, told: watch::Sender<Option<String>>) {
    let mut warned = false;
    while let Some(who) = found(&sockets).await {
        if !std::mem::replace(&mut warned, true) {
            warn!("no session is opened and no route is written before {who}");
        }
        told.send_if_modified(|told| {
            let news = told.as_ref() != Some(&who);
            *told = Some(who);
            news
        });
        sleep(PAUSE).await;
    }
    if warned {
        info!("the other BIRD is silent: recovery begins");
    }
    told.send_replace(None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn a_bird_that_answers_is_waited_for_and_a_socket_without_a_program_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let sockets = ["bird.ctl", "bird6.ctl"].map(|name| dir.path().join(name)).to_vec();
        assert_eq!(found(&sockets).await, None);
        let bird = UnixListener::bind(&sockets[1]).unwrap();
        let bird = tokio::spawn(async move {
            loop {
                let (mut client, _) = bird.accept().await.unwrap();
                client.write_all(b"0001 BIRD 1.6.8 ready.\n").await.unwrap();
            }
        });
        let (told, mut heard) = watch::channel(Some("nothing yet".to_string()));
        let waited = tokio::spawn(until_silent(sockets.clone(), told));
        let text =
            heard.wait_for(|told| told.as_deref() != Some("nothing yet")).await.unwrap().clone().unwrap();
        assert!(text.contains("bird6.ctl: 0001 BIRD 1.6.8 ready."), "{text}");
        assert!(!waited.is_finished());
        bird.abort();
        assert_eq!(heard.wait_for(Option::is_none).await.unwrap().clone(), None);
        assert!(sockets[1].exists(), "its file is in the way of nobody");
        waited.await.unwrap();
    }
}
