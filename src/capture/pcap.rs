//! BGP messages out of packet captures.
//!
//! Owns: putting the TCP streams together, each direction by its sequence numbers. Never: interprets TCP beyond that,
//! nor messages. The files are read by pcap-parser and the packets by etherparse.
//!
//! A capture is read to its end before anything is put together, because a segment may come in any order. What was lost
//! is said, and decoding goes on at the next marker behind the hole; so it does where a
//! capture begins inside a message.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::SocketAddr;

use bgp_proto::wire::Context;
use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::pcapng::Block;
use pcap_parser::{
    Linktype, PcapBlockOwned, PcapNGSlice, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header,
};

use super::view::{self, MessagePlace};
use super::{Piece, Pieces, Printer};

/// A SYN this far before the first data seen begins the same connection: the capture has it out of order.
const REORDER_WINDOW: i64 = 1 << 20;

/// One direction of one connection.
type Direction = (SocketAddr, SocketAddr);

/// Payload of one packet.
struct Segment<'c> {
    /// Position in the stream.
    at: i64,
    /// Number of the packet in the capture.
    packet: usize,
    payload: &'c [u8],
}

/// Octets of one direction, from SYN to SYN.
struct Stream<'c> {
    direction: Direction,
    /// Where the stream begins, if its SYN was seen.
    start: Option<i64>,
    /// The position of the last segment, and its sequence number: the next ones are counted from there.
    last: (i64, u32),
    segments: Vec<Segment<'c>>,
}

impl<'c> Stream<'c> {
    /// The position of a sequence number, which is near that of the last one.
    fn position(&self, seq: u32) -> i64 {
        let (at, last) = self.last;
        at + i64::from(seq.wrapping_sub(last).cast_signed())
    }

    fn push(&mut self, seq: u32, packet: usize, payload: &'c [u8]) {
        let at = self.position(seq);
        self.last = (at, seq);
        self.segments.push(Segment { at, packet, payload });
    }

    /// Whether a SYN whose first octet has this number belongs to what was seen of this stream.
    fn begins_at(&self, seq: u32) -> bool {
        let at = self.position(seq);
        match self.start {
            Some(start) => at == start,
            None => self.segments.iter().all(|segment| (0..REORDER_WINDOW).contains(&(segment.at - at))),
        }
    }
}

/// All streams of a capture, in the order of their first packets.
#[derive(Default)]
struct Streams<'c> {
    all: Vec<Stream<'c>>,
    /// The latest stream of each direction.
    latest: BTreeMap<Direction, usize>,
    /// Time of each packet.
    times: Vec<f64>,
    /// Packets of a link type that is not read.
    other_links: u64,
}

impl<'c> Streams<'c> {
    fn packet(&mut self, link: Linktype, time: f64, data: &'c [u8], port: u16) {
        let number = self.times.len();
        self.times.push(time);
        let Ok(packet) = network(link, data) else {
            self.other_links += 1;
            return;
        };
        let Some((direction, seq, syn, payload)) = packet.and_then(tcp) else { return };
        if direction.0.port() != port && direction.1.port() != port {
            return;
        }
        // SYN takes one number of the sequence.
        let first = if syn { seq.wrapping_add(1) } else { seq };
        let known = self
            .latest
            .get(&direction)
            .copied()
            .filter(|at| !syn || self.all.get(*at).is_some_and(|stream| stream.begins_at(first)));
        let at = known.unwrap_or_else(|| {
            self.latest.insert(direction, self.all.len());
            self.all.push(Stream { direction, start: None, last: (0, first), segments: Vec::new() });
            self.all.len() - 1
        });
        let Some(stream) = self.all.get_mut(at) else { return };
        if syn {
            stream.start = Some(stream.position(first));
        }
        if !payload.is_empty() {
            stream.push(first, number, payload);
        }
    }
}

/// A link type that is not read.
struct OtherLink;

/// What stands in the frame of a link, if it is whole enough.
fn network(link: Linktype, data: &[u8]) -> Result<Option<LaxSlicedPacket<'_>>, OtherLink> {
    /// A pseudo header with the EtherType at `at`, and the packet behind it.
    fn cooked(data: &[u8], at: usize, len: usize) -> Option<LaxSlicedPacket<'_>> {
        let kind = u16::from_be_bytes(*data.get(at..)?.first_chunk()?);
        Some(LaxSlicedPacket::from_ether_type(EtherType(kind), data.get(len..)?))
    }
    // Above the type stands how long a frame check sequence is, which is behind the packet and not looked at.
    Ok(match link.0 & 0xffff {
        1 => LaxSlicedPacket::from_ethernet(data).ok(),
        // BSD loopback: four octets say the family, which the packet itself tells as well.
        0 | 108 => data.get(4..).and_then(|data| LaxSlicedPacket::from_ip(data).ok()),
        // Linux cooked, first and second version.
        113 => cooked(data, 14, 16),
        276 => cooked(data, 0, 20),
        // Raw IP by its various numbers.
        12 | 14 | 101 | 228 | 229 => LaxSlicedPacket::from_ip(data).ok(),
        _ => return Err(OtherLink),
    })
}

/// Direction, sequence number, SYN and payload of a packet, if it is TCP.
fn tcp(packet: LaxSlicedPacket<'_>) -> Option<(Direction, u32, bool, &[u8])> {
    let TransportSlice::Tcp(segment) = packet.transport? else { return None };
    let (source, destination) = match packet.net? {
        LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => return None,
    };
    let direction = (
        SocketAddr::new(source, segment.source_port()),
        SocketAddr::new(destination, segment.destination_port()),
    );
    Some((direction, segment.sequence_number(), segment.syn(), segment.payload()))
}

/// Reads every packet of a capture; an error says that the file breaks off.
fn packets<'c>(file: &'c [u8], port: u16, streams: &mut Streams<'c>) -> Result<(), &'static str> {
    const BROKEN: &str = "the capture file ends inside a record, or is damaged";
    if let Ok((mut rest, header)) = parse_pcap_header(file) {
        let unit = if header.is_nanosecond_precision() { 1e9 } else { 1e6 };
        while !rest.is_empty() {
            let parsed =
                if header.is_bigendian() { parse_pcap_frame_be(rest) } else { parse_pcap_frame(rest) };
            let Ok((after, packet)) = parsed else { return Err(BROKEN) };
            let time = f64::from(packet.ts_sec) + f64::from(packet.ts_usec) / unit;
            streams.packet(header.network, time, packet.data, port);
            rest = after;
        }
        return Ok(());
    }
    let mut interfaces: Vec<(Linktype, f64, f64)> = Vec::new();
    for block in PcapNGSlice::from_slice(file).map_err(|_| BROKEN)? {
        let Ok(PcapBlockOwned::NG(block)) = block else { return Err(BROKEN) };
        match block {
            Block::SectionHeader(_) => interfaces.clear(),
            Block::InterfaceDescription(interface) => {
                // The highest bit says of which base the others are the exponent.
                let base: f64 = if interface.if_tsresol & 0x80 == 0 { 10.0 } else { 2.0 };
                let resolution = base.powi((interface.if_tsresol & 0x7f).into());
                interfaces.push((interface.linktype, resolution, interface.ts_offset() as f64));
            }
            Block::EnhancedPacket(packet) => {
                let Some((link, resolution, offset)) = interfaces.get(packet.if_id as usize) else {
                    continue;
                };
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                streams.packet(*link, ticks as f64 / resolution + offset, data, port);
            }
            Block::SimplePacket(packet) => {
                let Some((link, ..)) = interfaces.first() else { continue };
                let data = packet.data.get(..packet.origlen as usize).unwrap_or(packet.data);
                streams.packet(*link, 0.0, data, port);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Consecutive octets of a stream, and the packet with which each of its ends was complete.
#[derive(Default)]
struct Run {
    octets: Vec<u8>,
    /// Length of `octets` after a packet, and the latest packet needed so far.
    complete: Vec<(usize, usize)>,
    /// Octets that are missing behind it.
    hole: i64,
}

impl Run {
    /// The packet with which the first `len` octets were there.
    fn packet(&self, len: usize) -> usize {
        let at = self.complete.partition_point(|(end, _)| *end < len);
        self.complete.get(at).or(self.complete.last()).map_or(0, |(_, packet)| *packet)
    }
}

/// The runs of a stream: several only where something was not captured.
fn runs(stream: &mut Stream<'_>) -> Vec<Run> {
    stream.segments.sort_by_key(|segment| (segment.at, segment.packet));
    let mut next = stream.start.or_else(|| stream.segments.first().map(|segment| segment.at)).unwrap_or(0);
    let mut runs = vec![Run::default()];
    for segment in &stream.segments {
        if segment.at > next {
            if let Some(run) = runs.last_mut() {
                run.hole = segment.at - next;
            }
            runs.push(Run::default());
            next = segment.at;
        }
        // What came before is there already: a retransmission.
        let known = usize::try_from(next - segment.at).unwrap_or(usize::MAX);
        let Some(fresh) = segment.payload.get(known..).filter(|fresh| !fresh.is_empty()) else { continue };
        if let Some(run) = runs.last_mut() {
            run.octets.extend_from_slice(fresh);
            let latest = run.complete.last().map_or(0, |(_, packet)| *packet);
            run.complete.push((run.octets.len(), latest.max(segment.packet)));
        }
        next += fresh.len() as i64;
    }
    runs
}

/// One line to be written. It is described only then, so that a capture takes little more memory than it has octets.
struct Found<'c> {
    /// The packet with which it was complete.
    packet: usize,
    /// The stream that it is of.
    stream: usize,
    what: What<'c>,
}

enum What<'c> {
    Piece(Piece<'c>),
    /// Something is missing.
    Gap(String),
}

/// Everything that there is to say of one stream.
fn find<'c>(stream: usize, begun_before: bool, runs: &'c [Run], ctx: &Context, found: &mut Vec<Found<'c>>) {
    let mut behind_hole = false;
    for (index, run) in runs.iter().enumerate() {
        let skipped = match marker(&run.octets) {
            at if behind_hole => at,
            // Without a SYN the connection is older than the capture, which may begin anywhere in a message.
            at if index == 0 && begun_before && at < run.octets.len() => at,
            _ => 0,
        };
        if skipped > 0 && !behind_hole {
            let text = format!("the capture begins inside a message, {skipped} octets before its end");
            found.push(Found { packet: run.packet(skipped), stream, what: What::Gap(text) });
        }
        let octets = run.octets.get(skipped..).unwrap_or_default();
        let mut packet = run.packet(run.octets.len());
        let mut cut = false;
        for (end, piece) in Pieces::new(octets, false, ctx) {
            packet = run.packet(skipped + end);
            cut = matches!(piece, Piece::Incomplete(..));
            let ended = matches!(piece, Piece::Invalid(_));
            found.push(Found { packet, stream, what: What::Piece(piece) });
            if ended {
                return;
            }
        }
        if run.hole > 0 && !cut {
            let text = format!("{} octets of the stream are not in the capture", run.hole);
            found.push(Found { packet, stream, what: What::Gap(text) });
        }
        behind_hole = run.hole > 0;
    }
}

/// Writes a line for each message of each stream, in the order in which they were complete.
pub(crate) fn decode(
    port: u16,
    input: &mut dyn Read,
    ctx: &Context,
    printer: &mut Printer<'_>,
) -> io::Result<()> {
    let mut file = Vec::new();
    input.read_to_end(&mut file)?;
    let mut streams = Streams::default();
    let broken = packets(&file, port, &mut streams).err();
    let Streams { all, times, other_links, .. } = streams;
    printer.summary.other_links = other_links;
    let mut places = Vec::new();
    let mut parts = Vec::new();
    for mut stream in all {
        let (source, destination) = stream.direction;
        places.push(MessagePlace {
            source: Some(source.to_string()),
            destination: Some(destination.to_string()),
            ..MessagePlace::default()
        });
        parts.push((stream.start.is_none(), runs(&mut stream)));
    }
    let mut found = Vec::new();
    for (stream, (begun_before, runs)) in parts.iter().enumerate() {
        find(stream, *begun_before, runs, ctx, &mut found);
    }
    found.sort_by_key(|found| found.packet);
    for Found { packet, stream, what } in found {
        let mut place = places.get(stream).cloned().unwrap_or_default();
        place.time = times.get(packet).copied();
        let line = match what {
            What::Piece(piece) => piece.line(ctx, &printer.checks, &place),
            What::Gap(text) => view::broken_off("invalid", 0, text, &place),
        };
        printer.print(&line)?;
    }
    match broken {
        Some(text) => {
            printer.print(&view::broken_off("invalid", 0, text.to_owned(), &MessagePlace::default()))
        }
        None => Ok(()),
    }
}

/// Octets before the first marker, or all.
fn marker(octets: &[u8]) -> usize {
    octets.windows(16).position(|window| window.iter().all(|octet| *octet == 0xff)).unwrap_or(octets.len())
}
