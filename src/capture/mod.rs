//! `calico-bgpd decode`: BGP messages from a file or a stream, as JSON for people and tools.
//!
//! Owns: the arguments, telling the kinds of input apart, and the loop from octets to lines. One JSON object a message,
//! one a line; whatever the octets are, they are described and never an error of the command. Only reading and writing
//! can fail. Never: talks to a peer, and never learns the coding of messages from the OPENs that it sees: the arguments
//! say it (RFC 6396 subtypes excepted, which say it themselves).
//!
//! Inputs: raw messages one after another, hexadecimal lines, pcap or pcapng ([`pcap`]), MRT ([`mrt`]). Everything
//! about the meaning of octets is `bgp_proto::wire`'s.

pub mod mrt;
pub mod pcap;
pub mod view;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use bgp_proto::wire::frame::{HEADER_LEN, Head, take};
use bgp_proto::wire::{Context, Fatal, Frame, Kind, PeerType};
use bgp_proto::{AfiSet, Asn, RouterId};

use view::{Checks, MessageLine, MessagePlace};

/// Arguments of `decode`.
#[derive(clap::Args, Clone, Debug)]
pub struct DecodeArgs {
    /// File with raw BGP messages, a packet capture (pcap, pcapng) or MRT records; `-` reads standard input. Which of
    /// them it is shows from its first bytes
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// The input is text: one message a line in hexadecimal, blanks allowed
    #[arg(long)]
    pub hex: bool,
    /// On which side of an AS border the sender is
    #[arg(long, value_name = "TYPE", default_value = "ebgp")]
    pub peer_type: PeerTypeArg,
    /// AS numbers in AS_PATH and AGGREGATOR have two octets
    #[arg(long)]
    pub as2: bool,
    /// Prefixes carry path identifiers (RFC 7911)
    #[arg(long)]
    pub add_path: bool,
    /// Messages may have up to 65535 octets (RFC 8654)
    #[arg(long)]
    pub extended_message: bool,
    /// An OPEN must name this AS
    #[arg(long, value_name = "ASN")]
    pub peer_as: Option<Asn>,
    /// An OPEN of an internal peer must not have this identifier, which is ours
    #[arg(long, value_name = "ADDRESS")]
    pub local_id: Option<Ipv4Addr>,
    /// In a packet capture: the TCP port of BGP
    #[arg(long, value_name = "PORT", default_value_t = 179)]
    pub port: u16,
}

/// `--peer-type`.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerTypeArg {
    /// External: another AS
    Ebgp,
    /// Internal: the same AS
    Ibgp,
}

/// What was read, for the end of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Lines written.
    pub lines: u64,
    /// MRT records of table dumps, which hold no messages.
    pub table_dumps: u64,
    /// MRT records of other types and subtypes without messages.
    pub other_records: u64,
    /// Captured packets of a link type that is not read.
    pub other_links: u64,
}

impl fmt::Display for Summary {
    /// What was skipped; empty if nothing was.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = [
            (self.table_dumps, "table dump records skipped"),
            (self.other_records, "MRT records without a BGP message skipped"),
            (self.other_links, "packets of a link type that is not read skipped"),
        ];
        let mut comma = "";
        for (count, what) in skipped.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{comma}{count} {what}")?;
            comma = ", ";
        }
        Ok(())
    }
}

impl DecodeArgs {
    /// Opens [`DecodeArgs::file`].
    pub fn open(&self) -> io::Result<Box<dyn Read>> {
        if self.file.as_os_str() == "-" {
            return Ok(Box::new(io::stdin().lock()));
        }
        Ok(Box::new(File::open(&self.file)?))
    }

    /// How messages are coded.
    fn context(&self) -> Context {
        let peer_type = match self.peer_type {
            PeerTypeArg::Ebgp => PeerType::Ebgp,
            PeerTypeArg::Ibgp => PeerType::Ibgp,
        };
        Context {
            as4: !self.as2,
            add_path_rx: if self.add_path { AfiSet::BOTH } else { AfiSet::EMPTY },
            extended_next_hop: true,
            extended_message: self.extended_message,
            ..Context::new(peer_type)
        }
    }

    fn checks(&self) -> Checks {
        Checks { peer_asn: self.peer_as, local_id: self.local_id.map(RouterId) }
    }
}

/// Writes lines, and what goes with all of them.
pub(crate) struct Printer<'o> {
    out: &'o mut dyn Write,
    checks: Checks,
    summary: Summary,
}

impl Printer<'_> {
    pub(crate) fn print(&mut self, line: &MessageLine) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.summary.lines += 1;
        self.out.write_all(b"\n")
    }
}

/// Reads `input` to its end and writes one line a message to `out`. The file of the arguments is the caller's to open
/// ([`DecodeArgs::open`]).
pub fn run(args: &DecodeArgs, input: &mut dyn Read, out: &mut dyn Write) -> io::Result<Summary> {
    let ctx = args.context();
    let mut printer = Printer { out, checks: args.checks(), summary: Summary::default() };
    if args.hex {
        hex_lines(input, &ctx, &mut printer)?;
    } else {
        // The longest head that tells something is MRT's.
        let mut head = Vec::new();
        (&mut *input).take(mrt::HEADER_LEN as u64).read_to_end(&mut head)?;
        let mut whole = BufReader::new(head.as_slice().chain(input));
        match Container::of(&head) {
            Container::Capture => pcap::decode(args.port, &mut whole, &ctx, &mut printer)?,
            Container::Mrt => mrt::decode(&mut whole, &ctx, &mut printer)?,
            Container::Raw => raw(&mut whole, &ctx, &mut printer)?,
        }
    }
    printer.out.flush()?;
    Ok(printer.summary)
}

/// What an input is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Container {
    Raw,
    Capture,
    Mrt,
}

impl Container {
    /// By the first octets. A BGP message begins with the marker, which neither of the others does.
    fn of(head: &[u8]) -> Container {
        match head {
            [0xa1, 0xb2, 0xc3, 0xd4, ..]
            | [0xa1, 0xb2, 0x3c, 0x4d, ..]
            | [0xd4, 0xc3, 0xb2, 0xa1, ..]
            | [0x4d, 0x3c, 0xb2, 0xa1, ..]
            | [0x0a, 0x0d, 0x0d, 0x0a, ..] => Container::Capture,
            _ if mrt::is_header(head) => Container::Mrt,
            _ => Container::Raw,
        }
    }
}

/// Messages one after another; memory is bounded by one message.
fn raw(input: &mut dyn Read, ctx: &Context, printer: &mut Printer<'_>) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut offset = 0;
    loop {
        let place = MessagePlace { stream_offset: Some(offset), ..MessagePlace::default() };
        let want = match take(&buffer, ctx.max_len()) {
            Ok(Head::NeedMore(want)) => want,
            Ok(Head::Frame(frame)) => {
                let len = frame.bytes.len();
                printer.print(&view::message(frame, ctx, &printer.checks, &place))?;
                offset += len as u64;
                buffer.drain(..len);
                continue;
            }
            Err(fatal) => return printer.print(&view::invalid(&fatal, &place)),
        };
        let got = (&mut *input).take(want as u64).read_to_end(&mut buffer)?;
        if got == 0 {
            if !buffer.is_empty() {
                printer.print(&view::incomplete(&buffer, want, &place))?;
            }
            return Ok(());
        }
    }
}

/// One message a line. A line may hold several; a framing error ends the line only.
fn hex_lines(input: &mut dyn Read, ctx: &Context, printer: &mut Printer<'_>) -> io::Result<()> {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let mut number = 0;
    while input.read_until(b'\n', &mut line)? > 0 {
        number += 1;
        let place = MessagePlace { line: Some(number), ..MessagePlace::default() };
        match from_hex(&line) {
            Ok((octets, half)) => {
                for (_, piece) in Pieces::new(&octets, half, ctx) {
                    printer.print(&piece.line(ctx, &printer.checks, &place))?;
                }
            }
            Err(at) => printer.print(&view::not_hex(at, &place))?,
        }
        line.clear();
    }
    Ok(())
}

/// The octets of a line, and whether half of one is left; or the position of what is no digit.
fn from_hex(line: &[u8]) -> Result<(Vec<u8>, bool), usize> {
    let mut octets = Vec::with_capacity(line.len() / 2);
    let mut high = None;
    for (at, byte) in line.iter().enumerate() {
        if byte.is_ascii_whitespace() {
            continue;
        }
        let digit = char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(at)?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => octets.push(high << 4 | digit),
        }
    }
    Ok((octets, high.is_some()))
}

/// What stands at one place of a stream.
pub(crate) enum Piece<'a> {
    /// A whole message.
    Message(Frame<'a>),
    /// A message whose end, so many octets at least, is missing.
    Incomplete(&'a [u8], usize),
    /// No header of a message: nothing behind it can be found.
    Invalid(Box<Fatal>),
}

impl Piece<'_> {
    pub(crate) fn line(&self, ctx: &Context, checks: &Checks, place: &MessagePlace) -> MessageLine {
        match self {
            Piece::Message(frame) => view::message(*frame, ctx, checks, place),
            Piece::Incomplete(octets, want) => view::incomplete(octets, *want, place),
            Piece::Invalid(fatal) => view::invalid(fatal, place),
        }
    }
}

/// All pieces of some octets, each with where it ends.
pub(crate) struct Pieces<'a> {
    octets: &'a [u8],
    at: usize,
    more: bool,
    max_len: usize,
}

impl<'a> Pieces<'a> {
    /// `more` says that something was cut off behind `octets`.
    pub(crate) fn new(octets: &'a [u8], more: bool, ctx: &Context) -> Self {
        Pieces { octets, at: 0, more, max_len: ctx.max_len() }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (usize, Piece<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.octets.get(self.at..).unwrap_or_default();
        if rest.is_empty() && !self.more {
            return None;
        }
        let last = match take(rest, self.max_len) {
            Ok(Head::Frame(frame)) => {
                self.at += frame.bytes.len();
                return Some((self.at, Piece::Message(frame)));
            }
            Ok(Head::NeedMore(want)) => Piece::Incomplete(rest, want),
            Err(fatal) => Piece::Invalid(Box::new(fatal)),
        };
        self.at = self.octets.len();
        self.more = false;
        Some((self.at, last))
    }
}

/// The kind that the header of an incomplete message names.
pub(crate) fn kind_of(octets: &[u8]) -> Option<Kind> {
    octets.get(HEADER_LEN - 1).copied().and_then(Kind::from_code)
}
