//! One outgoing TCP connection, and how many may be under way.
//!
//! Owns: socket options of a dial, errno to [`DialError`], the bound on concurrent dials with its jitter (T21). Never:
//! decides when to dial or for how long to try: the session does. BGP-4, BGP-8, BGP-10.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::prefix::is_link_local;
use bgp_proto::session::{DialError, TtlRule};
use bgp_proto::{Afi, IpPrefix};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{sockopt, ttl_filter};
use crate::model::SecretBytes;
use crate::random::random;

/// Dials under way at once; each costs a socket and, towards a dead peer, the kernel's SYN timers.
const CONCURRENT: usize = 512;

/// Where to dial, and how.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The peer.
    pub peer: IpAddr,
    /// Interface index for a link-local peer.
    pub scope: u32,
    /// The peer's port.
    pub port: u16,
    /// Address to dial from.
    pub source: Option<IpAddr>,
    /// TTL rule: sent from the SYN on, demanded from the connection on.
    pub ttl: TtlRule,
    /// MD5 key.
    pub key: Option<SecretBytes>,
}

/// A dial that failed.
#[derive(Debug)]
pub struct DialFailure {
    /// For the session.
    pub error: DialError,
    /// What people should know beside it: an option that could not be set.
    pub note: Option<String>,
}

/// Bounds the dials under way, in the whole process.
#[derive(Clone, Debug)]
pub struct DialGate {
    permits: Arc<Semaphore>,
    limit: usize,
}

impl Default for DialGate {
    fn default() -> Self {
        DialGate::with(CONCURRENT)
    }
}

/// The right to dial. It ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    /// `None`: the gate was closed, which nobody does.
    _permit: Option<OwnedSemaphorePermit>,
}

impl DialGate {
    /// A gate that lets so many dials be under way.
    pub fn with(limit: usize) -> Self {
        DialGate { permits: Arc::new(Semaphore::new(limit)), limit }
    }

    /// Waits for the turn of one dial. A single dial has it at once; where hundreds start together they are spread, two
    /// milliseconds for each that is under way. Cancel-safe, but the place in the queue is lost.
    pub async fn turn(&self) -> Turn {
        let busy = self.limit.saturating_sub(self.permits.available_permits());
        let spread = u64::try_from(busy).unwrap_or_default().saturating_mul(2);
        if let Some(pause) = random().checked_rem(spread.saturating_add(1)).filter(|_| busy > 8) {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Turn { _permit: self.permits.clone().acquire_owned().await.ok() }
    }
}

impl Turn {
    /// Dials.
    pub async fn dial(self, to: Destination) -> Result<TcpStream, DialFailure> {
        connect(&to).await
    }
}

async fn connect(to: &Destination) -> Result<TcpStream, DialFailure> {
    let socket = prepare(to)?;
    let remote = socket_addr(to.peer, to.port, to.scope);
    let stream = socket.connect(remote).await.map_err(|error| failed(&error))?;
    sockopt::set_ttl_rule(&stream, Afi::of(to.peer), to.ttl).map_err(|error| noted(&error, "TTL"))?;
    if to.ttl.least().is_some() {
        // What the filter did the rule does from here on.
        let _ = SockRef::from(&stream).detach_filter();
    }
    Ok(stream)
}

/// A socket that is ready to connect.
fn prepare(to: &Destination) -> Result<TcpSocket, DialFailure> {
    let afi = Afi::of(to.peer);
    let domain = if afi == Afi::Ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket =
        Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(|error| noted(&error, "socket"))?;
    let set = |what: &'static str, result: io::Result<()>| result.map_err(|error| noted(&error, what));
    set("non-blocking mode", socket.set_nonblocking(true))?;
    set("TCP_NODELAY", socket.set_tcp_nodelay(true))?;
    set("TCP_NOTSENT_LOWAT", sockopt::keep_no_backlog(&socket))?;
    set("DSCP", sockopt::set_control_class(&socket, afi))?;
    set("TTL", sockopt::set_ttl(&socket, afi, to.ttl.sent()))?;
    if let Some(filter) = to.ttl.least().and_then(|least| ttl_filter::program(afi, &[(to.peer, least)])) {
        set("TTL filter", socket.attach_filter(&filter))?;
    }
    if let Some(key) = &to.key {
        sockopt::set_md5_key(&socket, IpPrefix::host(to.peer), key.expose()).map_err(|error| {
            DialFailure { error: DialError::Os(libc::ENOMEM), note: Some(error.to_string()) }
        })?;
    }
    if let Some(source) = to.source {
        let local = socket_addr(source, 0, if is_link_local(source) { to.scope } else { 0 });
        socket.bind(&local.into()).map_err(|error| failed(&error))?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// A socket address with the scope that a link-local one needs.
pub fn socket_addr(addr: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match addr {
        IpAddr::V4(addr) => SocketAddr::new(addr.into(), port),
        IpAddr::V6(addr) => SocketAddrV6::new(addr, port, 0, scope).into(),
    }
}

/// Whether this node has an address that a connection could be dialled from, as far as the kernel tells.
pub fn is_here(addr: IpAddr, scope: u32) -> bool {
    let local = socket_addr(addr, 0, if is_link_local(addr) { scope } else { 0 });
    // A datagram socket holds nothing that a listener or a connection wants.
    let bound = std::net::UdpSocket::bind(local);
    bound.err().and_then(|error| error.raw_os_error()) != Some(libc::EADDRNOTAVAIL)
}

fn noted(error: &io::Error, what: &str) -> DialFailure {
    DialFailure { error: dial_error(error), note: Some(format!("{what}: {error}")) }
}

fn failed(error: &io::Error) -> DialFailure {
    DialFailure { error: dial_error(error), note: None }
}

/// What an errno of `connect` or `bind` means for a session.
pub fn dial_error(error: &io::Error) -> DialError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => DialError::Refused,
        Some(libc::ETIMEDOUT) => DialError::Timeout,
        Some(libc::EHOSTUNREACH) => DialError::HostUnreachable,
        Some(libc::ENETUNREACH | libc::ENETDOWN) => DialError::NetworkUnreachable,
        Some(libc::EADDRNOTAVAIL) => DialError::SourceUnavailable,
        Some(errno) => DialError::Os(errno),
        None => DialError::Os(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn to(addr: SocketAddr) -> Destination {
        Destination {
            peer: addr.ip(),
            scope: 0,
            port: addr.port(),
            source: None,
            ttl: TtlRule::Multihop(64),
            key: None,
        }
    }

    async fn dial(to: Destination) -> Result<TcpStream, DialFailure> {
        DialGate::default().turn().await.dial(to).await
    }

    #[tokio::test]
    async fn a_dial_has_its_turn_when_one_before_it_is_over_or_given_up() {
        let gate = DialGate::with(1);
        let first = gate.turn().await;
        let mut second = std::pin::pin!(gate.turn());
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err());
        drop(first);
        let _turn = second.await;
    }

    #[tokio::test]
    async fn a_dial_reaches_a_listener_without_delay_and_from_the_source_that_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut destination = to(listener.local_addr().unwrap());
        destination.source = Some("127.0.0.9".parse().unwrap());
        let (stream, accepted) = tokio::join!(dial(destination), listener.accept());
        let stream = stream.unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(accepted.unwrap().1.ip().to_string(), "127.0.0.9");
    }

    #[tokio::test]
    async fn a_closed_port_refuses_and_a_foreign_source_is_not_available() {
        let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(dial(to(addr)).await.unwrap_err().error, DialError::Refused);
        let mut foreign = to(addr);
        foreign.source = Some("192.0.2.1".parse().unwrap());
        assert_eq!(dial(foreign).await.unwrap_err().error, DialError::SourceUnavailable);
    }

    #[test]
    fn an_address_is_here_where_a_socket_can_have_it() {
        let here = |text: &str| is_here(text.parse().unwrap(), 0);
        assert!(here("127.0.0.9") && here("::1"));
        assert!(!here("192.0.2.1") && !here("2001:db8::1"));
    }

    #[tokio::test]
    async fn a_key_on_one_side_only_leaves_the_dial_without_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut destination = to(listener.local_addr().unwrap());
        destination.key = Some(SecretBytes::new(b"secret".to_vec()));
        let outcome = tokio::time::timeout(Duration::from_millis(300), dial(destination.clone())).await;
        assert!(outcome.is_err(), "an unsigned listener answered a signed SYN: {outcome:?}");
        sockopt::set_md5_key(&listener, "127.0.0.1/32".parse().unwrap(), b"secret").unwrap();
        assert!(dial(destination).await.is_ok());
    }
}
