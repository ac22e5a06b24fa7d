//! `calico-bgpd decode` as a command: exit statuses, standard output and standard error.
#![cfg(feature = "capture")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn decode(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_calico-bgpd"))
        .arg("decode")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The command may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap()
}

const KEEPALIVE: &str = "ffffffffffffffffffffffffffffffff001304";

#[test]
fn whatever_the_octets_are_the_exit_status_is_0() {
    for input in [&b""[..], b"\0", b"no BGP at all", &[0xff; 100], &[0xa1, 0xb2, 0xc3, 0xd4, 0, 0]] {
        for args in [&[][..], &["--hex"], &["-"], &["--hex", "-"]] {
            let output = decode(args, input);
            assert_eq!(output.status.code(), Some(0), "{args:?} {input:?}: {}", text(&output.stderr));
            assert_eq!(text(&output.stderr), "");
        }
    }
}

#[test]
fn a_message_is_one_line() {
    let output = decode(&["--hex"], KEEPALIVE.as_bytes());
    assert_eq!(
        text(&output.stdout),
        "{\"type\":\"KEEPALIVE\",\"outcome\":\"accept\",\"errors\":[],\"line\":1}\n"
    );
}

#[test]
fn a_file_is_read_as_standard_input_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("messages");
    std::fs::write(&path, format!("{KEEPALIVE}\n{KEEPALIVE}\n")).unwrap();
    let output = decode(&["--hex", path.to_str().unwrap()], b"");
    assert_eq!(text(&output.stdout).lines().count(), 2);
    let missing = decode(&["/nonexistent/messages"], b"");
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).starts_with("calico-bgpd: cannot open /nonexistent/messages: "));
}

/// 200,000 messages, described together, would take several times the memory that is allowed here.
#[test]
fn memory_is_bounded_by_the_octets_of_an_input_and_not_by_what_is_said_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("messages");
    let keepalive = [&[0xff; 16][..], &[0, 19, 4]].concat();
    let raw = keepalive.repeat(200_000);
    let line = KEEPALIVE.repeat(200_000).into_bytes();
    // Raw IP, one connection, 1,000 messages a packet.
    let mut capture =
        vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 101, 0, 0, 0];
    for seq in 0..200 {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(40000, 179, seq * 19_000, 1000)
            .write(&mut packet, &keepalive.repeat(1000))
            .unwrap();
        let len = (packet.len() as u32).to_le_bytes();
        capture.extend([&[0; 8][..], &len, &len, &packet].concat());
    }
    for (what, args, input) in [("raw", "", raw), ("hexadecimal", "--hex", line), ("capture", "", capture)] {
        std::fs::write(&path, input).unwrap();
        // The address space is what can be limited; the program itself takes a good part of it.
        let script = format!("ulimit -v 90000; exec \"$0\" decode {args} \"$1\" | tail -n 1");
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", &script, env!("CARGO_BIN_EXE_calico-bgpd")])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{what}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("\"KEEPALIVE\",\"outcome\":\"accept\""), "{what}");
    }
}

#[test]
fn wrong_arguments_exit_with_2() {
    for args in
        [&["--peer-type", "none"][..], &["--peer-as", "x"], &["--local-id", "1.2.3"], &["--port", "0x"]]
    {
        assert_eq!(decode(args, b"").status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn skipped_table_dumps_are_told_on_standard_error() {
    let record = [&[0x65, 0, 0, 0, 0, 13, 0, 1, 0, 0, 0, 8][..], &[0; 8]].concat();
    let output = decode(&[], &record.repeat(3));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(text(&output.stderr), "calico-bgpd: 3 table dump records skipped\n");
}
