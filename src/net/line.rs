//! One TCP connection of a session: bytes in, bytes out, without a buffer while it is idle.
//!
//! Owns: the socket, a partly received message, what waits to be written. Never: knows what a message means.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bgp_proto::session::{CloseCause, Endpoints};
use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::core_thread::mailbox::Way;

/// What is read at once; the largest message fits.
pub const READ: usize = 64 * 1024;
/// How long a connection that we close may take to deliver its last bytes and to hear the other end close.
const LINGER: Duration = Duration::from_secs(2);

/// What is to be written, in whole messages.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// Routes: left out when the connection is closed before any of it was written.
    routes: bool,
    started: bool,
}

/// How writing went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flushed {
    /// The kernel took something.
    pub wrote: bool,
    /// Something is left that it does not take now.
    pub blocked: bool,
}

/// A connection.
#[derive(Debug)]
pub struct Line {
    stream: Arc<TcpStream>,
    /// Its ends.
    pub endpoints: Endpoints,
    /// Largest message that may come.
    pub max_message: usize,
    partial: Vec<u8>,
    queue: VecDeque<Piece>,
}

impl Line {
    /// Takes over a connected socket.
    pub fn new(stream: TcpStream, endpoints: Endpoints, max_message: usize) -> Self {
        let stream = Arc::new(stream);
        Line { stream, endpoints, max_message, partial: Vec::new(), queue: VecDeque::new() }
    }

    /// For those who write on it while nothing waits here; it ends with the line.
    pub fn way(&self) -> Weak<dyn Way> {
        let stream: Arc<dyn Way> = self.stream.clone();
        Arc::downgrade(&stream)
    }

    /// The socket, for its options.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Waits for bytes, or for the end. Cancel-safe.
    pub async fn readable(&self) {
        // An error shows itself when it is read.
        let _ = self.stream.readable().await;
    }

    /// Waits until something of the queue can be written; for ever while it is empty. Cancel-safe.
    pub async fn writable(&self) {
        if self.queue.is_empty() {
            std::future::pending::<()>().await;
        }
        let _ = self.stream.writable().await;
    }

    /// Reads what is there into `buf` behind what was left of the last time. Gives the filled length, or `None`
    /// where nothing is there now.
    pub fn read(&mut self, buf: &mut [u8; READ]) -> Result<Option<usize>, CloseCause> {
        let kept = self.partial.len();
        let (head, tail) = buf.split_at_mut_checked(kept).ok_or(CloseCause::Os(libc::EMSGSIZE))?;
        // The runtime may not have seen yet that something is there: what came before a deadline, or before another
        // connection of the peer, must be heard before it all the same.
        let read = match self.stream.try_read(tail) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                (&*SockRef::from(&*self.stream)).read(tail)
            }
            read => read,
        };
        match read {
            Ok(0) => Err(CloseCause::Eof),
            Ok(read) => {
                head.copy_from_slice(&self.partial);
                self.partial = Vec::new();
                Ok(Some(kept + read))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(close_cause(&error)),
        }
    }

    /// Keeps the beginning of a message for the next read.
    pub fn keep(&mut self, partial: &[u8]) {
        self.partial = partial.to_vec();
    }

    /// Whether bytes have come that were not read yet.
    pub fn has_unread(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::new(0)];
        SockRef::from(&*self.stream).peek(&mut byte).is_ok_and(|n| n > 0)
    }

    /// Puts whole messages behind what waits.
    pub fn push(&mut self, bytes: Bytes, routes: bool) {
        if !bytes.is_empty() {
            self.queue.push_back(Piece { bytes, routes, started: false });
        }
    }

    /// Puts the rest of what another has begun to write before what waits.
    pub fn push_rest(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queue.push_front(Piece { bytes, routes: true, started: true });
        }
    }

    /// Whether nothing waits to be written.
    pub fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// Writes as much as the kernel takes.
    pub fn flush(&mut self) -> Result<Flushed, CloseCause> {
        let mut done = Flushed::default();
        while let Some(piece) = self.queue.front_mut() {
            match self.stream.try_write(&piece.bytes) {
                Ok(written) => {
                    done.wrote = true;
                    piece.started = true;
                    piece.bytes.advance(written.min(piece.bytes.len()));
                    if piece.bytes.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    done.blocked = true;
                    break;
                }
                Err(error) => return Err(close_cause(&error)),
            }
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Ok(done)
    }

    /// Ends the connection: what the session said goes out, routes that were not begun do not, and the other end gets
    /// the time to read it before the socket goes.
    pub async fn hang_up(mut self) {
        self.queue.retain(|piece| piece.started || !piece.routes);
        let _ = timeout(LINGER, async {
            loop {
                match self.flush() {
                    Ok(Flushed { blocked: true, .. }) if self.stream.writable().await.is_ok() => {}
                    Ok(Flushed { blocked: false, .. }) => break,
                    _ => return,
                }
            }
            if SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write).is_err() {
                return;
            }
            // Closing with unread bytes would send RST, which destroys what the other end has not read yet.
            let mut sink = [0; 1024];
            while self.stream.readable().await.is_ok() {
                match self.stream.try_read(&mut sink) {
                    Ok(1..) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return,
                }
            }
        })
        .await;
    }
}

impl Way for TcpStream {
    fn write(&self, octets: &[u8]) -> io::Result<usize> {
        self.try_write(octets)
    }
}

/// What an errno on an open connection means for a session.
pub fn close_cause(error: &io::Error) -> CloseCause {
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE) => CloseCause::Reset,
        Some(errno) => CloseCause::Os(errno),
        None => CloseCause::Os(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn pair() -> (Line, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let ours = ours.unwrap();
        let endpoints = Endpoints { local: ours.local_addr().unwrap(), remote: ours.peer_addr().unwrap() };
        (Line::new(ours, endpoints, 4096), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn a_full_socket_is_told_and_nothing_is_lost_or_reordered() {
        let (mut line, mut far) = pair().await;
        let chunk = Bytes::from((0..=255u8).cycle().take(1 << 20).collect::<Vec<u8>>());
        let mut pushed = 0;
        let blocked = loop {
            line.push(chunk.clone(), true);
            pushed += chunk.len();
            let done = line.flush().unwrap();
            if done.blocked {
                break done;
            }
        };
        assert!(blocked.blocked && !line.is_drained());
        let reader = async {
            let mut got = vec![0; pushed];
            far.read_exact(&mut got).await.unwrap();
            got
        };
        let writer = async {
            while !line.is_drained() {
                line.writable().await;
                line.flush().unwrap();
            }
        };
        let (got, ()) = tokio::join!(reader, writer);
        assert!(got.iter().zip((0..=255u8).cycle()).all(|(a, b)| *a == b));
    }

    #[tokio::test]
    async fn the_last_message_arrives_although_the_other_end_was_still_sending() {
        let (mut line, mut far) = pair().await;
        tokio::io::AsyncWriteExt::write_all(&mut far, &[0; 4096]).await.unwrap();
        while !line.has_unread() {
            line.readable().await;
        }
        line.push(Bytes::from_static(b"goodbye"), false);
        line.push(Bytes::from_static(b"routes that nobody wants any more"), true);
        let hang_up = tokio::spawn(line.hang_up());
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"goodbye");
        drop(far);
        hang_up.await.unwrap();
    }

    #[tokio::test]
    async fn a_message_that_came_in_parts_is_read_whole_and_no_buffer_stays() {
        let (mut line, mut far) = pair().await;
        let mut buf = [0; READ];
        for (part, expected) in [(&b"abc"[..], &b"abc"[..]), (b"def", b"abcdef")] {
            tokio::io::AsyncWriteExt::write_all(&mut far, part).await.unwrap();
            line.readable().await;
            let filled = line.read(&mut buf).unwrap().unwrap();
            assert_eq!(&buf[..filled], expected);
            line.keep(&buf[..filled]);
        }
        line.keep(b"");
        assert_eq!(line.partial.capacity(), 0);
        drop(far);
        line.readable().await;
        assert_eq!(line.read(&mut buf), Err(CloseCause::Eof));
    }
}
