//! `show protocols [all]` (CTL-16 to CTL-23).
//!
//! Owns: the table of formats, and the protocols that every BIRD of Calico has beside its sessions. Never: knows
//! sessions (see [`sessions`](super::sessions)).

use std::fmt::Write as _;
use std::net::IpAddr;

use bgp_proto::{Asn, RouterId};

use super::reply::Reply;
use crate::speaker::status::Sources;

const HEADER: u16 = 2002;
const ROW: u16 = 1002;
const DETAILS: u16 = 1006;

/// One protocol as it is shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Protocol {
    /// Its name (CTL-22).
    pub name: String,
    /// `BGP`, `Kernel`, …
    pub kind: &'static str,
    /// `up`, `start`, `down`, `wait` (CTL-16).
    pub state: &'static str,
    /// Since when (CTL-17).
    pub since: String,
    /// What BGP says (CTL-18); empty for others.
    pub info: String,
    /// The rest.
    pub details: Details,
}

/// What `all` adds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Details {
    /// Free text.
    pub description: Option<&'static str>,
    /// Preference of its routes (KRT-8).
    pub preference: u16,
    /// Name of the import filter.
    pub input: &'static str,
    /// Name of the export filter.
    pub output: &'static str,
    /// What the end of a restart still waits for; `None`: no restart is under way.
    pub recovery: Option<&'static str>,
    /// Not shown where it is down.
    pub routes: Option<ProtocolRoutes>,
    /// Of a BGP session.
    pub bgp: Option<Bgp>,
}

/// Routes of a protocol, paths each; `None` where that is not known in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProtocolRoutes {
    /// From it, and usable.
    pub imported: usize,
    /// Told to it.
    pub exported: usize,
    /// From it, and the best.
    pub preferred: usize,
    /// How routes changed since the start.
    pub changes: Changes,
}

/// Received, rejected, filtered, ignored and accepted changes; `None`: not counted.
pub type Counted = [Option<u64>; 5];

/// Changes of routes since the start. What BIRD has no number for either is `None` in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Announced to us.
    pub import_updates: Counted,
    /// Withdrawn from us.
    pub import_withdraws: Counted,
    /// Announced by us.
    pub export_updates: Counted,
    /// Withdrawn by us.
    pub export_withdraws: Counted,
}

/// A BGP session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bgp {
    /// State of RFC 4271 as BIRD names it.
    pub state: &'static str,
    /// The peer.
    pub address: IpAddr,
    /// Interface of a link-local peer.
    pub zone: Option<String>,
    /// Its AS.
    pub asn: Asn,
    /// It is away and its routes are kept.
    pub graceful: bool,
    /// Waits of a session that is not up: label, seconds left, seconds in all.
    pub waits: Vec<(&'static str, u64, Option<u16>)>,
    /// What was agreed on; of a session that is up.
    pub up: Option<Up>,
    /// Why it was not up the last time, with its class (CTL-18).
    pub last_error: Option<String>,
}

/// A session that is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Up {
    /// The peer's identifier.
    pub id: RouterId,
    /// What the peer can do.
    pub capabilities: Vec<&'static str>,
    /// What the session is.
    pub session: Vec<&'static str>,
    /// Our address.
    pub source: IpAddr,
    /// Hold timer: seconds left, seconds in all.
    pub hold: (u64, u16),
    /// Keepalive timer.
    pub keepalive: (u64, u16),
}

/// The table's head.
pub fn header(reply: &mut Reply) {
    reply.line(HEADER, "name     proto    table    state  since       info");
}

/// One protocol, with details or without.
pub fn protocol(reply: &mut Reply, protocol: &Protocol, all: bool) {
    let Protocol { name, kind, state, since, info, details } = protocol;
    reply.line(ROW, format_args!("{name:<8} {kind:<8} {:<8} {state:<5}  {since:<10}  {info}", "master"));
    if !all {
        return;
    }
    let mut line = |text: String| reply.line(DETAILS, format_args!("  {text}"));
    if let Some(text) = details.description {
        line(format!("Description:    {text}"));
    }
    line(format!("Preference:     {}", details.preference));
    line(format!("Input filter:   {}", details.input));
    line(format!("Output filter:  {}", details.output));
    if let Some(waits) = details.recovery {
        line(format!("GR recovery:   {waits}"));
    }
    if let Some(routes) = &details.routes {
        let ProtocolRoutes { imported, exported, preferred, changes } = routes;
        line(format!("Routes:         {imported} imported, {exported} exported, {preferred} preferred"));
        line("Route change stats:     received   rejected   filtered    ignored   accepted".into());
        line(format!("  Import updates:    {}", columns(&changes.import_updates)));
        line(format!("  Import withdraws:  {}", columns(&changes.import_withdraws)));
        line(format!("  Export updates:    {}", columns(&changes.export_updates)));
        line(format!("  Export withdraws:  {}", columns(&changes.export_withdraws)));
    }
    if let Some(bgp) = &details.bgp {
        session(bgp, line);
    }
    reply.line(DETAILS, "");
}

fn columns(counted: &Counted) -> String {
    counted.iter().fold(String::new(), |mut text, count| {
        // Writing into a string cannot fail.
        let _ = match count {
            Some(count) => write!(text, " {count:>10}"),
            None => write!(text, " {:>10}", "---"),
        };
        text
    })
}

fn session(bgp: &Bgp, mut line: impl FnMut(String)) {
    line(format!("BGP state:          {}", bgp.state));
    let zone = bgp.zone.as_ref().map(|zone| format!("%{zone}")).unwrap_or_default();
    line(format!("  Neighbor address: {}{zone}", bgp.address));
    line(format!("  Neighbor AS:      {}", bgp.asn));
    if bgp.graceful {
        line("  Neighbor graceful restart active".into());
    }
    for (label, left, whole) in &bgp.waits {
        let whole = whole.map_or_else(|| "-".to_string(), |whole| whole.to_string());
        let label = format!("{label}:");
        line(format!("  {label:<17} {left}/{whole}"));
    }
    if let Some(up) = &bgp.up {
        let words = |list: &[&str]| list.join(" ");
        line(format!("  Neighbor ID:      {}", up.id));
        line(format!("  Neighbor caps:    {}", words(&up.capabilities)));
        line(format!("  Session:          {}", words(&up.session)));
        line(format!("  Source address:   {}", up.source));
        line(format!("  Hold timer:       {}/{}", up.hold.0, up.hold.1));
        line(format!("  Keepalive timer:  {}/{}", up.keepalive.0, up.keepalive.1));
    }
    if let Some(error) = &bgp.last_error {
        line(format!("  Last error:       {error}"));
    }
}

/// The four protocols that Calico configures beside sessions (CTL-22), in BIRD's order. `recovering`: a restart is
/// under way, and the kernel is not written to for good yet.
pub fn own(since: &str, recovering: bool, sources: Option<&Sources>) -> [Protocol; 4] {
    let make = |name: &str,
                kind,
                preference,
                output,
                counts: Option<(usize, usize)>,
                exported,
                waits: &'static str| {
        let routes = counts.map(|(imported, preferred)| ProtocolRoutes {
            imported,
            exported,
            preferred,
            changes: Changes::default(),
        });
        Protocol {
            name: name.to_string(),
            kind,
            state: if recovering && !waits.is_empty() { "wait" } else { "up" },
            since: since.to_string(),
            info: String::new(),
            details: Details {
                description: None,
                preference,
                input: "ACCEPT",
                output,
                recovery: recovering.then_some(waits),
                routes,
                bgp: None,
            },
        }
    };
    let of = |pick: fn(&Sources) -> (usize, usize)| sources.map(pick);
    let to_kernel = sources.map_or(0, |sources| sources.to_kernel);
    [
        make("static1", "Static", 200, "REJECT", of(|s| s.fixed), 0, ""),
        make("kernel1", "Kernel", 10, "calico_kernel_programming", of(|s| s.kernel), to_kernel, " waiting"),
        make("device1", "Device", 240, "REJECT", of(|_| (0, 0)), 0, ""),
        make("direct1", "Direct", 240, "REJECT", of(|s| s.direct), 0, ""),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../../../fixtures/bird-ctl/show-protocols-all.txt");
    const RECOVERING: &str = include_str!("../../../fixtures/bird-ctl/gr-recovery.txt");

    fn some(counts: [u64; 5]) -> Counted {
        counts.map(Some)
    }

    fn peer(name: &str, state: &'static str, since: &str, info: &str, bgp: Bgp) -> Protocol {
        let none = some([0; 5]);
        let [a, b, _, _, c] = none;
        let changes = Changes {
            import_updates: none,
            import_withdraws: [a, b, None, some([0; 5])[3], c],
            export_updates: [a, b, c, None, c],
            export_withdraws: [a, None, None, None, c],
        };
        Protocol {
            name: name.into(),
            kind: "BGP",
            state,
            since: since.into(),
            info: info.into(),
            details: Details {
                description: Some("Connection to BGP peer"),
                preference: 100,
                input: "(unnamed)",
                output: "(unnamed)",
                recovery: None,
                routes: Some(ProtocolRoutes { changes, ..ProtocolRoutes::default() }),
                bgp: Some(bgp),
            },
        }
    }

    fn bgp(state: &'static str, address: &str, asn: u32) -> Bgp {
        Bgp {
            state,
            address: address.parse().unwrap(),
            zone: None,
            asn: Asn(asn),
            graceful: false,
            waits: Vec::new(),
            up: None,
            last_error: None,
        }
    }

    fn shown(shown: &Protocol) -> String {
        let mut reply = Reply::default();
        protocol(&mut reply, shown, true);
        reply.take()
    }

    /// The recorded block of a protocol, from its row to the line with one blank.
    fn recorded<'t>(text: &'t str, name: &str) -> String {
        let start = text.rfind(&format!("1002-{name} ")).unwrap();
        let text: &'t str = &text[start..];
        text[..text.find("\n \n").unwrap() + 3].to_string()
    }

    #[test]
    fn a_session_that_is_up_is_shown_as_bird_shows_it() {
        let mut up = bgp("Established", "10.99.0.2", 64512);
        up.up = Some(Up {
            id: RouterId("10.99.0.2".parse().unwrap()),
            capabilities: vec![
                "refresh",
                "enhanced-refresh",
                "restart-able",
                "llgr-aware",
                "AS4",
                "add-path-rx",
                "add-path-tx",
            ],
            session: vec!["internal", "multihop", "AS4", "add-path-rx", "add-path-tx"],
            source: "10.99.0.1".parse().unwrap(),
            hold: (167, 240),
            keepalive: (64, 80),
        });
        let mut shows = peer("Mesh_10_99_0_2", "up", "01:33:35", "Established   ", up);
        let n = Some;
        shows.details.routes = Some(ProtocolRoutes {
            imported: 2,
            exported: 2,
            preferred: 2,
            changes: Changes {
                import_updates: some([3, 0, 0, 0, 3]),
                import_withdraws: [n(1), n(0), None, n(0), n(1)],
                export_updates: [n(12), n(5), n(4), None, n(3)],
                export_withdraws: [n(3), None, None, None, n(1)],
            },
        });
        assert_eq!(shown(&shows), recorded(RECORDED, "Mesh_10_99_0_2"));
    }

    #[test]
    fn sessions_that_wait_are_shown_as_bird_shows_them() {
        let mut idle = bgp("Idle", "10.99.0.99", 65001);
        idle.waits.push(("Error wait", 14, Some(30)));
        idle.last_error = Some("BGP Error: Bad peer AS".into());
        let idle =
            peer("Global_10_99_0_99", "start", "01:38:00", "Idle          BGP Error: Bad peer AS", idle);
        assert_eq!(shown(&idle), recorded(RECORDED, "Global_10_99_0_99"));

        let mut active = bgp("Active", "10.99.0.88", 65088);
        active.waits.push(("Connect delay", 2, Some(2)));
        active.last_error = Some("Socket: Connection refused".into());
        let info = "Active        Socket: Connection refused";
        let active = peer("Global_10_99_0_88_port_1790", "start", "01:33:33", info, active);
        assert_eq!(shown(&active), recorded(RECORDED, "Global_10_99_0_88_port_1790"));

        let passive = peer(
            "Node_10_99_0_77",
            "start",
            "01:33:33",
            "Passive       ",
            bgp("Passive", "10.99.0.77", 65077),
        );
        assert_eq!(shown(&passive), recorded(RECORDED, "Node_10_99_0_77"));
    }

    /// Rows without the counters of changes, which are not kept here.
    fn rows(text: &str, names: &[&str]) -> String {
        let blocks = names.iter().map(|name| recorded(text, name)).collect::<String>();
        let counted = |line: &&str| {
            !line.contains("port ") && !line.contains("updates:") && !line.contains("withdraws:")
        };
        blocks.lines().filter(counted).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn the_protocols_beside_sessions_are_those_of_calicos_bird() {
        let names = ["static1", "kernel1", "device1", "direct1"];
        let ours = |recovering, to_kernel| {
            let sources = Sources { fixed: (2, 2), direct: (2, 2), kernel: (2, 2), to_kernel };
            let text: String = own("01:33:33", recovering, Some(&sources)).iter().map(shown).collect();
            rows(&text, &names)
        };
        assert_eq!(ours(false, 5), rows(RECORDED, &names));
        assert_eq!(ours(true, 0), rows(RECOVERING, &names));
    }

    #[test]
    fn what_is_not_counted_is_no_number() {
        assert_eq!(
            columns(&[Some(3), None, Some(0), None, None]),
            "          3        ---          0        ---        ---"
        );
    }
}
