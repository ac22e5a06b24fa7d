//! The command line as a stranger meets it: the program is run, and what it prints and returns is looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Output};

const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/clusters/three-nodes");

/// Runs the program with these variables and no others.
fn run(args: &[&str], vars: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_calico-bgpd"))
        .args(args)
        .env_clear()
        .envs(vars.iter().copied())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn on_files<'a>(node: &'a str, path: &'a str) -> [(&'a str, &'a str); 3] {
    [("NODENAME", node), ("DATASTORE_TYPE", "file"), ("DATASTORE_PATH", path)]
}

#[test]
fn the_version_is_one_line() {
    let output = run(&["--version"], &[]);
    assert!(output.status.success());
    assert_eq!(stdout(&output), format!("calico-bgpd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_help_names_every_command_every_variable_and_the_exit_statuses() {
    let text = stdout(&run(&["--help"], &[]));
    for word in [
        "run",
        "check",
        "intent",
        "evaluate",
        "diff",
        "CALICO_K8S_NODE_REF",
        "CALICO_ADVERTISE_CLUSTER_IPS",
        "show",
        "refresh",
        "NODENAME",
        "DATASTORE_TYPE",
        "DATASTORE_PATH",
        "ETCD_ENDPOINTS",
        "CALICO_ROUTER_ID",
        "CALICO_BGPD_RUN_DIR",
        "CALICO_BGPD_CLUSTER_RELEASE",
        "ETCD_USERNAME",
        "CALICO_NODENAME_FILE",
        "CALICO_NETWORKING_BACKEND",
        "CALICO_BGPD_STRICT",
        "CALICO_BGPD_MISSING_TUNNEL",
        "BGP_LOGSEVERITYSCREEN",
        "NAMESPACE",
        "USE_POD_CIDR",
        "Exit status",
    ] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
}

#[test]
fn a_wrong_setting_is_one_line_that_names_the_variable_and_exits_with_2() {
    let (node, path) = ("node-1", CLUSTER);
    for (name, value) in [
        ("CALICO_BGPD_CLUSTER_RELEASE", "latest"),
        ("CALICO_ROUTER_ID", "nonsense"),
        ("USE_POD_CIDR", "maybe"),
        ("DATASTORE_TYPE", "floppy"),
    ] {
        let mut vars = on_files(node, path).to_vec();
        vars.retain(|(known, _)| *known != name);
        vars.push((name, value));
        let output = run(&["intent"], &vars);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {text}");
        assert!(text.contains(name) && text.trim_end().lines().count() == 1, "{text}");
    }
}

#[test]
fn a_kubernetes_that_nothing_says_the_place_of_is_one_line() {
    let output = run(&["run"], &[("NODENAME", "a"), ("DATASTORE_TYPE", "kubernetes")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("KUBERNETES_SERVICE_HOST"), "{}", stderr(&output));
    assert_eq!(stderr(&output).trim_end().lines().count(), 1);
}

#[test]
fn wrong_arguments_exit_with_2() {
    assert_eq!(run(&["fly"], &[]).status.code(), Some(2));
    assert_eq!(run(&["intent", "--timeout", "0"], &[]).status.code(), Some(2));
    assert_eq!(run(&[], &[]).status.code(), Some(2));
}

#[test]
fn the_intent_is_printed_for_people_and_for_programs() {
    let vars = on_files("node-1", CLUSTER);
    let text = run(&["intent"], &vars);
    assert!(text.status.success(), "{}", stderr(&text));
    assert!(stdout(&text).contains("Mesh_10_0_0_2"), "{}", stdout(&text));
    let json = run(&["intent", "--json"], &vars);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let names: Vec<&str> =
        json["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Mesh_10_0_0_2", "Mesh_10_0_0_3", "Mesh_fd00__2", "Mesh_fd00__3"]);
}

#[test]
fn the_intent_is_printed_as_bird_would_have_it_family_by_family() {
    let vars = on_files("node-1", CLUSTER);
    for (format, neighbour) in
        [("bird", "neighbor 10.0.0.2 port 179"), ("bird6", "neighbor fd00::2 port 179")]
    {
        let text = run(&["intent", "--format", format], &vars);
        assert!(text.status.success(), "{}", stderr(&text));
        assert_eq!(stdout(&text).matches("neighbor ").count(), 2, "{format}");
        assert!(stdout(&text).contains(neighbour), "{}", stdout(&text));
    }
    assert_eq!(run(&["intent", "--format", "bird", "--json"], &vars).status.code(), Some(2));
}

#[test]
fn a_flag_wins_over_its_variable() {
    let mut vars = on_files("nobody", "/nowhere").to_vec();
    vars.push(("CALICO_DATASTORE_PATH", "/nowhere/either"));
    let args = ["intent", "--nodename", "node-2", "--datastore-path", CLUSTER];
    let output = run(&args, &vars);
    assert!(stdout(&output).contains("Node node-2"), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn a_node_name_without_a_node_fails_and_says_so() {
    let vars = on_files("nobody", CLUSTER);
    for command in ["intent", "check"] {
        let output = run(&[command], &vars);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains("Node/nobody"), "{command}: {text}");
    }
}

#[test]
fn diff_says_what_another_folder_would_change_for_sessions_routes_and_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(CLUSTER).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let newer = folder.path().to_str().unwrap();
    let name = [("NODENAME", "node-1")];
    let same = run(&["diff", CLUSTER, newer], &name);
    assert_eq!((same.status.code(), stdout(&same).as_str()), (Some(0), "nothing would change\n"));
    let peer = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: tor}\n\
                spec: {peerIP: 192.0.2.251, asNumber: 65010}\n";
    std::fs::write(folder.path().join("tor.yaml"), peer).unwrap();
    let more = run(&["diff", CLUSTER, newer], &name);
    assert!(stdout(&more).contains("session Global_192_0_2_251 (192.0.2.251): added\n"), "{}", stdout(&more));
    // With one folder the other side is the datastore.
    let vars = on_files("node-1", newer);
    let less: serde_json::Value =
        serde_json::from_str(&stdout(&run(&["diff", CLUSTER, "--json"], &vars))).unwrap();
    assert_eq!(less["sessions"][0]["effect"], "removed", "{less}");
}

#[test]
fn check_passes_on_a_sound_cluster_and_fails_on_a_broken_one() {
    let output = run(&["check"], &on_files("node-1", CLUSTER));
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));

    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(CLUSTER).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(dir.path().join("zz.yaml"), "kind: Node\n  indented: wrong\n").unwrap();
    let output = run(&["check", "--json"], &on_files("node-1", dir.path().to_str().unwrap()));
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert!(json["problems"][0]["resource"].as_str().unwrap().contains("zz.yaml"), "{json}");
}

#[test]
fn a_datastore_that_cannot_be_read_is_named() {
    let output = run(&["check"], &on_files("node-1", "/nowhere/at/all"));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere/at/all"), "{}", stderr(&output));
}

#[test]
fn an_etcd_that_does_not_answer_is_given_up_after_the_timeout() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let output =
        run(&["intent", "--timeout", "1"], &[("NODENAME", "a"), ("ETCD_ENDPOINTS", endpoint.as_str())]);
    assert_eq!(output.status.code(), Some(1));
    let wanted = format!("calico-bgpd: etcd at {endpoint} did not answer within 1 s\n");
    assert_eq!(stderr(&output), wanted);
}

#[test]
fn show_without_a_daemon_names_the_socket_it_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().to_str().unwrap();
    let output = run(&["show", "peers"], &[("CALICO_BGPD_RUN_DIR", run_dir)]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(run_dir) && text.contains("calico-bgpd.sock"), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
}

#[test]
fn a_node_without_bgp_is_no_error() {
    let mut vars = on_files("node-1", CLUSTER).to_vec();
    vars.push(("CALICO_NETWORKING_BACKEND", "vxlan"));
    let output = run(&["run"], &vars);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("CALICO_NETWORKING_BACKEND=vxlan"), "{}", stdout(&output));
}

#[test]
fn without_the_capability_to_write_routes_the_daemon_says_so_and_ends() {
    assert!(is_root(), "this test needs root: there is nothing to take away from anybody else");
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("/usr/bin/setpriv")
        .args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"])
        .arg(env!("CARGO_BIN_EXE_calico-bgpd"))
        .args(["run", "--run-dir", dir.path().to_str().unwrap()])
        .env_clear()
        .envs(on_files("node-1", CLUSTER))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("CAP_NET_ADMIN"), "{}", stderr(&output));
    assert_eq!(stderr(&output).trim_end().lines().count(), 1, "{}", stderr(&output));
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

#[test]
fn evaluate_says_what_becomes_of_a_route_and_by_which_rule() {
    let output = run(
        &["evaluate", "198.51.100.0/24", "--to", "Mesh_10_0_0_2", "--trace"],
        &on_files("node-1", CLUSTER),
    );
    assert_eq!(stderr(&output), "");
    let text = stdout(&output);
    assert!(text.contains("  export to Mesh_10_0_0_2: reject\n"), "{text}");
    assert!(text.contains("    reject: no rule decided\n"), "{text}");
    assert!(text.contains("  kernel: accept\n"), "{text}");
    let output = run(&["evaluate", "10.0.0.0/8", "--to", "10.9.9.9"], &on_files("node-1", CLUSTER));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no session has the name or address \"10.9.9.9\""),
        "{}",
        stderr(&output)
    );
}
