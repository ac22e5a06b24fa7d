//! The desired state as a configuration of BIRD 1.6: `calico-bgpd intent --format bird`.
//!
//! Owns: the text, one for each family, as BIRD 1.6 has a program for each. It says with BIRD's own words what this
//! node does, so that operators can read it, and so that BIRD itself can be asked whether it means the same. What only
//! Calico's fork can do (the device of an IPIP route, KERN-13) stands there as a comment. Never: prints. Passwords are
//! in it only where they are asked for.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use bgp_proto::rib::decision::DEFAULT_LOCAL_PREF;
use bgp_proto::session::TtlRule;
use bgp_proto::{Afi, Asn, Family, IpPrefix};

use super::{Auth, DesiredState, FamilyIntent, NextHopRule, Peer, StaticRoute};
use crate::model::SecretKeyRef;
use crate::policy::prefix_set::PrefixSet;
use crate::policy::program::{Action, Community, Lengths, MAX_METRIC, Match, Program, Rule, SourceClass};
use crate::policy::sets::{SetId, Sets};

/// Seconds between BIRD's looks at interfaces and kernel routes, as Calico configures it.
const KERNEL_SCAN: u16 = 2;

/// The configuration of `bird` (IPv4) or `bird6`, ending in a line break.
pub fn bird_text(state: &DesiredState, afi: Afi, passwords: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match afi {
        Afi::Ipv4 => Writer { out: &mut text, sets: &state.v4.sets, passwords }.all(state, &state.v4),
        Afi::Ipv6 => Writer { out: &mut text, sets: &state.v6.sets, passwords }.all(state, &state.v6),
    };
    text
}

struct Writer<'a> {
    out: &'a mut String,
    sets: &'a Sets,
    passwords: bool,
}

impl Writer<'_> {
    fn all<F: Family>(&mut self, state: &DesiredState, family: &FamilyIntent<F>) -> fmt::Result {
        writeln!(self.out, "# {} of {}, for BIRD 1.6", F::AFI.name(), line(&state.node.name))?;
        writeln!(self.out, "router id {};", state.node.router_id)?;
        if let Some(listen) = state.listen.get(&F::AFI) {
            let address = listen.addr.map(|addr| format!(" address {addr}")).unwrap_or_default();
            writeln!(self.out, "listen bgp{address} port {};", listen.port)?;
        }
        let peers: Vec<&Arc<Peer>> = state.peers.values().filter(|peer| peer.key.afi == F::AFI).collect();
        let mut names = Names::default();
        let kernel = names.of("kernel", &family.kernel, None);
        for peer in &peers {
            let internal = Some(peer.treatment.internal);
            names.of("import", &peer.treatment.import, internal);
            names.of("export", &peer.treatment.export, internal);
        }
        for ((program, internal), name) in &names.known {
            self.filter(name, program, *internal)?;
        }
        writeln!(self.out, "\nprotocol device {{ scan time {KERNEL_SCAN}; }}")?;
        let ignored: Vec<String> = family
            .ignored_interfaces
            .iter()
            .filter_map(|name| quoted(name))
            .map(|name| format!("-{name}, "))
            .collect();
        writeln!(self.out, "protocol direct {{ interface {}\"*\"; }}", ignored.concat())?;
        writeln!(self.out, "protocol static {{")?;
        for (prefix, route) in &family.statics {
            match route {
                StaticRoute::Blackhole => writeln!(self.out, "  route {prefix} blackhole;")?,
                StaticRoute::Via(gateway) => writeln!(self.out, "  route {prefix} via {gateway};")?,
            }
        }
        writeln!(self.out, "}}\nprotocol kernel {{")?;
        writeln!(
            self.out,
            "  learn; persist; scan time {KERNEL_SCAN}; merge paths on; graceful restart on;"
        )?;
        writeln!(self.out, "  import all;\n  export filter {kernel};\n}}")?;
        peers.iter().try_for_each(|peer| self.session(peer, &mut names))
    }

    fn session(&mut self, peer: &Peer, names: &mut Names) -> fmt::Result {
        let (transport, open, next) = (&peer.spec.transport, &peer.spec.open, &peer.spec.next);
        let treatment = &peer.treatment;
        writeln!(self.out, "\n# {}\nprotocol bgp {} {{", line(&peer.resource), peer.name)?;
        writeln!(self.out, "  local as {};", open.local_asn)?;
        writeln!(self.out, "  neighbor {} port {} as {};", transport.peer, transport.port, open.peer_asn)?;
        match (&peer.key.zone, transport.ttl) {
            (Some(zone), _) => {
                let zone = quoted(zone).unwrap_or_else(|| "\"\"".to_owned());
                writeln!(self.out, "  direct; interface {zone};")?;
            }
            (None, TtlRule::Multihop(hops)) => writeln!(self.out, "  multihop {hops};")?,
            (None, TtlRule::Security { hops }) => {
                writeln!(self.out, "  multihop {hops}; ttl security on;")?;
            }
        }
        if let Some(source) = next.source {
            writeln!(self.out, "  source address {source};")?;
        }
        if next.passive {
            writeln!(self.out, "  passive on;")?;
        }
        self.password(&peer.auth)?;
        writeln!(self.out, "  hold time {}; startup hold time {};", next.hold_time, next.open_hold)?;
        if let Some(seconds) = next.keepalive {
            writeln!(self.out, "  keepalive time {seconds};")?;
        }
        match next.restart_time {
            Some(seconds) => {
                writeln!(self.out, "  graceful restart on; graceful restart time {seconds};")?;
            }
            None => writeln!(self.out, "  graceful restart off;")?,
        }
        writeln!(
            self.out,
            "  connect delay time {}; connect retry time {}; error wait time {}, {}; error forget time {};",
            next.connect_delay, next.connect_retry, next.error_wait.0, next.error_wait.1, next.error_forget
        )?;
        if next.add_path {
            writeln!(self.out, "  add paths on;")?;
        }
        if treatment.allow_own_as > 0 {
            writeln!(self.out, "  allow local as {};", treatment.allow_own_as)?;
        }
        if let Some(id) = treatment.rr_client.filter(|_| treatment.internal) {
            writeln!(self.out, "  rr client; rr cluster id {id};")?;
        }
        match treatment.next_hop {
            NextHopRule::Auto => {}
            NextHopRule::SelfAddress => writeln!(self.out, "  next hop self;")?,
            NextHopRule::Keep => writeln!(self.out, "  next hop keep;")?,
        }
        let internal = Some(treatment.internal);
        writeln!(self.out, "  gateway recursive;")?;
        writeln!(self.out, "  import filter {};", names.of("import", &treatment.import, internal))?;
        writeln!(self.out, "  export filter {};\n}}", names.of("export", &treatment.export, internal))
    }

    fn password(&mut self, auth: &Auth) -> fmt::Result {
        match auth {
            Auth::None => Ok(()),
            Auth::Missing(from) => writeln!(self.out, "  # unsigned: no key at {}", secret(from)),
            Auth::Withheld(from) => {
                writeln!(self.out, "  disabled; # no key at {}", secret(from))
            }
            Auth::Key { from, .. } if !self.passwords => {
                writeln!(self.out, "  # signed: password of {}", secret(from))
            }
            Auth::Key { from, key } => match str::from_utf8(key.expose()).ok().and_then(quoted) {
                Some(text) => writeln!(self.out, "  password {text};"),
                None => {
                    writeln!(self.out, "  disabled; # BIRD cannot be given the password of {}", secret(from))
                }
            },
        }
    }

    fn filter(&mut self, name: &str, program: &Program, internal: Option<bool>) -> fmt::Result {
        writeln!(self.out, "\nfilter {name} {{")?;
        for rule in &program.rules {
            self.rule(rule, internal)?;
        }
        writeln!(self.out, "  {};\n}}", program.default)
    }

    fn rule(&mut self, rule: &Rule, internal: Option<bool>) -> fmt::Result {
        let conditions: Vec<String> = rule.when.iter().map(|asked| self.condition(asked, internal)).collect();
        writeln!(self.out, "  # {}", line(&rule.origin))?;
        if conditions.is_empty() {
            writeln!(self.out, "  if true then {{")?;
        } else {
            writeln!(self.out, "  if ({}) then {{", conditions.join(") && ("))?;
        }
        rule.then.iter().try_for_each(|action| writeln!(self.out, "    {}", statement(action)))?;
        if let Some(decision) = rule.decision {
            writeln!(self.out, "    {decision};")?;
        }
        writeln!(self.out, "  }}")
    }

    fn condition(&self, asked: &Match, internal: Option<bool>) -> String {
        match asked {
            Match::Within(prefix) => format!("net ~ [ {prefix}+ ]"),
            Match::Equals(prefix) => format!("net = {prefix}"),
            Match::NotEquals(prefix) => format!("net != {prefix}"),
            Match::WithinLengths(prefix, lengths) => within(*prefix, *lengths),
            Match::NotWithinLengths(prefix, lengths) => format!("! ({})", within(*prefix, *lengths)),
            Match::Never => "false".to_owned(),
            Match::InSet(set) => self.in_set(*set),
            Match::EntryOf(set) => self.entry_of(*set),
            Match::Source(class) => format!("source = {}", source(*class)),
            Match::NotSource(class) => format!("source != {}", source(*class)),
            Match::Interface(pattern) => {
                quoted(pattern).map_or_else(|| "false".to_owned(), |pattern| format!("ifname ~ {pattern}"))
            }
            Match::MetricBelow(limit) => format!("defined(krt_metric) && krt_metric < {limit}"),
            Match::LocalPrefAbove(limit) => local_pref(&format!("> {limit}"), DEFAULT_LOCAL_PREF > *limit),
            Match::LocalPrefIs(value) => local_pref(&format!("= {value}"), DEFAULT_LOCAL_PREF == *value),
            Match::NextHopWithin(prefix) => format!("source = RTS_BGP && bgp_next_hop ~ {prefix}"),
            Match::NextHopInSet(set) => match self.listed(*set, |entry| entry.addr().to_string()) {
                Some(hops) => format!("source = RTS_BGP && bgp_next_hop ~ [ {hops} ]"),
                None => "false".to_owned(),
            },
            Match::Internal(asked) => (internal == Some(*asked)).to_string(),
            Match::Community(value) => format!("{} ~ {}", community(*value), list_of(*value)),
            Match::AsPathBegins(asns) => {
                let asns: Vec<String> = asns.iter().map(Asn::to_string).collect();
                format!("bgp_path ~ [= {} * =]", asns.join(" "))
            }
        }
    }

    /// The entries of a set in BIRD's form; `None` where it has none, for BIRD has no empty sets.
    fn listed(&self, set: SetId, form: impl Fn(IpPrefix) -> String) -> Option<String> {
        let entries: Vec<String> =
            self.content(set)?.entries().iter().map(|entry| form(entry.prefix)).collect();
        Some(entries.join(", "))
    }

    fn content(&self, set: SetId) -> Option<&PrefixSet> {
        self.sets.get(set).filter(|content| !content.is_empty())
    }

    fn in_set(&self, set: SetId) -> String {
        self.listed(set, |prefix| format!("{prefix}+"))
            .map_or_else(|| "false".to_owned(), |entries| format!("net ~ [ {entries} ]"))
    }

    /// An entry that no other entry covers.
    fn entry_of(&self, set: SetId) -> String {
        let Some(content) = self.content(set) else { return "false".to_owned() };
        let prefixes = content.entries().iter().map(|entry| entry.prefix);
        let outer =
            prefixes.filter(|prefix| content.covering(*prefix).is_some_and(|top| top.prefix == *prefix));
        let outer: Vec<String> = outer.map(|prefix| prefix.to_string()).collect();
        format!("net ~ [ {} ]", outer.join(", "))
    }
}

/// Filters by what they are made of: of one program there is one for internal sessions and one for external ones.
#[derive(Default)]
struct Names {
    known: BTreeMap<(Arc<Program>, Option<bool>), String>,
}

impl Names {
    fn of(&mut self, kind: &str, program: &Arc<Program>, internal: Option<bool>) -> String {
        let number = self.known.len() + 1;
        self.known
            .entry((program.clone(), internal))
            .or_insert_with(|| format!("calico_{kind}_{number}"))
            .clone()
    }
}

/// A text as one line of a comment.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Where a password is.
fn secret(from: &SecretKeyRef) -> String {
    line(&format!("Secret/{}, key {}", from.name, from.key))
}

/// A text in quotes; `None` where BIRD has no way to write it.
fn quoted(text: &str) -> Option<String> {
    (!text.contains(|c: char| c == '"' || c.is_control())).then(|| format!("\"{text}\""))
}

fn within(prefix: IpPrefix, lengths: Lengths) -> String {
    format!("net ~ [ {prefix}+ ] && net.len >= {} && net.len <= {}", lengths.min, lengths.max)
}

/// A comparison of LOCAL_PREF; `absent` is its outcome for a route without one.
fn local_pref(comparison: &str, absent: bool) -> String {
    let present = format!("defined(bgp_local_pref) && bgp_local_pref {comparison}");
    if absent { format!("! defined(bgp_local_pref) || {present}") } else { present }
}

const fn source(class: SourceClass) -> &'static str {
    match class {
        SourceClass::Direct => "RTS_DEVICE",
        SourceClass::Static => "RTS_STATIC",
        SourceClass::Bgp => "RTS_BGP",
        SourceClass::Kernel => "RTS_INHERIT",
    }
}

fn community(value: Community) -> String {
    match value {
        Community::Standard(value) => format!("({}, {})", value >> 16, value & 0xffff),
        Community::Large([a, b, c]) => format!("({a}, {b}, {c})"),
    }
}

const fn list_of(value: Community) -> &'static str {
    match value {
        Community::Standard(_) => "bgp_community",
        Community::Large(_) => "bgp_large_community",
    }
}

fn statement(action: &Action) -> String {
    let metric = format!(
        "if defined(bgp_local_pref) then krt_metric = {MAX_METRIC} - bgp_local_pref; else krt_metric = {};",
        MAX_METRIC - DEFAULT_LOCAL_PREF
    );
    match action {
        Action::Normalise { priority, zero_is_none } => {
            let zero = if *zero_is_none {
                format!(" if krt_metric = 0 then krt_metric = {priority};")
            } else {
                String::new()
            };
            format!(
                "if source = RTS_BGP then {{ {metric} }} else {{ if ! defined(krt_metric) then krt_metric = {priority};{zero} \
                 bgp_local_pref = {MAX_METRIC} - krt_metric; }}"
            )
        }
        Action::SetPreference(preference) => format!("preference = {preference};"),
        Action::MetricFromLocalPref => metric,
        Action::SetLocalPref(value) => format!("bgp_local_pref = {value};"),
        Action::AddCommunity(value) => format!("{}.add({});", list_of(*value), community(*value)),
        // Each goes in front of the one before.
        Action::PrependAsPath(asns) => {
            let steps: Vec<String> =
                asns.iter().rev().map(|asn| format!("bgp_path.prepend({asn});")).collect();
            steps.join(" ")
        }
        Action::Through(device) => format!("# through {device:?}, by the BGP next hop: needs Calico's fork"),
    }
}
