//! `show status`, `show interfaces`, `show symbols`, `show memory` (CTL-13 to CTL-15).
//!
//! Owns: their text. Never: asks anybody.

use std::net::IpAddr;

use bgp_proto::{Afi, RouterId};

use super::reply::Reply;
use crate::fib::{Address, Link};

/// What `show status` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeReply {
    /// Of the program (CTL-3).
    pub version: &'static str,
    /// Our identifier; `None` before the first configuration.
    pub router_id: Option<RouterId>,
    /// Date and time now, of the start, and of the last configuration.
    pub now: String,
    /// Of the start.
    pub started: String,
    /// Of the last configuration that was applied.
    pub configured: String,
    /// While the end of a restart is waited for.
    pub recovery: Option<Wait>,
}

/// The wait for the end of a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait {
    /// Sessions that it waits for.
    pub sessions: usize,
    /// Seconds left.
    pub left: u64,
    /// Seconds in all.
    pub whole: u64,
}

/// No codes but these: a client that meets another one gives up (CTL-15).
pub fn status(reply: &mut Reply, node: &NodeReply) {
    reply.line(1000, format_args!("BIRD {}", node.version));
    match node.router_id {
        Some(id) => reply.line(1011, format_args!("Router ID is {id}")),
        None => reply.line(1011, "Router ID is 0.0.0.0"),
    }
    reply.line(1011, format_args!("Current server time is {}", node.now));
    reply.line(1011, format_args!("Last reboot on {}", node.started));
    reply.line(1011, format_args!("Last reconfiguration on {}", node.configured));
    if let Some(Wait { sessions, left, whole }) = node.recovery {
        reply.line(24, "Graceful restart recovery in progress");
        reply.line(24, format_args!("  Waiting for {sessions} protocols to recover"));
        reply.line(24, format_args!("  Wait timer is {left}/{whole}"));
    }
    reply.last(13, "Daemon is up and running");
}

/// An interface beside what the table knows of it: `/sys/class/net`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceReply {
    /// IFF_ flags.
    pub flags: u32,
    /// Octets.
    pub mtu: u32,
}

impl DeviceReply {
    /// Reads it; zero where it is gone.
    pub fn of(name: &str) -> DeviceReply {
        let read = |file: &str| std::fs::read_to_string(format!("/sys/class/net/{name}/{file}")).ok();
        let flags =
            read("flags").and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok());
        let mtu = read("mtu").and_then(|text| text.trim().parse().ok());
        DeviceReply { flags: flags.unwrap_or_default(), mtu: mtu.unwrap_or_default() }
    }
}

const IFF_UP: u32 = 0x1;
const IFF_BROADCAST: u32 = 0x2;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_POINTOPOINT: u32 = 0x10;
const IFF_RUNNING: u32 = 0x40;
const IFF_MULTICAST: u32 = 0x1000;

/// An interface of one family with its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Name and index.
    pub link: Link,
    /// Addresses of the family.
    pub addresses: Vec<Address>,
    /// The rest.
    pub device: DeviceReply,
}

impl Interface {
    /// The addresses of a family of an interface.
    pub fn of(link: Link, addresses: Vec<Address>, afi: Afi) -> Interface {
        let addresses = addresses.into_iter().filter(|address| Afi::of(address.addr) == afi).collect();
        let device = DeviceReply::of(&link.name);
        Interface { link, addresses, device }
    }

    /// BIRD calls an interface up that has an address.
    fn state(&self) -> &'static str {
        if self.link.up && !self.addresses.is_empty() { "up" } else { "DOWN" }
    }
}

/// `show interfaces [summary]`.
pub fn interfaces(reply: &mut Reply, interfaces: &[Interface], summary: bool) {
    if summary {
        reply.line(2005, "interface state address");
    }
    for interface in interfaces {
        let name = &interface.link.name;
        let state = interface.state();
        if summary {
            let first = interface.addresses.first();
            let address =
                first.map(|first| format!("{}/{}", first.addr, first.prefix.len())).unwrap_or_default();
            reply.line(1005, format_args!("{name:<9} {state:<5} {address}"));
            continue;
        }
        reply.line(1001, format_args!("{name} {state} (index={})", interface.link.index));
        reply.line(1004, format_args!("\t{}", flags(interface.device)));
        for (n, address) in interface.addresses.iter().enumerate() {
            let rank = match (n, address.secondary) {
                (0, _) => "Primary",
                (_, true) => "Secondary",
                _ => "Unselected",
            };
            let (addr, len, scope) = (address.addr, address.prefix.len(), scope(address.addr));
            reply.line(1003, format_args!("\t{addr}/{len} ({rank}, scope {scope})"));
        }
    }
    reply.done();
}

fn flags(device: DeviceReply) -> String {
    let has = |flag| device.flags & flag != 0;
    let several = if has(IFF_POINTOPOINT) && !has(IFF_BROADCAST) { "PtP" } else { "MultiAccess" };
    let words = [
        (true, several),
        (has(IFF_BROADCAST), "Broadcast"),
        (has(IFF_MULTICAST), "Multicast"),
        (true, if has(IFF_UP) { "AdminUp" } else { "AdminDown" }),
        (true, if has(IFF_RUNNING) { "LinkUp" } else { "LinkDown" }),
        (has(IFF_LOOPBACK), "Loopback"),
        (has(IFF_LOOPBACK), "Ignored"),
    ];
    let words: Vec<&str> = words.into_iter().filter(|(there, _)| *there).map(|(_, word)| word).collect();
    format!("{} MTU={}", words.join(" "), device.mtu)
}

/// As BIRD classifies an address.
fn scope(addr: IpAddr) -> &'static str {
    match addr {
        addr if addr.is_loopback() => "host",
        IpAddr::V4(addr) if addr.is_private() => "site",
        IpAddr::V6(addr) if addr.is_unique_local() => "site",
        IpAddr::V6(addr) if addr.is_unicast_link_local() => "link",
        _ => "univ",
    }
}

/// `show symbols`: what has a name.
pub fn symbols<'n>(reply: &mut Reply, protocols: impl Iterator<Item = &'n str>) {
    reply.line(1010, format_args!("{:<8}\trouting table", "master"));
    for name in protocols {
        reply.line(1010, format_args!("{name:<8}\tprotocol"));
    }
    reply.line(1010, format_args!("{:<8}\tfilter", "calico_kernel_programming"));
    reply.done();
}

/// `show memory`: the whole process, which is all that is known. `statm`: the text of `/proc/self/statm`.
pub fn memory(reply: &mut Reply, statm: &str) {
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    reply.line(1018, "BIRD memory usage");
    reply.line(1018, format_args!("{:<17} {:>4} kB", "Total:", pages * 4));
    reply.done();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(recovery: Option<Wait>) -> String {
        let mut reply = Reply::default();
        let node = NodeReply {
            version: "v0.3.3+birdv1.6.8",
            router_id: Some(RouterId("10.99.0.1".parse().unwrap())),
            now: "2026-11-21 01:38:11".into(),
            started: "2026-11-21 01:33:34".into(),
            configured: "2026-11-21 01:33:34".into(),
            recovery,
        };
        status(&mut reply, &node);
        reply.take()
    }

    #[test]
    fn the_status_is_birds() {
        let recorded = include_str!("../../../fixtures/bird-ctl/show-status.txt");
        assert!(recorded.ends_with(&node(None)), "{}", node(None));
        let recovering = include_str!("../../../fixtures/bird-ctl/gr-recovery.txt");
        let ours = node(Some(Wait { sessions: 3, left: 173, whole: 240 }));
        let lines = &ours[ours.find("0024-").unwrap()..];
        assert!(recovering.contains(lines), "{lines}");
    }

    #[test]
    fn interfaces_are_shown_as_bird_shows_them() {
        let link = |name: &str, index| Link { name: name.into(), index, up: true };
        let address = |ifindex, addr: &str, prefix: &str| Address {
            ifindex,
            addr: addr.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
            secondary: false,
            narrow: false,
        };
        let all = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;
        let made = [
            Interface {
                link: link("lo", 1),
                addresses: vec![address(1, "127.0.0.1", "127.0.0.0/8")],
                device: DeviceReply { flags: IFF_UP | IFF_RUNNING | IFF_LOOPBACK, mtu: 65536 },
            },
            Interface {
                link: link("eth0", 6),
                addresses: vec![address(6, "10.99.0.1", "10.99.0.0/24")],
                device: DeviceReply { flags: all, mtu: 1500 },
            },
            Interface {
                link: link("calixx00001", 10),
                addresses: Vec::new(),
                device: DeviceReply { flags: all, mtu: 1500 },
            },
        ];
        let recorded = include_str!("../../../fixtures/bird-ctl/show-misc.txt");
        for summary in [false, true] {
            let mut reply = Reply::default();
            interfaces(&mut reply, &made, summary);
            for line in reply.take().lines() {
                assert!(recorded.lines().any(|other| other == line), "{line}");
            }
        }
    }
}
