//! The desired state as text for people: `calico-bgpd intent`.
//!
//! Owns: the layout. Nobody parses it; programs read the JSON of [`view`](super::view). Never: prints.

use std::fmt::{self, Write};

use bgp_proto::Afi;

use super::view::{FamilyView, IntentView, ProgramView, view};
use super::{ClusterRoutesSource, DesiredState};

/// The whole state, ending in a line break.
pub fn render_text(state: &DesiredState) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_state(&mut text, state, &view(state));
    text
}

fn write_state(out: &mut String, state: &DesiredState, view: &IntentView) -> fmt::Result {
    let node = &view.node;
    writeln!(out, "Node {}, AS {}, router id {}", node.name, node.as_number, node.router_id)?;
    for (family, address, subnet) in
        [("IPv4", &node.ipv4_address, &node.ipv4_subnet), ("IPv6", &node.ipv6_address, &node.ipv6_subnet)]
    {
        match (address, subnet) {
            (Some(address), Some(subnet)) => writeln!(out, "  {family} {address} in {subnet}")?,
            _ => writeln!(out, "  {family} none")?,
        }
    }
    if let Some(id) = &node.route_reflector_cluster_id {
        writeln!(out, "  route reflector with cluster id {id}")?;
    }
    writeln!(out, "Calico release {} ({})", view.release.release, state.release.source.name())?;
    let routes = &view.cluster_routes;
    let why = match state.cluster_routes.source {
        ClusterRoutesSource::Configured => "programClusterRoutes",
        ClusterRoutesSource::Release => "default of the release",
    };
    let (plain, ipip) = (routes.unencapsulated, routes.ipip);
    writeln!(
        out,
        "Cluster routes: un-encapsulated by {plain}, IPIP by {ipip}, VXLAN by {} ({why})",
        routes.vxlan
    )?;
    for (afi, listen) in &state.listen {
        let family = match afi {
            Afi::Ipv4 => "IPv4",
            Afi::Ipv6 => "IPv6",
        };
        let address = listen.addr.map_or_else(|| "all addresses".to_owned(), |addr| addr.to_string());
        writeln!(out, "Listening: {family} on {address}, port {}", listen.port)?;
    }
    writeln!(out, "\nSessions: {}", view.peers.len())?;
    let mut rows = vec![
        ["NAME", "PEER", "PORT", "AS", "TYPE", "DIALLED BY", "PASSWORD", "PROGRAMS", "ASKED FOR BY"]
            .map(str::to_owned),
    ];
    rows.extend(view.peers.iter().map(|peer| {
        [
            peer.name.clone(),
            peer.address.clone(),
            peer.port.to_string(),
            peer.as_number.to_string(),
            if peer.internal { "internal" } else { "external" }.to_owned(),
            if peer.passive { "peer" } else { "us" }.to_owned(),
            peer.password.to_owned(),
            format!("{}, {}", peer.import, peer.export),
            peer.resource.clone(),
        ]
    }));
    if rows.len() > 1 {
        table(out, &rows)?;
    }
    write_family(out, "IPv4", &view.ipv4)?;
    write_family(out, "IPv6", &view.ipv6)?;
    for (name, program) in &view.programs {
        writeln!(out, "\nProgram {name}")?;
        write_program(out, program)?;
    }
    writeln!(out, "\nProblems: {}", view.problems.len())?;
    view.problems.iter().try_for_each(|problem| writeln!(out, "  {problem}"))
}

fn write_family(out: &mut String, name: &str, family: &FamilyView) -> fmt::Result {
    writeln!(out, "\n{name} routes of this node: {}", family.originated.len())?;
    for route in &family.originated {
        match &route.via {
            Some(via) => writeln!(out, "  {} via {via}", route.prefix)?,
            None => writeln!(out, "  {} blackhole", route.prefix)?,
        }
    }
    match family.normal_route_priority {
        Some(priority) => writeln!(out, "  normal route priority {priority}")?,
        None => writeln!(out, "  no route priorities")?,
    }
    writeln!(out, "  no direct routes from interfaces {}", family.ignored_interfaces.join(", "))?;
    writeln!(out, "  to the kernel by {}", family.kernel)?;
    family.sets.iter().try_for_each(|(name, prefixes)| writeln!(out, "  {name}: {}", prefixes.join(", ")))
}

fn write_program(out: &mut String, program: &ProgramView) -> fmt::Result {
    for (number, rule) in (1..).zip(&program.rules) {
        let when = if rule.when.is_empty() { "always".to_owned() } else { rule.when.join(" and ") };
        let then: Vec<&str> = rule.then.iter().chain(&rule.decision).map(String::as_str).collect();
        writeln!(out, "  {number:>3}. {when}: {}  [{}]", then.join(", "), rule.origin)?;
    }
    writeln!(out, "       otherwise {}", program.default)
}

/// Rows in columns as wide as their widest cell, two blanks apart, indented by two.
fn table<const N: usize>(out: &mut String, rows: &[[String; N]]) -> fmt::Result {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            write!(line, "  {cell:<width$}")?;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
