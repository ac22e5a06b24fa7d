//! The kernel by netlink.
//!
//! Owns: two sockets, one for requests and their answers, one for what the kernel tells everybody. Never: decides what
//! is written. Inputs: [`RouteOp`]s. Outputs: snapshots, answers, notices.
//!
//! The kernel tells everybody of a change before it answers the one who asked for it. So after each batch what waits at
//! the second socket is read, and all echoes of the batch are in it: the mirror follows one stream, in the kernel's own
//! order, and our writes need no second way into it. The echo is known by our port number. Should somebody else's route
//! for a key of the batch stand in the stream before the echo of a replace of ours, then we have overwritten
//! it, for a replace does not look at the protocol: it is put back as it was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bgp_proto::{Afi, IpPrefix};
use netlink_packet_core::{
    NLM_F_APPEND, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NetlinkBuffer, NlasIterator,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::message;
use super::mirror::{KernelDump, Notice};
use super::{Applied, Errno, Kernel, KernelError, PROTOCOL, Refusal, RouteOp};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

/// The kernel puts at most 32 KiB into one answer to a dump; a single notification is far smaller.
const RECEIVE: usize = 64 * 1024;
/// What the sockets hold while we do something else: some ten thousand notifications.
const BACKLOG: usize = 16 * 1024 * 1024;
/// Requests in one send; each may be answered with an error that has to fit into the backlog.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 48 * 1024;
/// A dump that was disturbed is repeated so often. After that it is taken, for the notices complete it.
const DUMP_TRIES: u32 = 4;

/// The kernel of the network namespace in which the process runs.
#[derive(Debug, Default)]
pub struct LinuxKernel {
    sockets: Option<Sockets>,
    settings: NetlinkSettings,
}

/// What tests want otherwise.
#[derive(Clone, Copy, Debug)]
pub struct NetlinkSettings {
    /// Receive buffer of the notification socket, in bytes.
    pub backlog: usize,
}

impl Default for NetlinkSettings {
    fn default() -> Self {
        NetlinkSettings { backlog: BACKLOG }
    }
}

struct Sockets {
    requests: TokioSocket,
    port: u32,
    sequence: u32,
    notifications: TokioSocket,
    /// Something was lost while nobody could be told.
    overrun: bool,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sockets").field("port", &self.port).finish_non_exhaustive()
    }
}

/// A message without its payload.
struct Head {
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

fn lost(context: &'static str) -> impl FnOnce(io::Error) -> KernelError {
    move |source| KernelError::Lost { context, source }
}

impl LinuxKernel {
    /// A connection that is opened by the first dump.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with other settings.
    pub fn with_settings(settings: NetlinkSettings) -> Self {
        LinuxKernel { sockets: None, settings }
    }

    fn sockets(&mut self) -> Result<&mut Sockets, KernelError> {
        self.sockets.as_mut().ok_or_else(|| lost("not open")(io::ErrorKind::NotConnected.into()))
    }

    /// Of no use any more after an error on the request socket: which answers are outstanding is not known.
    fn close_if_lost<T>(&mut self, result: Result<T, KernelError>) -> Result<T, KernelError> {
        if matches!(result, Err(KernelError::Lost { .. })) {
            self.sockets = None;
        }
        result
    }
}

impl Kernel for LinuxKernel {
    async fn dump(&mut self) -> Result<(KernelDump, Vec<Notice>), KernelError> {
        if self.sockets.is_none() {
            self.sockets = Some(Sockets::open(self.settings).map_err(lost("open"))?);
        }
        let result = self.sockets()?.dump().await;
        self.close_if_lost(result)
    }

    async fn apply(&mut self, operations: &[RouteOp]) -> Result<Applied, KernelError> {
        let result = self.sockets()?.apply(operations).await;
        self.close_if_lost(result)
    }

    fn waiting(&mut self) -> Result<Vec<Notice>, KernelError> {
        let sockets = self.sockets()?;
        let mut notices = Vec::new();
        let result = sockets.read_all_notices(&mut notices, &mut Overwritten::default());
        self.close_if_lost(result).map(|()| notices)
    }

    async fn notices(&mut self) -> Result<Vec<Notice>, KernelError> {
        let result = self.sockets()?.wait_for_notices().await;
        self.close_if_lost(result)
    }
}

impl Sockets {
    fn open(settings: NetlinkSettings) -> io::Result<Sockets> {
        let mut notifications = TokioSocket::new(NETLINK_ROUTE)?;
        let socket = notifications.socket_mut();
        enlarge(socket, settings.backlog)?;
        socket.bind_auto()?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        let mut requests = TokioSocket::new(NETLINK_ROUTE)?;
        let socket = requests.socket_mut();
        enlarge(socket, BACKLOG)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        // All three are refinements that old kernels lack: reasons in words, short answers, dumps of one table.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        let buffer = Vec::with_capacity(RECEIVE);
        Ok(Sockets { requests, port, sequence: 0, notifications, overrun: false, buffer })
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    async fn dump(&mut self) -> Result<(KernelDump, Vec<Notice>), KernelError> {
        let mut snapshot = KernelDump::default();
        for attempt in 1..=DUMP_TRIES {
            // What waits from before the dump is in the dump; what was lost before it is of no interest.
            loop {
                match self.read_all_notices(&mut Vec::new(), &mut Overwritten::default()) {
                    Ok(()) => break,
                    Err(KernelError::Overrun) => {}
                    Err(error) => return Err(error),
                }
            }
            let mut undisturbed = true;
            snapshot = KernelDump::default();
            let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
            undisturbed &= self
                .dump_of(links, |head, payload| {
                    snapshot.links.extend(message::link(payload).filter(|_| head.kind == RTM_NEWLINK));
                })
                .await?;
            let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            undisturbed &= self
                .dump_of(addresses, |head, payload| {
                    snapshot.addresses.extend(message::address(payload).filter(|_| head.kind == RTM_NEWADDR));
                })
                .await?;
            for (afi, family) in [(Afi::Ipv4, AddressFamily::Inet), (Afi::Ipv6, AddressFamily::Inet6)] {
                let mut request = RouteMessage::default();
                request.header.address_family = family;
                request.header.table = RouteHeader::RT_TABLE_MAIN;
                undisturbed &= self
                    .dump_of(RouteNetlinkMessage::GetRoute(request), |head, payload| {
                        if head.kind == RTM_NEWROUTE
                            && let Some((prefix, seen, _)) = read_route(payload)
                            && prefix.afi() == afi
                        {
                            snapshot.routes.push((prefix, seen));
                        }
                    })
                    .await?;
            }
            if undisturbed || attempt == DUMP_TRIES {
                break;
            }
        }
        let mut notices = Vec::new();
        match self.read_all_notices(&mut notices, &mut Overwritten::default()) {
            // The snapshot is worth having all the same; another is due.
            Err(KernelError::Overrun) => self.overrun = true,
            other => other?,
        }
        Ok((snapshot, notices))
    }

    /// Whether the dump was undisturbed.
    async fn dump_of(
        &mut self,
        request: RouteNetlinkMessage,
        mut each: impl FnMut(&Head, &[u8]),
    ) -> Result<bool, KernelError> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        message::append(&mut bytes, request, NLM_F_DUMP, sequence);
        self.send(&bytes)?;
        let (mut done, mut undisturbed) = (None, true);
        while done.is_none() {
            self.receive_answer().await?;
            let whole = for_each_message(&self.buffer, |head, payload| {
                if head.sequence != sequence {
                    return;
                }
                undisturbed &= head.flags & NLM_F_DUMP_INTR == 0;
                match head.kind {
                    NLMSG_DONE | NLMSG_ERROR => done = Some(error_code(payload)),
                    _ => each(head, payload),
                }
            });
            undisturbed &= whole;
        }
        match done {
            // ENOENT: a namespace that has never had an IPv4 route has no main table.
            None | Some(None | Some(Errno::ENOENT)) => Ok(undisturbed),
            Some(Some(errno)) => Err(lost("dump")(io::Error::from_raw_os_error(errno.0))),
        }
    }

    async fn apply(&mut self, operations: &[RouteOp]) -> Result<Applied, KernelError> {
        let mut applied = Applied { results: Vec::with_capacity(operations.len()), ..Applied::default() };
        let mut overwritten = Overwritten::default();
        let mut requests = operations.iter().map(message::operation).peekable();
        while requests.peek().is_some() {
            applied.results.extend(self.exchange(&mut requests).await?);
            match self.read_all_notices(&mut applied.notices, &mut overwritten) {
                Err(KernelError::Overrun) => applied.overrun = true,
                other => other?,
            }
        }
        let mut put_back = overwritten.hit.values().map(message::again).peekable();
        while put_back.peek().is_some() {
            for refusal in self.exchange(&mut put_back).await?.into_iter().filter_map(Result::err) {
                tracing::warn!(%refusal, "a route of another program that we overwrote could not be put back");
            }
            match self.read_all_notices(&mut applied.notices, &mut Overwritten::default()) {
                Err(KernelError::Overrun) => applied.overrun = true,
                other => other?,
            }
        }
        Ok(applied)
    }

    /// Sends as many requests as one batch takes, and waits for the answer to the last; the others were answered
    /// before it, or were fine.
    async fn exchange(
        &mut self,
        requests: &mut impl Iterator<Item = (RouteNetlinkMessage, u16)>,
    ) -> Result<Vec<Result<(), Refusal>>, KernelError> {
        let mut bytes = Vec::with_capacity(BATCH_BYTES);
        let mut sequences = Vec::with_capacity(BATCH);
        let mut start = 0;
        while sequences.len() < BATCH && bytes.len() < BATCH_BYTES {
            let Some((message, flags)) = requests.next() else { break };
            let sequence = self.next_sequence();
            start = message::append(&mut bytes, message, flags, sequence);
            sequences.push(sequence);
        }
        let Some(last) = sequences.last().copied() else { return Ok(Vec::new()) };
        message::ask_for_answer(&mut bytes, start);
        self.send(&bytes)?;
        let mut refused: BTreeMap<u32, Refusal> = BTreeMap::new();
        let mut finished = false;
        while !finished {
            self.receive_answer().await?;
            for_each_message(&self.buffer, |head, payload| {
                if head.kind != NLMSG_ERROR {
                    return;
                }
                finished |= head.sequence == last;
                if let Some(errno) = error_code(payload) {
                    refused.insert(head.sequence, Refusal { errno, detail: error_text(head, payload) });
                }
            });
        }
        Ok(sequences.iter().map(|sequence| refused.remove(sequence).map_or(Ok(()), Err)).collect())
    }

    /// The kernel does the whole batch within this call.
    fn send(&self, bytes: &[u8]) -> Result<(), KernelError> {
        self.requests.socket_ref().send(bytes, 0).map(drop).map_err(lost("send"))
    }

    async fn receive_answer(&mut self) -> Result<(), KernelError> {
        self.buffer.clear();
        self.buffer.reserve(RECEIVE);
        self.requests.recv(&mut self.buffer).await.map_err(lost("receive"))
    }

    async fn wait_for_notices(&mut self) -> Result<Vec<Notice>, KernelError> {
        if std::mem::take(&mut self.overrun) {
            return Err(KernelError::Overrun);
        }
        let mut notices = Vec::new();
        while notices.is_empty() {
            self.buffer.clear();
            self.buffer.reserve(RECEIVE);
            let from = self.notifications.recv_from(&mut self.buffer).await.map_err(overrun_or_lost)?;
            self.take_buffer(from, &mut notices, &mut Overwritten::default())?;
            self.read_all_notices(&mut notices, &mut Overwritten::default())?;
        }
        Ok(notices)
    }

    fn read_all_notices(
        &mut self,
        notices: &mut Vec<Notice>,
        overwritten: &mut Overwritten,
    ) -> Result<(), KernelError> {
        while !self.read_notices(notices, overwritten)? {}
        Ok(())
    }

    /// Reads one datagram if there is one; the answer is whether there was none.
    fn read_notices(
        &mut self,
        notices: &mut Vec<Notice>,
        overwritten: &mut Overwritten,
    ) -> Result<bool, KernelError> {
        self.buffer.clear();
        self.buffer.reserve(RECEIVE);
        match self.notifications.socket_ref().recv_from(&mut self.buffer, 0) {
            Ok((_, from)) => self.take_buffer(from, notices, overwritten).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(overrun_or_lost(error)),
        }
    }

    fn take_buffer(
        &self,
        from: SocketAddr,
        notices: &mut Vec<Notice>,
        overwritten: &mut Overwritten,
    ) -> Result<(), KernelError> {
        if from.port_number() != 0 {
            // Some program, not the kernel.
            return Ok(());
        }
        let whole = for_each_message(&self.buffer, |head, payload| {
            if let Some(notice) = self.notice(head, payload, overwritten) {
                notices.push(notice);
            }
        });
        if whole { Ok(()) } else { Err(KernelError::Overrun) }
    }

    fn notice(&self, head: &Head, payload: &[u8], overwritten: &mut Overwritten) -> Option<Notice> {
        let echo = head.port == self.port;
        match head.kind {
            RTM_NEWLINK => message::link(payload).map(Notice::Link),
            RTM_DELLINK => message::link(payload).map(|link| Notice::LinkGone(link.index)),
            RTM_NEWADDR => message::address(payload).map(Notice::Address),
            RTM_DELADDR => message::address(payload).map(|seen| Notice::AddressGone(seen.address)),
            RTM_NEWROUTE => {
                let (prefix, route, heard) = read_route(payload)?;
                let replaces = head.flags & NLM_F_REPLACE != 0;
                let key = (prefix, route.metric);
                if route.protocol != PROTOCOL {
                    let joins = head.flags & NLM_F_APPEND != 0;
                    overwritten.heard_of_other(key, heard, replaces, joins);
                } else if echo && replaces {
                    overwritten.replaced_by_us(key);
                } else {
                    overwritten.forget(key);
                }
                Some(Notice::Route { prefix, route, replaces, echo })
            }
            RTM_DELROUTE => {
                let (prefix, route, _) = read_route(payload)?;
                overwritten.went((prefix, route.metric));
                Some(Notice::RouteGone { prefix, route, echo })
            }
            _ => None,
        }
    }
}

/// A prefix and the metric as stored.
type Key = (IpPrefix, u32);

/// Routes of others that a replace of ours hit because they came after the plan was made.
#[derive(Default)]
struct Overwritten {
    /// Keys on which the kernel said that a route went: what comes next takes the key.
    free: BTreeSet<Key>,
    others: BTreeMap<Key, RouteMessage>,
    hit: BTreeMap<Key, RouteMessage>,
}

impl Overwritten {
    /// A route that joins ours at its key does not take the key. In IPv6 a gateway does so even where nobody
    /// said "append": it becomes one more leg.
    fn heard_of_other(&mut self, key: Key, heard: RouteMessage, replaces: bool, joins: bool) {
        let takes = replaces || self.free.contains(&key) || key.0.afi() == Afi::Ipv4;
        self.forget(key);
        if takes && !joins {
            self.others.insert(key, heard);
        }
    }

    fn replaced_by_us(&mut self, key: Key) {
        if let Some(heard) = self.others.remove(&key) {
            self.hit.insert(key, heard);
        }
    }

    fn went(&mut self, key: Key) {
        self.forget(key);
        self.free.insert(key);
    }

    fn forget(&mut self, key: Key) {
        self.free.remove(&key);
        self.others.remove(&key);
        self.hit.remove(&key);
    }
}

fn read_route(payload: &[u8]) -> Option<(IpPrefix, super::mirror::RouteSeen, RouteMessage)> {
    message::route(payload).unwrap_or_else(|error| {
        tracing::warn!(error, "a route that the kernel told of cannot be read; it is left alone");
        None
    })
}

/// A larger buffer than `rmem_max` needs CAP_NET_ADMIN, which routes need as well.
fn enlarge(socket: &Socket, bytes: usize) -> io::Result<()> {
    match set_socket_recv_buffer_size_force(socket, bytes) {
        Ok(()) => Ok(()),
        Err(_) => socket.set_rx_buf_sz(i32::try_from(bytes).unwrap_or(i32::MAX)),
    }
}

fn overrun_or_lost(source: io::Error) -> KernelError {
    match source.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NOBUFS.raw_os_error() => KernelError::Overrun,
        _ => KernelError::Lost { context: "notifications", source },
    }
}

/// Whether all of the datagram could be read.
fn for_each_message(mut bytes: &[u8], mut each: impl FnMut(&Head, &[u8])) -> bool {
    while !bytes.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(bytes) else { return false };
        let head = Head {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            port: message.port_number(),
        };
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        each(&head, message.payload());
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// The errno of an NLMSG_ERROR or NLMSG_DONE; `None`: success.
fn error_code(payload: &[u8]) -> Option<Errno> {
    let code = payload.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    (code != 0).then(|| Errno(code.unsigned_abs().cast_signed()))
}

/// The kernel's words, if it added any after the header of the request.
fn error_text(head: &Head, payload: &[u8]) -> Option<String> {
    if head.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = payload.get(4..)?;
    let skip = if head.flags & NLM_F_CAPPED != 0 {
        16
    } else {
        usize::try_from(u32::from_ne_bytes(*request.first_chunk()?)).ok()?.next_multiple_of(4)
    };
    let attributes = NlasIterator::new(request.get(skip..)?);
    let text = attributes.filter_map(Result::ok).find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)?;
    let text = text.value().split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}
