//! What a change of the datastore means for what runs.

use super::*;

/// States that differ in one thing each, the first being the plain one.
fn variations() -> Vec<(&'static str, DesiredState)> {
    let changed = |change: &dyn Fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        world.state()
    };
    vec![
        ("plain", World::new().state()),
        ("port", changed(&|w| w.config("node.node-2", |c| c.listen_port = Some(1790)))),
        ("peer AS", changed(&|w| w.change_node("node-2", |n| n.asn = Some(Asn(65002))))),
        ("own AS", changed(&|w| w.change_node("node-1", |n| n.asn = Some(Asn(65001))))),
        ("restart time", changed(&|w| w.config("default", |c| c.mesh_restart_time = Some(60)))),
        ("priority", changed(&|w| w.config("default", |c| c.ipv4_priority = Some(512)))),
        ("own port", changed(&|w| w.config("node.node-1", |c| c.listen_port = Some(180)))),
        ("bind mode", changed(&|w| w.config("default", |c| c.bind_mode = BindMode::NodeIp))),
        ("no mesh", changed(&|w| w.config("default", |c| c.mesh_enabled = Some(false)))),
        ("another node", changed(&|w| w.node(node("node-4", "10.0.0.4/24", "")))),
        ("another block", changed(&|w| w.block("10.244.9.0/26", AffinityState::Confirmed))),
        ("no IPv6", changed(&|w| w.node(node("node-1", "10.0.0.1/24", "")))),
        ("a problem", changed(&|w| w.config("other", |_| ()))),
    ]
}

#[test]
fn equal_states_have_an_empty_plan() {
    for (name, state) in variations() {
        assert_eq!(diff(Some(&state), &state), Plan::default(), "{name}");
    }
}

#[test]
fn a_plan_applied_to_the_old_state_gives_the_new_one() {
    for (from, old) in variations() {
        for (to, new) in variations() {
            let plan = diff(Some(&old), &new);
            let (mut peers, mut listen) = (old.peers.clone(), old.listen.clone());
            for (key, change) in &plan.peers {
                match change {
                    PeerChange::Removed => drop(peers.remove(key).unwrap()),
                    PeerChange::Added => {
                        assert!(peers.insert(key.clone(), new.peers[key].clone()).is_none())
                    }
                    PeerChange::Replaced => drop(peers.insert(key.clone(), new.peers[key].clone()).unwrap()),
                    PeerChange::Updated { next, key: rekeyed, treatment, shown } => {
                        let (peer, after) = (Arc::make_mut(peers.get_mut(key).unwrap()), &new.peers[key]);
                        if *shown {
                            peer.name = after.name.clone();
                            peer.class = after.class;
                            peer.resource = after.resource.clone();
                        }
                        if *next {
                            peer.spec.next = after.spec.next.clone();
                        }
                        if *rekeyed {
                            peer.auth = after.auth.clone();
                        }
                        if *treatment {
                            peer.treatment = after.treatment.clone();
                        }
                    }
                }
            }
            for (afi, socket) in &plan.listen {
                match socket {
                    Some(socket) => drop(listen.insert(*afi, *socket)),
                    None => drop(listen.remove(afi)),
                }
            }
            assert_eq!(peers, new.peers, "{from} to {to}");
            assert_eq!(listen, new.listen, "{from} to {to}");
            let unseen = (&old.node, &old.v4, &old.v6) == (&new.node, &new.v4, &new.v6);
            assert_eq!(plan.tables, !unseen, "{from} to {to}");
        }
    }
}

#[test]
fn what_a_change_means_for_a_session_is_decided_by_the_class_of_the_field() {
    let states: BTreeMap<&str, DesiredState> = variations().into_iter().collect();
    let change =
        |to: &str, name: &str| diff(Some(&states["plain"]), &states[to]).peers.get(&session(name)).copied();
    let updated = |next, treatment| Some(PeerChange::Updated { next, key: false, treatment, shown: false });
    assert_eq!(change("port", "10.0.0.2"), Some(PeerChange::Removed));
    let moved = SessionKey::new("10.0.0.2".parse().unwrap(), 1790);
    let plan = diff(Some(&states["plain"]), &states["port"]);
    assert_eq!(plan.peers.get(&moved), Some(&PeerChange::Added));
    assert_eq!(change("port", "10.0.0.3"), None);
    assert_eq!(change("peer AS", "10.0.0.2"), Some(PeerChange::Replaced));
    assert_eq!(change("restart time", "10.0.0.2"), updated(true, false));
    assert_eq!(change("priority", "10.0.0.2"), updated(false, true));
    assert_eq!(change("priority", "fd00::2"), None);
    assert_eq!(change("no mesh", "10.0.0.2"), Some(PeerChange::Removed));
    assert_eq!(change("another node", "10.0.0.4"), Some(PeerChange::Added));
    assert_eq!(change("a problem", "10.0.0.2"), None);
}

#[test]
fn at_the_start_everything_is_added() {
    let state = World::new().state();
    let plan = diff(None, &state);
    assert_eq!(plan.peers.len(), 4);
    assert!(plan.peers.values().all(|change| *change == PeerChange::Added));
    assert_eq!((plan.listen.len(), plan.tables), (2, true));
}

#[test]
fn whatever_asks_for_a_session_with_an_address_and_port_it_is_the_same_session() {
    let state = |change: &dyn Fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        world.state()
    };
    let global = |world: &mut World| bgp_peer(world, "tor", "192.0.2.1", |_| ());
    let of_node =
        |world: &mut World| bgp_peer(world, "a", "192.0.2.1", |peer| peer.node = Some("node-1".into()));
    let with_port = |world: &mut World| {
        bgp_peer(world, "tor", "192.0.2.1", |peer| peer.peer_ip.as_mut().unwrap().port = Some(179))
    };
    let mesh = |_: &mut World| ();
    let equal = |world: &mut World| bgp_peer(world, "two", "10.0.0.2", |peer| peer.asn = None);
    type Change<'a> = &'a dyn Fn(&mut World);
    let moves: [(Change, Change, &str, &str); 3] = [
        (&global, &of_node, "Global_192_0_2_1", "Node_192_0_2_1"),
        (&global, &with_port, "Global_192_0_2_1", "Global_192_0_2_1_port_179"),
        (&mesh, &equal, "Mesh_10_0_0_2", "Global_10_0_0_2"),
    ];
    for (from, to, before, after) in moves {
        let (old, new) = (state(from), state(to));
        let session = peer(&old, before).key.clone();
        assert_eq!(new.peers[&session].name, after);
        let plan = diff(Some(&old), &new);
        assert_eq!(plan.peers.keys().collect::<Vec<_>>(), [&session], "{before} to {after}");
        let change = plan.peers[&session];
        assert!(matches!(change, PeerChange::Updated { key: false, shown: true, .. }), "{change:?}");
        // And back.
        assert!(matches!(diff(Some(&new), &old).peers[&session], PeerChange::Updated { .. }));
    }
}

#[test]
fn a_key_that_disappears_stays_in_use_also_where_the_peering_moves_to_another_resource() {
    let from = || SecretKeyRef { name: "bgp".into(), key: "tor".into() };
    let mut world = World::new();
    bgp_peer(&mut world, "tor", "192.0.2.1", |peer| peer.password = Some(from()));
    let mut old = world.state();
    let signed = Auth::Key { from: from(), key: SecretBytes::new(b"secret".to_vec()) };
    Arc::make_mut(old.peers.get_mut(&session("192.0.2.1")).unwrap()).auth = signed.clone();
    world.snapshot.peers.clear();
    bgp_peer(&mut world, "moved", "192.0.2.1", |peer| {
        peer.node = Some("node-1".into());
        peer.password = Some(from());
    });
    let mut new = world.state();
    assert_eq!(new.peers[&session("192.0.2.1")].auth, Auth::Missing(from()));
    retain_keys(&old, &mut new);
    assert_eq!(new.peers[&session("192.0.2.1")].auth, signed);
}

#[test]
fn a_session_that_becomes_signed_is_a_new_one_and_another_key_is_not() {
    let state = |key: Option<&[u8]>| {
        let mut state = World::new().state();
        let peer = Arc::make_mut(state.peers.get_mut(&session("10.0.0.2")).unwrap());
        let from = SecretKeyRef { name: "bgp".into(), key: "mesh".into() };
        peer.auth = key.map_or(Auth::None, |key| Auth::Key { from, key: SecretBytes::new(key.to_vec()) });
        state
    };
    let change = |old, new| diff(Some(&state(old)), &state(new)).peers.get(&session("10.0.0.2")).copied();
    assert_eq!(change(None, Some(b"a")), Some(PeerChange::Replaced));
    assert_eq!(change(Some(b"a"), None), Some(PeerChange::Replaced));
    let rekeyed = PeerChange::Updated { next: false, key: true, treatment: false, shown: false };
    assert_eq!(change(Some(b"a"), Some(b"b")), Some(rekeyed));
}
