//! A network namespace for each test. The test runs itself again inside it (`ip netns exec`), so
//! that all of its threads and sockets are there. The one inside says that it has run to its end: a name that no test
//! has would run none of them and succeed. The namespace is removed when the test ends, however it ends. Needs root
//! and iproute2.

use std::process::{Command, Stdio};

/// Where the one inside writes that it has run to its end.
const INSIDE: &str = "CALICO_BGPD_TEST_NAMESPACE";

const DONE: &str = "done";

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Runs `body` inside a new namespace with `e0` (10.99.0.1/24, fd99::1/64) and `e1` (10.98.0.1/24, fd98::1/64), each
/// one end of a veth pair.
pub fn in_namespace<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    let Some(word) = std::env::var_os(INSIDE) else {
        let name = format!("cbt-{}-{:x}", std::process::id(), fold(test));
        let made = Command::new("ip").args(["netns", "add", &name]).output().expect("iproute2 is needed");
        assert!(
            made.status.success(),
            "this test needs root, to make network namespaces: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let namespace = Namespace(name);
        let word = tempfile::NamedTempFile::new().unwrap();
        let status = Command::new("ip")
            .args(["netns", "exec", &namespace.0])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(INSIDE, word.path())
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "failed inside the namespace, see above");
        let said = std::fs::read_to_string(word.path()).unwrap();
        assert_eq!(said, DONE, "no test of the name {test} has run inside the namespace");
        return;
    };
    ip("link set lo up");
    for (n, dev) in [(99, "e0"), (98, "e1")] {
        ip(&format!("link add {dev} type veth peer name {dev}p"));
        ip(&format!("link set {dev}p up"));
        ip(&format!("link set {dev} up"));
        ip(&format!("addr add 10.{n}.0.1/24 dev {dev}"));
        ip(&format!("-6 addr add fd{n}::1/64 dev {dev} nodad"));
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body());
    std::fs::write(word, DONE).unwrap();
}

fn fold(text: &str) -> u32 {
    text.bytes().fold(7, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

/// Runs `ip` and gives what it prints.
#[track_caller]
pub fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
