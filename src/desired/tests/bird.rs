//! The intent as text for BIRD 1.6. Whether BIRD takes it, and does the same, is tried by the lab `intent-as-bird`.

use super::*;

fn signed(password: &[u8]) -> World {
    let mut world = World::new();
    secret(&mut world, password);
    let from = model::SecretKeyRef { name: "bgp".into(), key: "mesh".into() };
    world.config("default", |config| config.mesh_password = Some(from));
    world
}

#[test]
fn a_session_of_the_mesh_stands_in_the_words_of_bird() {
    let mut world = World::new();
    world.pool(pool("a", "10.244.0.0/16"));
    let text = bird_text(&world.state(), Afi::Ipv4, false);
    for line in [
        "router id 10.0.0.1;",
        "listen bgp port 179;",
        "protocol bgp Mesh_10_0_0_2 {",
        "  local as 64512;",
        "  neighbor 10.0.0.2 port 179 as 64512;",
        "  multihop 64;",
        "  source address 10.0.0.1;",
        "  passive on;",
        "  if (net ~ [ 10.244.0.0/16+ ]) then {",
        "  route 10.244.1.0/26 blackhole;",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in:\n{text}");
    }
    assert!(!text.contains("fd00:"), "{text}");
    assert!(bird_text(&world.state(), Afi::Ipv6, false).contains("neighbor fd00::2 port 179 as 64512;"));
}

#[test]
fn a_password_is_printed_only_where_it_is_asked_for() {
    let state = signed(b"s3cret").state();
    let text = bird_text(&state, Afi::Ipv4, false);
    assert!(
        !text.contains("s3cret") && text.contains("  # signed: password of Secret/bgp, key mesh"),
        "{text}"
    );
    assert!(bird_text(&state, Afi::Ipv4, true).contains("  password \"s3cret\";"));
}

#[test]
fn a_session_whose_password_bird_cannot_be_given_is_disabled_and_says_so() {
    for password in [&b"a\"b"[..], b"a\nb", b"\xff"] {
        let text = bird_text(&signed(password).state(), Afi::Ipv4, true);
        assert!(
            text.contains("  disabled; # BIRD cannot be given the password of Secret/bgp, key mesh"),
            "{text}"
        );
        assert!(!text.contains("  password "), "{text}");
    }
}

#[test]
fn words_of_resources_cannot_leave_their_comment_or_string() {
    let mut world = World::new();
    world.config("default", |config| config.ignored_interfaces = vec!["eth\"; }".into(), "a\nb".into()]);
    world.change_node("node-2", |node| node.name = "two\nrouter id 1.1.1.1;".into());
    let text = bird_text(&world.state(), Afi::Ipv4, true);
    assert!(!text.lines().any(|line| line == "router id 1.1.1.1;"), "{text}");
    assert!(!text.contains("eth\""), "{text}");
}
