//! BGP messages out of MRT records (RFC 6396, RFC 8050).
//!
//! Owns: which records hold messages, and what their subtypes say of the coding. Never: reads table dumps; they are
//! counted. The records themselves are cut by bgpkit-parser.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};

use bgp_proto::AfiSet;
use bgp_proto::wire::Context;
use bgpkit_parser::ParserError;
use bgpkit_parser::models::{CommonHeader, EntryType};
use bgpkit_parser::parser::mrt::mrt_record::chunk_mrt_record;
use nom::bytes::complete::take;
use nom::multi::length_data;
use nom::number::complete::{be_u16, be_u32};
use nom::{IResult, Parser};

use super::view::{self, MessagePlace};
use super::{Pieces, Printer};

/// Octets of a record's header.
pub const HEADER_LEN: usize = 12;

/// Whether these octets begin an MRT record of a type that is in use.
pub fn is_header(head: &[u8]) -> bool {
    match *head {
        [_, _, _, _, 0, kind, 0, subtype, len, ..] => {
            let subtypes = match kind {
                // OSPFv2, ISIS, OSPFv3 and their extended kin.
                11 | 32 | 33 | 48 | 49 => 0..=0,
                // TABLE_DUMP by AFI, TABLE_DUMP_V2, BGP4MP(_ET).
                12 => 1..=2,
                13 => 1..=12,
                16 | 17 => 0..=11,
                _ => return false,
            };
            // No record of 16 MiB is real.
            subtypes.contains(&subtype) && len == 0
        }
        _ => false,
    }
}

/// What a subtype of BGP4MP says of the message in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Subtype {
    as4: bool,
    add_path: bool,
    /// Recorded by the collector as sent, not as received.
    local: bool,
}

impl Subtype {
    /// `None`: a state change, or nothing that is known.
    fn of(number: u16) -> Option<Subtype> {
        let (as4, local, add_path) = match number {
            1 => (false, false, false),
            4 => (true, false, false),
            6 => (false, true, false),
            7 => (true, true, false),
            8 => (false, false, true),
            9 => (true, false, true),
            10 => (false, true, true),
            11 => (true, true, true),
            _ => return None,
        };
        Some(Subtype { as4, add_path, local })
    }
}

/// Addresses of peer and collector, then the message.
fn bgp4mp(input: &[u8], as4: bool) -> IResult<&[u8], (String, String)> {
    let as_len = if as4 { 4usize } else { 2 };
    // Peer AS, local AS, interface index.
    let (input, _) = take(2 * as_len + 2)(input)?;
    let (input, afi) = be_u16(input)?;
    if afi == 2 {
        let address = || take(16usize).map(|octets: &[u8]| address6(octets));
        (address(), address()).parse(input)
    } else {
        let address = || be_u32.map(|bits| Ipv4Addr::from_bits(bits).to_string());
        (address(), address()).parse(input)
    }
}

fn address6(octets: &[u8]) -> String {
    <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).to_string()).unwrap_or_default()
}

/// The type of a record that was refused, if all of it was read: then the next one stands behind it.
fn whole_record(octets: &[u8]) -> Option<u16> {
    let header = |input| (be_u32, be_u16, be_u16, length_data(be_u32)).parse(input);
    let parsed: IResult<&[u8], (u32, u16, u16, &[u8])> = header(octets);
    parsed.ok().map(|(_, (_, kind, ..))| kind)
}

fn time(header: &CommonHeader) -> f64 {
    f64::from(header.timestamp) + f64::from(header.microsecond_timestamp.unwrap_or(0)) / 1e6
}

/// Writes a line for each message of each BGP4MP record.
pub(crate) fn decode(input: &mut dyn Read, ctx: &Context, printer: &mut Printer<'_>) -> io::Result<()> {
    let mut input = Unmarked { inner: input, failed: None };
    loop {
        let record = match chunk_mrt_record(&mut input) {
            Ok(record) => record,
            Err(error) => {
                if let Some(failed) = input.failed {
                    return Err(failed);
                }
                if matches!(error.error, ParserError::EofExpected) {
                    return Ok(());
                }
                let kind = error.bytes.as_deref().and_then(whole_record);
                if kind.is_some_and(|kind| EntryType::try_from(kind).is_err()) {
                    printer.summary.other_records += 1;
                    continue;
                }
                let text = error.error.to_string();
                let text = format!("MRT record: {}", text.strip_prefix("Error: ").unwrap_or(&text));
                printer.print(&view::broken_off("invalid", 0, text, &MessagePlace::default()))?;
                if kind.is_some() {
                    continue;
                }
                return Ok(());
            }
        };
        let header = &record.common_header;
        let subtype = match header.entry_type {
            EntryType::BGP4MP | EntryType::BGP4MP_ET => Subtype::of(header.entry_subtype),
            EntryType::TABLE_DUMP | EntryType::TABLE_DUMP_V2 => {
                printer.summary.table_dumps += 1;
                continue;
            }
            _ => None,
        };
        let Some(subtype) = subtype else {
            printer.summary.other_records += 1;
            continue;
        };
        let mut place = MessagePlace { time: Some(time(header)), ..MessagePlace::default() };
        let Ok((message, (peer, local))) = bgp4mp(&record.message_bytes, subtype.as4) else {
            let text = "MRT record ends before its message".to_owned();
            printer.print(&view::broken_off("invalid", 0, text, &place))?;
            continue;
        };
        let (source, destination) = if subtype.local { (local, peer) } else { (peer, local) };
        place.source = Some(source);
        place.destination = Some(destination);
        let mut ctx = ctx.clone();
        ctx.as4 &= subtype.as4;
        if subtype.add_path {
            ctx.add_path_rx = AfiSet::BOTH;
        }
        for (_, piece) in Pieces::new(message, message.is_empty(), &ctx) {
            printer.print(&piece.line(&ctx, &printer.checks, &place))?;
        }
    }
}

/// Keeps a real read error apart from a record that ends too early.
struct Unmarked<'r> {
    inner: &'r mut dyn Read,
    failed: Option<io::Error>,
}

impl Read for Unmarked<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buf) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
            other => other,
        }
    }
}
