//! The one loop that takes in clients, whatever they speak.
//!
//! Owns: how many clients there are at once, what becomes of them when the daemon stops, and that a system without
//! descriptors is waited for. Never: reads or writes; that is the client's own future.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Pause where the system refuses a connection: this must not spin, and the daemon's other work matters more.
const REFUSED: Duration = Duration::from_millis(250);

/// Where clients arrive.
pub(super) trait Accepts: Send + Sync {
    /// A connection.
    type Stream: Send + 'static;
    /// The next one. Cancel-safe.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accepts for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accepts for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// Serves clients until `stop`, at most `most` at once; others wait. `of` names the socket in the log.
pub(super) async fn serve<L: Accepts, F>(
    listener: &L,
    most: usize,
    of: &'static str,
    stop: CancellationToken,
    client: impl Fn(L::Stream) -> F,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most));
    let clients = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async {
                let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((listener.next().await?, permit))
            } => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (served, stop) = (client(stream), stop.clone());
                clients.spawn(async move {
                    let _permit = permit;
                    tokio::select! {
                        () = stop.cancelled() => {}
                        result = served => {
                            if let Err(error) = result {
                                debug!(%error, socket = of, "a client went away");
                            }
                        }
                    }
                });
            }
            Err(error) => {
                debug!(%error, socket = of, "cannot accept a client");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(REFUSED) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::{Mutex, mpsc, oneshot};

    /// Clients are numbers; an empty place is a refusal of the system.
    struct Queue(Mutex<mpsc::Receiver<Option<u8>>>);

    impl Accepts for Queue {
        type Stream = u8;

        async fn next(&self) -> io::Result<u8> {
            match self.0.lock().await.recv().await {
                Some(Some(client)) => Ok(client),
                Some(None) => Err(io::ErrorKind::Other.into()),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_above_the_bound_wait_for_one_to_leave_and_a_refusal_ends_nothing() {
        let (arrive, queue) = mpsc::channel(8);
        for client in [None, Some(1), Some(2), Some(3)] {
            arrive.send(client).await.unwrap();
        }
        let (seen, mut came) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let loops = stop.clone();
        let server = tokio::spawn(async move {
            let queue = Queue(Mutex::new(queue));
            serve(&queue, 2, "test", loops, move |client| {
                let seen = seen.clone();
                async move {
                    let (leave, left) = oneshot::channel::<()>();
                    seen.send((client, leave)).await.unwrap();
                    let _ = left.await;
                    Ok(())
                }
            })
            .await;
        });
        let (first, second) = (came.recv().await.unwrap(), came.recv().await.unwrap());
        assert_eq!((first.0, second.0), (1, 2));
        assert!(tokio::time::timeout(Duration::from_secs(5), came.recv()).await.is_err());
        drop(first);
        assert_eq!(came.recv().await.unwrap().0, 3);
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn the_end_of_the_daemon_ends_its_clients() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let (arrive, queue) = mpsc::channel(8);
        arrive.send(Some(1)).await.unwrap();
        let (alive, (there, mut came)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel(1));
        let stop = CancellationToken::new();
        let (loops, lives) = (stop.clone(), alive.clone());
        let server = tokio::spawn(async move {
            let queue = Queue(Mutex::new(queue));
            serve(&queue, 2, "test", loops, |_| {
                lives.fetch_add(1, Ordering::SeqCst);
                let (counted, there) = (Counted(lives.clone()), there.clone());
                async move {
                    let _counted = counted;
                    there.send(()).await.unwrap();
                    std::future::pending().await
                }
            })
            .await;
        });
        came.recv().await.unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), 1);
        stop.cancel();
        server.await.unwrap();
        while alive.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    }
}
