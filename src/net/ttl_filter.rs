//! TTL security from the first octet on (RFC 5082, T12).
//!
//! Owns: the filter program for sockets on which `IP_MINTTL` cannot be set yet: a listener has one socket for all peers, and
//! what a caller sends before we take its connection would be read unseen; a dialled peer may send before `connect` returns
//! to us. Never: drops what has no data, for there are speakers whose first packets come with another TTL than the rest.

use std::net::IpAddr;

use bgp_proto::Afi;
use socket2::SockFilter;

/// Most instructions that the kernel takes (BPF_MAXINSNS).
const LONGEST: usize = 4096;
/// Offsets from here are those of the network header (SKF_NET_OFF); without it, of the TCP header.
const NETWORK: u32 = 0xfff0_0000;
/// Where the TCP header says how long it is.
const DATA_OFFSET: u32 = 12;
const PASS: u32 = u32::MAX;
const DROP: u32 = 0;

/// Codes of classic BPF (linux/filter.h).
mod op {
    pub const LOAD_WORD: u16 = 0x20;
    pub const LOAD_BYTE: u16 = 0x30;
    pub const LOAD_LEN: u16 = 0x80;
    pub const LOAD_X: u16 = 0x01;
    pub const AND: u16 = 0x54;
    pub const SHIFT_RIGHT: u16 = 0x74;
    pub const COPY_TO_X: u16 = 0x07;
    pub const JUMP: u16 = 0x05;
    pub const IF_EQUAL: u16 = 0x15;
    pub const IF_EQUAL_X: u16 = 0x1d;
    pub const IF_AT_LEAST_X: u16 = 0x3d;
    pub const RETURN: u16 = 0x06;
}

/// The words of an address as the network header has them, with their offsets in it.
fn words(addr: IpAddr) -> Vec<(u32, u32)> {
    match addr {
        IpAddr::V4(addr) => vec![(NETWORK + 12, addr.to_bits())],
        IpAddr::V6(addr) => {
            let [a, b, c, d, e, f, g, h] = addr.segments().map(u32::from);
            let pairs = [(a, b), (c, d), (e, f), (g, h)];
            (NETWORK + 8..).step_by(4).zip(pairs.map(|(high, low)| high << 16 | low)).collect()
        }
    }
}

/// A program that drops data which comes from one of these addresses with less than its least TTL or hop limit. `None`
/// where there is nothing to drop. Rules that the kernel's limit leaves no room for are left out: `IP_MINTTL` follows.
pub fn program(afi: Afi, rules: &[(IpAddr, u8)]) -> Option<Vec<SockFilter>> {
    let ttl = NETWORK + if afi == Afi::Ipv4 { 8 } else { 7 };
    // (code, jump if true, jump if false, operand)
    let tail = [
        (op::RETURN, 0, 0, PASS),
        (op::LOAD_BYTE, 0, 0, ttl),
        (op::IF_AT_LEAST_X, 6, 0, 0),
        (op::LOAD_BYTE, 0, 0, DATA_OFFSET),
        (op::AND, 0, 0, 0xf0),
        (op::SHIFT_RIGHT, 0, 0, 2),
        (op::COPY_TO_X, 0, 0, 0),
        (op::LOAD_LEN, 0, 0, 0),
        (op::IF_EQUAL_X, 0, 1, 0),
        (op::RETURN, 0, 0, PASS),
        (op::RETURN, 0, 0, DROP),
    ];
    let mut body: Vec<(u16, u8, u8, u32)> = Vec::new();
    let mut jumps = Vec::new();
    for (addr, least) in rules.iter().filter(|(addr, _)| Afi::of(*addr) == afi) {
        let words = words(*addr);
        let mut left = u8::try_from(2 * words.len() + 2).unwrap_or(u8::MAX);
        if body.len() + usize::from(left) + tail.len() > LONGEST {
            break;
        }
        for (offset, word) in words {
            left -= 2;
            body.push((op::LOAD_WORD, 0, 0, offset));
            body.push((op::IF_EQUAL, 0, left, word));
        }
        body.push((op::LOAD_X, 0, 0, (*least).into()));
        jumps.push(body.len());
        body.push((op::JUMP, 0, 0, 0));
    }
    let end = body.len();
    for at in &jumps {
        // Past the first RETURN of the tail, which is for everybody else.
        if let Some(jump) = body.get_mut(*at) {
            jump.3 = u32::try_from(end - at).unwrap_or_default();
        }
    }
    let whole = body.into_iter().chain(tail);
    (!jumps.is_empty()).then(|| whole.map(|(code, yes, no, k)| SockFilter::new(code, yes, no, k)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, SockRef, Socket, Type};
    use std::io::{ErrorKind, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    /// Sends from `from` with this TTL before the connection is accepted, and tells what can be read of it.
    fn heard(listener: &TcpListener, from: &str, ttl: u32) -> Result<usize, ErrorKind> {
        let to = listener.local_addr().unwrap();
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        if to.is_ipv4() { socket.set_ttl_v4(ttl) } else { socket.set_unicast_hops_v6(ttl) }.unwrap();
        socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let mut far = TcpStream::from(socket);
        far.write_all(b"OPEN").unwrap();
        let mut near = listener.accept().unwrap().0;
        near.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        near.read(&mut [0; 16]).map_err(|error| error.kind())
    }

    #[test]
    fn data_of_these_addresses_is_dropped_below_their_least_ttl_and_of_no_others() {
        let rules = [("127.0.0.2", 255), ("127.0.0.3", 250), ("::1", 255)];
        let rules = rules.map(|(addr, least)| (addr.parse().unwrap(), least));
        let listen = |on: &str| {
            let listener = TcpListener::bind((on, 0)).unwrap();
            let afi = Afi::of(on.parse().unwrap());
            SockRef::from(&listener).attach_filter(&program(afi, &rules).unwrap()).unwrap();
            listener
        };
        let (v4, v6) = (listen("127.0.0.1"), listen("::1"));
        #[rustfmt::skip]
        let table = [
            (&v4, "127.0.0.2", 255, true), (&v4, "127.0.0.2", 254, false), (&v4, "127.0.0.2", 64, false),
            (&v4, "127.0.0.3", 250, true), (&v4, "127.0.0.3", 249, false),
            (&v4, "127.0.0.4", 1, true),
            (&v6, "::1", 255, true), (&v6, "::1", 254, false),
        ];
        for (listener, from, ttl, passes) in table {
            let expected = if passes { Ok(4) } else { Err(ErrorKind::WouldBlock) };
            assert_eq!(heard(listener, from, ttl), expected, "{from} with {ttl}");
        }
    }

    #[test]
    fn a_program_is_never_longer_than_the_kernel_takes_and_there_is_none_without_rules() {
        let many = |afi: Afi| -> Vec<(IpAddr, u8)> {
            let addr = |n: u32| match afi {
                Afi::Ipv4 => IpAddr::from(n.to_be_bytes()),
                Afi::Ipv6 => IpAddr::from(u128::from(n).to_be_bytes()),
            };
            (1..3000).map(|n| (addr(n), 255)).collect()
        };
        for (afi, other) in [(Afi::Ipv4, Afi::Ipv6), (Afi::Ipv6, Afi::Ipv4)] {
            let listener =
                TcpListener::bind(if afi == Afi::Ipv4 { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
            let longest = program(afi, &many(afi)).unwrap();
            assert!(longest.len() <= LONGEST && longest.len() > LONGEST - 16);
            SockRef::from(&listener).attach_filter(&longest).unwrap();
            assert!(program(afi, &many(other)).is_none() && program(afi, &[]).is_none());
        }
    }
}
