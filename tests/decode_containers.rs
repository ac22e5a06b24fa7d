//! Captures and MRT through `calico-bgpd decode`: streams are put together, records are cut, damage is said.
#![cfg(feature = "capture")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use calico_bgpd::capture::{DecodeArgs, Summary, run};
use clap::Parser;
use etherparse::PacketBuilder;
use serde_json::Value;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: DecodeArgs,
}

fn decode_all(args: &[&str], input: &[u8]) -> (Vec<Value>, Summary) {
    let args = Command::parse_from([&["decode"], args].concat()).args;
    let mut out = Vec::new();
    let summary = run(&args, &mut &input[..], &mut out).unwrap();
    let lines: Vec<Value> = out
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(summary.lines, lines.len() as u64);
    (lines, summary)
}

fn decode(args: &[&str], input: &[u8]) -> Vec<Value> {
    decode_all(args, input).0
}

/// Type and outcome of each line, and the first announced prefix.
fn brief(lines: &[Value]) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            let prefix = line["announced"][0]["prefix"].as_str().unwrap_or_default();
            format!("{} {} {prefix}", line["type"].as_str().unwrap(), line["outcome"].as_str().unwrap())
                .trim_end()
                .to_owned()
        })
        .collect()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend((19 + body.len() as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

/// Announces 10.`n`.0.0/16 from AS 65001.
fn update(n: u8) -> Vec<u8> {
    message(
        2,
        &[
            &[0, 0, 0, 20][..],
            &[0x40, 1, 1, 0],
            &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9],
            &[0x40, 3, 4, 10, 0, 0, 1],
            &[16, 10, n],
        ]
        .concat(),
    )
}

const KEEPALIVE: &str = "KEEPALIVE accept";

#[derive(Clone, Copy)]
enum Side {
    Dialler,
    Listener,
}

/// One packet between 10.0.0.1:40000 and 10.0.0.2:179, Ethernet header and all.
fn packet(side: Side, seq: u32, syn: bool, payload: &[u8]) -> Vec<u8> {
    let (from, to, from_port, to_port) = match side {
        Side::Dialler => ([10, 0, 0, 1], [10, 0, 0, 2], 40000, 179),
        Side::Listener => ([10, 0, 0, 2], [10, 0, 0, 1], 179, 40000),
    };
    let builder =
        PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(from, to, 64).tcp(from_port, to_port, seq, 1000);
    let builder = if syn { builder.syn() } else { builder };
    let mut out = Vec::new();
    builder.write(&mut out, payload).unwrap();
    // Short frames are padded on the wire.
    out.resize(out.len().max(60), 0);
    out
}

fn pcap(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(0xa1b2_c3d4u32.to_le_bytes());
    out.extend(2u16.to_le_bytes());
    out.extend(4u16.to_le_bytes());
    out.extend([0; 8]);
    out.extend(65535u32.to_le_bytes());
    out.extend(link.to_le_bytes());
    for (at, packet) in packets.iter().enumerate() {
        let len = packet.len() as u32;
        for word in [1_700_000_000 + at as u32, 500_000, len, len] {
            out.extend(word.to_le_bytes());
        }
        out.extend(packet);
    }
    out
}

#[test]
fn a_message_in_several_segments_and_several_in_one_are_taken_apart() {
    let stream = [message(4, b""), update(1), message(4, b""), update(2)].concat();
    for cut in 1..stream.len() {
        let file = pcap(
            1,
            &[
                packet(Side::Dialler, 99, true, b""),
                packet(Side::Dialler, 100, false, &stream[..cut]),
                packet(Side::Dialler, 100 + cut as u32, false, &stream[cut..]),
            ],
        );
        assert_eq!(
            brief(&decode(&[], &file)),
            [KEEPALIVE, "UPDATE accept 10.1.0.0/16", KEEPALIVE, "UPDATE accept 10.2.0.0/16"],
            "{cut}"
        );
    }
}

#[test]
fn segments_are_put_in_order_of_their_numbers_and_what_was_sent_twice_counts_once() {
    let stream = [update(1), update(2), update(3)].concat();
    let seq = |at: usize| u32::MAX.wrapping_sub(50).wrapping_add(at as u32);
    let part = |from: usize, to: usize| packet(Side::Dialler, seq(from), false, &stream[from..to]);
    let wanted = ["UPDATE accept 10.1.0.0/16", "UPDATE accept 10.2.0.0/16", "UPDATE accept 10.3.0.0/16"];
    let syn = packet(Side::Dialler, seq(0).wrapping_sub(1), true, b"");
    let disordered = [part(100, 138), part(30, 100), part(30, 60), part(0, 50), part(0, 30)];
    assert_eq!(stream.len(), 138);
    for packets in [
        [&[syn.clone()][..], &disordered].concat(),
        disordered.to_vec(),
        // The SYN itself out of order, and once more.
        [&disordered[..2], std::slice::from_ref(&syn), &disordered[2..], std::slice::from_ref(&syn)].concat(),
    ] {
        assert_eq!(brief(&decode(&[], &pcap(1, &packets))), wanted);
    }
}

#[test]
fn each_direction_is_a_stream_of_its_own_and_says_who_sent_it_when() {
    let file = pcap(
        1,
        &[
            packet(Side::Dialler, 100, false, &update(1)[..20]),
            packet(Side::Listener, 100, false, &update(2)),
            packet(Side::Dialler, 120, false, &update(1)[20..]),
        ],
    );
    let lines = decode(&[], &file);
    assert_eq!(brief(&lines), ["UPDATE accept 10.2.0.0/16", "UPDATE accept 10.1.0.0/16"]);
    assert_eq!(lines[0]["source"], "10.0.0.2:179");
    assert_eq!(lines[0]["destination"], "10.0.0.1:40000");
    assert_eq!(lines[1]["source"], "10.0.0.1:40000");
    assert_eq!(lines[0]["time"], 1_700_000_001.5);
    assert_eq!(lines[1]["time"], 1_700_000_002.5);
}

#[test]
fn a_second_connection_with_the_same_ports_is_a_new_stream() {
    let file = pcap(
        1,
        &[
            packet(Side::Dialler, 99, true, b""),
            packet(Side::Dialler, 100, false, &update(1)[..30]),
            packet(Side::Dialler, 5_000_000, true, b""),
            packet(Side::Dialler, 5_000_001, false, &update(2)),
        ],
    );
    assert_eq!(brief(&decode(&[], &file)), ["UPDATE incomplete", "UPDATE accept 10.2.0.0/16"]);
}

#[test]
fn what_was_not_captured_is_said_and_decoding_goes_on_behind_it() {
    let stream = [update(1), update(2), update(3)].concat();
    let one = |from: usize, to: usize| packet(Side::Dialler, 100 + from as u32, false, &stream[from..to]);
    // Half of the second message is lost.
    assert_eq!(
        brief(&decode(&[], &pcap(1, &[one(0, 70), one(80, 138)]))),
        ["UPDATE accept 10.1.0.0/16", "UPDATE incomplete", "UPDATE accept 10.3.0.0/16"]
    );
    // All of it is lost.
    let lines = decode(&[], &pcap(1, &[one(0, 46), one(92, 138)]));
    assert_eq!(
        brief(&lines),
        ["UPDATE accept 10.1.0.0/16", "invalid incomplete", "UPDATE accept 10.3.0.0/16"]
    );
    assert_eq!(lines[1]["errors"][0]["text"], "46 octets of the stream are not in the capture");
    // The beginning is lost.
    let lines = decode(&[], &pcap(1, &[packet(Side::Dialler, 99, true, b""), one(46, 138)]));
    assert_eq!(
        brief(&lines),
        ["invalid incomplete", "UPDATE accept 10.2.0.0/16", "UPDATE accept 10.3.0.0/16"]
    );
}

#[test]
fn a_capture_that_begins_inside_a_message_goes_on_at_the_next() {
    let stream = [update(1), update(2)].concat();
    for cut in 1..46 {
        let file = pcap(1, &[packet(Side::Dialler, 100, false, &stream[cut..])]);
        let lines = decode(&[], &file);
        assert_eq!(brief(&lines), ["invalid incomplete", "UPDATE accept 10.2.0.0/16"], "{cut}");
        assert_eq!(lines[0]["source"], "10.0.0.1:40000");
        // With its SYN, the same is the sender's fault.
        let syn = packet(Side::Dialler, 99, true, b"");
        let file = pcap(1, &[syn, packet(Side::Dialler, 100, false, &stream[cut..])]);
        assert_eq!(brief(&decode(&[], &file)), ["invalid session-reset"], "{cut}");
    }
    // Nothing to go on with.
    let file = pcap(1, &[packet(Side::Dialler, 100, false, b"GET / HTTP/1.1\r\n\r\n")]);
    assert_eq!(brief(&decode(&[], &file)), ["invalid session-reset"]);
}

#[test]
fn a_framing_error_ends_its_stream_only() {
    let file = pcap(
        1,
        &[
            packet(Side::Dialler, 100, false, &[&update(1)[..], b"garbage", &update(2)].concat()),
            packet(Side::Listener, 100, false, &update(3)),
        ],
    );
    assert_eq!(
        brief(&decode(&[], &file)),
        ["UPDATE accept 10.1.0.0/16", "invalid session-reset", "UPDATE accept 10.3.0.0/16"]
    );
}

#[test]
fn opens_in_a_capture_do_not_change_how_messages_are_read() {
    // No capability 65 on either side, and yet AS_PATH is read with four octets.
    let open = message(1, &[4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 0]);
    let file = pcap(
        1,
        &[
            packet(Side::Dialler, 100, false, &[open.clone(), update(1)].concat()),
            packet(Side::Listener, 100, false, &open),
        ],
    );
    let lines = decode(&[], &file);
    assert_eq!(brief(&lines), ["OPEN accept", "UPDATE accept 10.1.0.0/16", "OPEN accept"]);
    assert_eq!(lines[1]["attributes"]["asPath"], serde_json::json!([65001]));
    assert_eq!(brief(&decode(&["--as2"], &file))[1], "UPDATE treat-as-withdraw");
}

#[test]
fn only_the_port_of_bgp_is_looked_at() {
    let file = pcap(1, &[packet(Side::Dialler, 100, false, &update(1))]);
    assert_eq!(decode(&["--port", "1179"], &file), Vec::<Value>::new());
    assert_eq!(decode(&["--port", "40000"], &file).len(), 1);
}

#[test]
fn every_usual_link_type_is_known() {
    let ethernet = packet(Side::Dialler, 100, false, &update(1));
    let ip = &ethernet[14..];
    let ip6 = {
        let mut out = Vec::new();
        PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)
            .tcp(179, 40000, 1, 1)
            .write(&mut out, &update(1))
            .unwrap();
        out
    };
    let vlan = [&ethernet[..12], &[0x81, 0, 0, 7], &ethernet[12..]].concat();
    let cooked2 = |kind: [u8; 2], packet: &[u8]| [&kind[..], &[0; 18], packet].concat();
    for (link, packet) in [
        (1, ethernet.clone()),
        (1, vlan),
        (101, ip.to_vec()),
        (101, ip6.clone()),
        (228, ip.to_vec()),
        (229, ip6.clone()),
        (0, [&[2, 0, 0, 0], ip].concat()),
        (108, [&[0, 0, 0, 2], ip].concat()),
        (113, [&[0; 14][..], &[8, 0], ip].concat()),
        (276, cooked2([8, 0], ip)),
        (276, cooked2([0x86, 0xdd], &ip6)),
    ] {
        assert_eq!(brief(&decode(&[], &pcap(link, &[packet]))), ["UPDATE accept 10.1.0.0/16"], "{link}");
    }
}

#[test]
fn pcapng_and_the_other_byte_order_are_read_as_well() {
    let data = packet(Side::Dialler, 100, false, &update(1));
    // The header in big endian with nanoseconds.
    let mut big = Vec::new();
    big.extend(0xa1b2_3c4du32.to_be_bytes());
    big.extend([0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 1]);
    for word in [1_700_000_000, 250_000_000, data.len() as u32, data.len() as u32] {
        big.extend(word.to_be_bytes());
    }
    big.extend(&data);
    let lines = decode(&[], &big);
    assert_eq!(brief(&lines), ["UPDATE accept 10.1.0.0/16"]);
    assert_eq!(lines[0]["time"], 1_700_000_000.25);

    let block = |kind: u32, body: &[u8]| {
        let len = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    };
    let mut enhanced = Vec::new();
    let micros = 1_700_000_000_750_000u64;
    for word in [0, (micros >> 32) as u32, micros as u32, data.len() as u32, data.len() as u32] {
        enhanced.extend(word.to_le_bytes());
    }
    enhanced.extend(&data);
    enhanced.resize(enhanced.len().next_multiple_of(4), 0);
    let file = [
        block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
        block(1, &[1, 0, 0, 0, 0, 0, 0, 0]),
        block(6, &enhanced),
    ]
    .concat();
    let lines = decode(&[], &file);
    assert_eq!(brief(&lines), ["UPDATE accept 10.1.0.0/16"]);
    assert_eq!(lines[0]["time"], 1_700_000_000.75);
}

#[test]
fn time_stamps_of_a_capture_may_count_in_powers_of_two_as_well_as_of_ten() {
    let data = packet(Side::Dialler, 100, false, &update(1));
    let block = |kind: u32, body: &[u8]| {
        let len = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    };
    for (resolution, ticks) in
        [(0x8a, 1000 * 1024 + 512), (9, 1_000_500_000_000u64), (1, 10_005), (0xa0, 1000 << 32 | 1 << 31)]
    {
        let mut enhanced = Vec::new();
        for word in [0, (ticks >> 32) as u32, ticks as u32, data.len() as u32, data.len() as u32] {
            enhanced.extend(word.to_le_bytes());
        }
        enhanced.extend(&data);
        enhanced.resize(enhanced.len().next_multiple_of(4), 0);
        let file = [
            block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
            block(1, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0]),
            block(6, &enhanced),
        ]
        .concat();
        assert_eq!(decode(&[], &file)[0]["time"], 1000.5, "{resolution:#x}");
    }
}

#[test]
fn a_frame_check_sequence_behind_the_packets_does_not_hide_the_link_type() {
    let data = [packet(Side::Dialler, 100, false, &update(1)), vec![1, 2, 3, 4]].concat();
    assert_eq!(brief(&decode(&[], &pcap(0x5400_0001, &[data]))), ["UPDATE accept 10.1.0.0/16"]);
}

#[test]
fn packets_of_a_link_type_that_is_not_read_are_counted() {
    let data = packet(Side::Dialler, 100, false, &update(1));
    let (lines, summary) = decode_all(&[], &pcap(127, &[data.clone(), data]));
    assert_eq!((lines.len(), summary.other_links), (0, 2));
    assert_eq!(summary.to_string(), "2 packets of a link type that is not read skipped");
}

#[test]
fn a_capture_that_breaks_off_gives_what_it_has_and_says_so() {
    let file = pcap(
        1,
        &[packet(Side::Dialler, 100, false, &update(1)), packet(Side::Dialler, 146, false, &update(2))],
    );
    for cut in [file.len() - 1, file.len() - 100] {
        let lines = decode(&[], &file[..cut]);
        assert_eq!(brief(&lines), ["UPDATE accept 10.1.0.0/16", "invalid incomplete"], "{cut}");
    }
    for cut in 1..24 {
        assert!(decode(&[], &file[..cut]).len() <= 1);
    }
}

/// An MRT record of BGP4MP between two IPv4 addresses.
fn mrt(kind: u16, subtype: u16, as4: bool, message: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    if kind == 17 {
        body.extend(250_000u32.to_be_bytes());
    }
    for asn in [65001u32, 65002] {
        body.extend(&asn.to_be_bytes()[if as4 { 0 } else { 2 }..]);
    }
    body.extend([0, 0, 0, 1, 192, 0, 2, 1, 192, 0, 2, 2]);
    body.extend(message);
    record(kind, subtype, &body)
}

fn record(kind: u16, subtype: u16, body: &[u8]) -> Vec<u8> {
    let mut out = 1_700_000_000u32.to_be_bytes().to_vec();
    out.extend(kind.to_be_bytes());
    out.extend(subtype.to_be_bytes());
    out.extend((body.len() as u32).to_be_bytes());
    out.extend(body);
    out
}

/// As [`update`], with two-octet AS numbers.
fn update_as2(n: u8) -> Vec<u8> {
    message(
        2,
        &[
            &[0, 0, 0, 18][..],
            &[0x40, 1, 1, 0],
            &[0x40, 2, 4, 2, 1, 0xfd, 0xe9],
            &[0x40, 3, 4, 10, 0, 0, 1],
            &[16, 10, n],
        ]
        .concat(),
    )
}

#[test]
fn the_subtype_of_a_record_says_how_its_message_is_coded() {
    let with_id = |update: Vec<u8>| {
        let (head, prefix) = update[19..].split_at(update.len() - 19 - 3);
        message(2, &[head, &[0, 0, 0, 7], prefix].concat())
    };
    let file = [
        mrt(16, 4, true, &update(1)),
        mrt(16, 1, false, &update_as2(2)),
        mrt(17, 4, true, &update(3)),
        mrt(16, 6, false, &update_as2(4)),
        mrt(16, 7, true, &update(5)),
        mrt(16, 8, false, &with_id(update_as2(6))),
        mrt(16, 9, true, &with_id(update(7))),
        mrt(16, 10, false, &with_id(update_as2(8))),
        mrt(16, 11, true, &with_id(update(9))),
    ]
    .concat();
    let lines = decode(&[], &file);
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(brief(std::slice::from_ref(line)), [format!("UPDATE accept 10.{}.0.0/16", at + 1)]);
        assert_eq!(line["attributes"]["asPath"], serde_json::json!([65001]));
        let id = if at < 5 { Value::Null } else { 7.into() };
        assert_eq!(line["announced"][0]["pathId"], id, "{line}");
    }
    assert_eq!(lines.len(), 9);
    assert_eq!((&lines[0]["source"], &lines[0]["destination"]), (&"192.0.2.1".into(), &"192.0.2.2".into()));
    // Sent by the collector.
    assert_eq!((&lines[3]["source"], &lines[3]["destination"]), (&"192.0.2.2".into(), &"192.0.2.1".into()));
    assert_eq!((&lines[0]["time"], &lines[2]["time"]), (&1_700_000_000.0.into(), &1_700_000_000.25.into()));
}

#[test]
fn table_dumps_and_state_changes_are_skipped_and_counted() {
    let file = [
        record(13, 1, &[0; 8]),
        record(13, 2, &[0; 30]),
        record(12, 1, &[0; 40]),
        mrt(16, 5, true, &[0, 1, 0, 6]),
        mrt(16, 4, true, &update(1)),
        record(11, 0, &[1, 2, 3]),
    ]
    .concat();
    let (lines, summary) = decode_all(&[], &file);
    assert_eq!(brief(&lines), ["UPDATE accept 10.1.0.0/16"]);
    assert_eq!((summary.table_dumps, summary.other_records), (3, 2));
    assert_eq!(
        summary.to_string(),
        "3 table dump records skipped, 2 MRT records without a BGP message skipped"
    );
}

#[test]
fn damage_in_one_record_does_not_hide_the_next() {
    let file = [
        mrt(16, 4, true, &update(1)[..30]),
        mrt(16, 4, true, b""),
        record(16, 4, &[0; 7]),
        mrt(16, 4, true, &[&update(2)[..], b"surplus"].concat()),
        mrt(16, 4, true, &update(3)),
    ]
    .concat();
    assert_eq!(
        brief(&decode(&[], &file)),
        [
            "UPDATE incomplete",
            "invalid incomplete",
            "invalid incomplete",
            "UPDATE accept 10.2.0.0/16",
            "invalid session-reset",
            "UPDATE accept 10.3.0.0/16"
        ]
    );
    let whole = mrt(16, 4, true, &update(1));
    for cut in 12..whole.len() {
        assert_eq!(brief(&decode(&[], &whole[..cut])), ["invalid incomplete"], "{cut}");
    }
}

#[test]
fn a_record_that_is_not_understood_does_not_hide_the_next() {
    let file = [
        mrt(16, 4, true, &update(1)),
        // A type that nobody has given out, and an extended time stamp without room for it.
        record(999, 1, &[1, 2, 3]),
        mrt(16, 4, true, &update(2)),
        record(17, 4, &[1, 2]),
        mrt(16, 4, true, &update(3)),
    ]
    .concat();
    let (lines, summary) = decode_all(&[], &file);
    let [one, two, three] =
        ["UPDATE accept 10.1.0.0/16", "UPDATE accept 10.2.0.0/16", "UPDATE accept 10.3.0.0/16"];
    assert_eq!(brief(&lines), [one, two, "invalid incomplete", three]);
    assert_eq!(summary.other_records, 1);
    // Where the next one begins is not known behind a length that no record has.
    let huge = [&record(16, 4, &[0; 7])[..8], &[0xff; 4], &mrt(16, 4, true, &update(1))[..]].concat();
    let file = [mrt(16, 4, true, &update(1)), huge].concat();
    assert_eq!(brief(&decode(&[], &file)), [one, "invalid incomplete"]);
}

#[test]
fn empty_input_is_no_message_and_no_error() {
    assert_eq!(decode(&[], b""), Vec::<Value>::new());
    assert_eq!(decode(&["--hex"], b" \n\n\t\r\n"), Vec::<Value>::new());
}

#[test]
fn a_bad_line_of_hexadecimal_is_told_and_the_next_one_read() {
    let keepalive = format!("{}001304", "ff".repeat(16));
    let text = format!("{keepalive}\nnot hex\n{keepalive}f\n FF{} 0013 04 \r\n{keepalive}", "fF ".repeat(15));
    let lines = decode(&["--hex"], text.as_bytes());
    assert_eq!(
        brief(&lines),
        [KEEPALIVE, "invalid session-reset", KEEPALIVE, "invalid incomplete", KEEPALIVE, KEEPALIVE]
    );
    assert_eq!(
        lines.iter().map(|line| line["line"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3, 3, 4, 5]
    );
}
