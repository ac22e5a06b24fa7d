//! What is compiled again by a change, counted.

use super::*;

/// A world with every sort of session, its first compilation, and an edit: how many sessions the next one compiles.
fn compiled_by(edit: impl FnOnce(&mut World)) -> usize {
    let mut world = World::new();
    secret(&mut world, b"key");
    world.config("default", |config| config.mesh_password = Some(password()));
    bgp_peer(&mut world, "tor", "10.0.0.9", |peer| peer.reachable_by = Some("10.0.0.254".parse().unwrap()));
    let before = Arc::new(world.snapshot.clone());
    let (first, prior) = compile_after(None, &before, &world.facts).unwrap();
    assert_eq!(first.peers.len(), 5);
    edit(&mut world);
    let after = Arc::new(world.snapshot.clone());
    let (second, _) = compile_after(Some(&prior), &after, &world.facts).unwrap();
    assert_eq!(second, world.state(), "it is what a compilation of everything gives");
    let is_new = |(key, peer): &(&SessionKey, &Arc<Peer>)| {
        first.peers.get(*key).is_none_or(|before| !Arc::ptr_eq(before, peer))
    };
    second.peers.iter().filter(is_new).count()
}

#[test]
fn a_block_a_pool_a_service_or_a_secret_compiles_no_session_and_a_node_does() {
    assert_eq!(compiled_by(|_| ()), 0);
    assert_eq!(compiled_by(|world| world.block("10.244.2.0/26", AffinityState::Confirmed)), 0);
    assert_eq!(compiled_by(|world| world.pool(pool("more", "10.245.0.0/16"))), 0);
    let service = |world: &mut World| {
        let name = NamespacedName { namespace: "default".into(), name: "s".into() };
        let slice = model::EndpointSlice {
            name: name.clone(),
            service: Some("s".into()),
            family: None,
            endpoints: Vec::new(),
        };
        world.snapshot.endpoint_slices.insert(name, Arc::new(slice));
    };
    assert_eq!(compiled_by(service), 0);
    let other = |world: &mut World| {
        let name = NamespacedName { namespace: "kube-system".into(), name: "other".into() };
        let secret = model::Secret { name: name.clone(), data: BTreeMap::new() };
        world.snapshot.secrets.insert(name, Arc::new(secret));
    };
    assert_eq!(compiled_by(other), 0, "of others");
    // The four of the mesh get the new key, and nothing else of them is looked at.
    assert_eq!(compiled_by(|world| secret(world, b"another")), 4);
    assert_eq!(compiled_by(|world| world.node(node("node-4", "10.0.0.4/24", ""))), 6);
    assert_eq!(compiled_by(|world| world.config("default", |config| config.listen_port = Some(1179))), 5);
}
