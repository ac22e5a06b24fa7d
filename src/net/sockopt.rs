//! Socket options that no crate offers: TCP MD5 keys and the minimum TTL of GTSM.
//!
//! Owns: the only `unsafe` of the daemon, two calls of `setsockopt`. Never: decides which key or TTL a peer has.
//! RFC 2385 (keys for one address or for a prefix), RFC 5082 (`IP_MINTTL`, `IPV6_MINHOPCOUNT`), BGP-4, BGP-8, T11.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use bgp_proto::session::TtlRule;
use bgp_proto::{Afi, IpPrefix};
use socket2::SockRef;

/// DSCP CS6 in the place of the old precedence bits: internetwork control (BGP-4).
const TOS_INTERNETWORK_CONTROL: u32 = 0xc0;
/// `TCP_MD5SIG_FLAG_PREFIX` of linux/tcp.h.
const FLAG_PREFIX: u8 = 1;
/// `TCP_MD5SIG_MAXKEYLEN` of linux/tcp.h.
pub const MAX_KEY: usize = 80;

/// Why a key could not be set.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Linux takes at most 80 bytes.
    #[error("the TCP MD5 key has {0} bytes; the kernel takes 1 to 80")]
    Length(usize),
    /// The socket's option memory is used up.
    #[error("the kernel has no room for another TCP MD5 key on this socket: raise net.core.optmem_max")]
    NoMemory,
    /// The kernel was built without `CONFIG_TCP_MD5SIG`, or the address does not suit the socket.
    #[error("TCP MD5 key: {0}")]
    Os(#[source] io::Error),
}

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C, align(8))]
struct TcpMd5Sig {
    /// `struct sockaddr_storage`: family, port, then the address.
    addr: [u8; 128],
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    ifindex: i32,
    key: [u8; MAX_KEY],
}

/// Sets the key for one address (a host prefix) or for a whole prefix; an empty key removes it.
pub fn set_md5_key(socket: &impl AsFd, peer: IpPrefix, key: &[u8]) -> Result<(), KeyError> {
    let mut sig = TcpMd5Sig {
        addr: [0; 128],
        flags: 0,
        prefix_len: 0,
        key_len: u16::try_from(key.len()).map_err(|_| KeyError::Length(key.len()))?,
        ifindex: 0,
        key: [0; MAX_KEY],
    };
    sig.key.get_mut(..key.len()).ok_or(KeyError::Length(key.len()))?.copy_from_slice(key);
    put_sockaddr(&mut sig.addr, peer.addr());
    let option = if peer.is_host() {
        libc::TCP_MD5SIG
    } else {
        sig.flags = FLAG_PREFIX;
        sig.prefix_len = peer.len();
        libc::TCP_MD5SIG_EXT
    };
    let result = setsockopt(socket, libc::IPPROTO_TCP, option, &sig);
    sig.key.fill(0);
    std::hint::black_box(&sig.key);
    match result {
        Ok(()) => Ok(()),
        // Removing a key that is not there.
        Err(error) if key.is_empty() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => Err(KeyError::NoMemory),
        Err(error) => Err(KeyError::Os(error)),
    }
}

/// Family and address of a `sockaddr_in` or `sockaddr_in6`; port, flow and scope stay 0.
fn put_sockaddr(out: &mut [u8; 128], addr: IpAddr) {
    let (family, offset, bytes): (i32, usize, Vec<u8>) = match addr {
        IpAddr::V4(addr) => (libc::AF_INET, 4, addr.octets().to_vec()),
        IpAddr::V6(addr) => (libc::AF_INET6, 8, addr.octets().to_vec()),
    };
    let family = u16::try_from(family).unwrap_or_default().to_ne_bytes();
    for (slot, byte) in out.iter_mut().zip(family) {
        *slot = byte;
    }
    for (slot, byte) in out.iter_mut().skip(offset).zip(bytes) {
        *slot = byte;
    }
}

/// The TTL that is sent, and with GTSM the least that is accepted (BGP-4). For a connected socket: many listeners
/// answer a SYN with their system's TTL and raise it only after `accept`, so a socket that demanded 255 of the
/// SYN-ACK would never connect.
pub fn set_ttl_rule(socket: &impl AsFd, afi: Afi, rule: TtlRule) -> io::Result<()> {
    let least = i32::from(rule.least().unwrap_or(0));
    set_ttl(socket, afi, rule.sent())?;
    match afi {
        Afi::Ipv4 => setsockopt(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &least),
        Afi::Ipv6 => setsockopt(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &least),
    }
}

/// The TTL or hop limit that is sent.
pub fn set_ttl(socket: &impl AsFd, afi: Afi, ttl: u8) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match afi {
        Afi::Ipv4 => socket.set_ttl_v4(u32::from(ttl)),
        Afi::Ipv6 => socket.set_unicast_hops_v6(u32::from(ttl)),
    }
}

/// DSCP CS6, so that routing traffic survives congestion.
pub fn set_control_class(socket: &impl AsFd, afi: Afi) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match afi {
        Afi::Ipv4 => socket.set_tos_v4(TOS_INTERNETWORK_CONTROL),
        Afi::Ipv6 => socket.set_tclass_v6(TOS_INTERNETWORK_CONTROL),
    }
}

/// Lets the kernel take bytes only when all before them have left. Its buffer holds thousands of keepalives, and a peer
/// that takes nothing would be noticed when they have filled it, hours later (T1, RFC 9687).
pub fn keep_no_backlog(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(1)
}

/// One option whose value is a plain C structure.
#[allow(unsafe_code, reason = "no crate sets these options")]
fn setsockopt<T>(socket: &impl AsFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `fd` is open for the whole call because it is borrowed from a live socket; `value` points to `len`
    // readable bytes of a `repr(C)` structure or an `i32`, and the kernel only reads them.
    let result = unsafe { libc::setsockopt(fd, level, option, std::ptr::from_ref(value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    #[test]
    fn the_structure_has_the_kernels_size() {
        assert_eq!(size_of::<TcpMd5Sig>(), 216);
    }

    #[test]
    fn a_key_longer_than_the_kernel_takes_is_refused_by_name() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = "192.0.2.1/32".parse().unwrap();
        assert!(matches!(set_md5_key(&socket, host, &[7; 81]), Err(KeyError::Length(81))));
        assert!(matches!(set_md5_key(&socket, host, &[7; 70_000]), Err(KeyError::Length(70_000))));
    }

    #[test]
    fn keys_are_set_replaced_and_removed_for_addresses_and_prefixes_of_both_families() {
        for (bind, peers) in [
            ((IpAddr::from(Ipv4Addr::LOCALHOST), 0), ["192.0.2.1/32", "198.51.100.0/24"]),
            ((IpAddr::from(Ipv6Addr::LOCALHOST), 0), ["2001:db8::1/128", "2001:db8:1::/48"]),
        ] {
            let Ok(socket) = TcpListener::bind(bind) else { continue };
            for peer in peers {
                let peer: IpPrefix = peer.parse().unwrap();
                for key in [&b"one"[..], &[9; 80], b"", b""] {
                    set_md5_key(&socket, peer, key).unwrap_or_else(|e| panic!("{peer} {}: {e}", key.len()));
                }
            }
        }
    }

    #[test]
    fn too_many_keys_name_the_sysctl() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = (0..100_000u32)
            .map(|n| IpPrefix::new(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n)), 32).unwrap())
            .find_map(|peer| set_md5_key(&socket, peer, b"key").err());
        let error = error.expect("option memory is bounded");
        assert!(error.to_string().contains("net.core.optmem_max"), "{error}");
    }

    #[test]
    fn gtsm_and_control_class_can_be_set_in_both_families() {
        for (bind, afi) in [("127.0.0.1:0", Afi::Ipv4), ("[::1]:0", Afi::Ipv6)] {
            let Ok(socket) = TcpListener::bind(bind) else { continue };
            set_ttl_rule(&socket, afi, TtlRule::Security { hops: 1 }).unwrap();
            set_ttl_rule(&socket, afi, TtlRule::Multihop(64)).unwrap();
            set_control_class(&socket, afi).unwrap();
        }
    }
}
