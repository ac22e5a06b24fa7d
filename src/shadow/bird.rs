//! What a BIRD 1.6 says of itself on its control socket, as values.
//!
//! Owns: the form of `show protocols all` and `show route … all` as a reader needs it, and the conversation. Never: decides
//! anything. Inputs: a socket, or the text of a reply. Outputs: [`BirdSession`]s and [`BirdRoute`]s.
//!
//! Rules: CTL-1 to CTL-4 (codes and lines), CTL-17 to CTL-28 (their forms).

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bgp_proto::wire::attr::Aggregator;
use bgp_proto::wire::{AsPath, Attributes, Origin, Segment};
use bgp_proto::{Asn, ClusterId, IpPrefix, RouterId};
use smallvec::{SmallVec, smallvec};

use super::Incumbent;

/// How long BIRD may take for one more line.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why BIRD told nothing.
#[derive(Debug, thiserror::Error)]
pub enum BirdSilent {
    /// Nobody is there, or it stopped answering.
    #[error("{}: BIRD does not answer: {source}", path.display())]
    Socket {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not do what was asked.
    #[error("{}: BIRD answers {command:?} with {reply:?}", path.display())]
    Refused {
        /// Its socket.
        path: PathBuf,
        /// What was asked.
        command: String,
        /// Its answer.
        reply: String,
    },
}

/// A connection to a BIRD.
#[derive(Debug)]
pub struct BirdClient {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl BirdClient {
    /// Connects, and reads the greeting.
    ///
    /// # Errors
    /// [`BirdSilent::Socket`].
    pub fn connect(path: &Path) -> Result<BirdClient, BirdSilent> {
        let silent = |source| BirdSilent::Socket { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(silent)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(silent)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(silent)?;
        let mut client = BirdClient { path: path.to_owned(), stream: BufReader::new(stream) };
        client.reply("greeting")?;
        Ok(client)
    }

    /// The lines of the answer without their codes; a network that is not in the table is an empty answer.
    ///
    /// # Errors
    /// [`BirdSilent`].
    pub fn ask(&mut self, command: &str) -> Result<String, BirdSilent> {
        let silent = |source| BirdSilent::Socket { path: self.path.clone(), source };
        self.stream.get_mut().write_all(format!("{command}\n").as_bytes()).map_err(silent)?;
        self.reply(command)
    }

    fn reply(&mut self, command: &str) -> Result<String, BirdSilent> {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line);
            let silent = |source| BirdSilent::Socket { path: self.path.clone(), source };
            if read.map_err(silent)? == 0 {
                return Err(silent(io::ErrorKind::UnexpectedEof.into()));
            }
            let (last, shown) = plain(line.trim_end_matches('\n'));
            match last {
                Some(code) if code.starts_with(['8', '9']) && code != "8001" => {
                    let (path, command) = (self.path.clone(), command.to_owned());
                    return Err(BirdSilent::Refused { path, command, reply: shown.to_owned() });
                }
                Some(_) => return Ok(text),
                None => {
                    text += shown;
                    text.push('\n');
                }
            }
        }
    }
}

impl Incumbent {
    /// Asks the BIRD of one family for all that a comparison needs.
    ///
    /// # Errors
    /// [`BirdSilent`].
    pub fn ask(path: &Path) -> Result<Incumbent, BirdSilent> {
        let mut client = BirdClient::connect(path)?;
        let sessions = sessions(&client.ask("show protocols all")?);
        let routes = routes(&client.ask("show route all")?);
        let mut sent = BTreeMap::new();
        for session in sessions.iter().filter(|session| session.established) {
            let told = client.ask(&format!("show route all export {}", session.name))?;
            sent.insert(session.name.clone(), self::routes(&told));
        }
        Ok(Incumbent { sessions, routes, sent })
    }
}

/// The code of a line that ends a reply, and what people read of a line.
fn plain(line: &str) -> (Option<&str>, &str) {
    if let Some(rest) = line.strip_prefix(' ') {
        return (None, rest);
    }
    match (line.get(..4), line.get(4..5), line.get(5..)) {
        (Some(code), Some(" "), rest) => (Some(code), rest.unwrap_or_default()),
        (_, _, rest) => (None, rest.unwrap_or_default()),
    }
}

/// A BGP session of BIRD's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BirdSession {
    /// Its name, as `Mesh_10_0_0_2`.
    pub name: String,
    /// It is established.
    pub established: bool,
    /// The neighbour's address, without a zone.
    pub neighbour: IpAddr,
    /// The neighbour's AS.
    pub asn: Asn,
    /// The neighbour's identifier, once it is known.
    pub neighbour_id: Option<RouterId>,
    /// Our own address in the session, once it is known.
    pub source: Option<IpAddr>,
    /// Path ids go both ways (RFC 7911).
    pub add_path: bool,
}

/// The BGP sessions of `show protocols all`.
pub fn sessions(text: &str) -> Vec<BirdSession> {
    let mut found = Vec::new();
    for block in text.split("\n\n") {
        let mut lines =
            block.lines().skip_while(|line| line.starts_with([' ', '\t']) || line.starts_with("name"));
        let Some(head) = lines.next() else { continue };
        let mut words = head.split_whitespace();
        let (Some(name), Some("BGP")) = (words.next(), words.next()) else { continue };
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix(':'));
            line.map(str::trim)
        };
        let without_zone = |text: &str| text.split('%').next().and_then(|addr| addr.parse::<IpAddr>().ok());
        let Some(neighbour) = value("Neighbor address").and_then(without_zone) else { continue };
        found.push(BirdSession {
            name: name.to_owned(),
            established: value("BGP state") == Some("Established"),
            neighbour,
            asn: Asn(value("Neighbor AS").and_then(|asn| asn.parse().ok()).unwrap_or_default()),
            neighbour_id: value("Neighbor ID").and_then(|id| id.parse().ok()).map(RouterId),
            source: value("Source address").and_then(without_zone),
            add_path: value("Session").is_some_and(|words| words.contains("add-path-rx")),
        });
    }
    found
}

/// A route of BIRD's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BirdRoute {
    /// Its destination.
    pub prefix: IpPrefix,
    /// The protocol that it came in by.
    pub protocol: String,
    /// The BGP next hop, the global address where there are two.
    pub next_hop: Option<IpAddr>,
    /// What it has of BGP. Extended communities and what BIRD has no name for are left out.
    pub attributes: Attributes,
}

/// The routes of `show route … all`. What cannot be read is left out: a word that BIRD has and we do not know must not
/// keep the rest from being compared.
pub fn routes(text: &str) -> Vec<BirdRoute> {
    let mut found: Vec<BirdRoute> = Vec::new();
    let mut prefix = None;
    for line in text.lines() {
        if let Some(attribute) = line.strip_prefix('\t') {
            if let (Some(route), Some((name, value))) = (found.last_mut(), attribute.split_once(':')) {
                take(route, name, value.trim());
            }
            continue;
        }
        if let Some(word) = line.split(' ').next().filter(|word| !word.is_empty()) {
            prefix = word.parse::<IpPrefix>().ok();
        }
        let protocol = line.split_once('[').and_then(|(_, rest)| rest.split([' ', ']']).next());
        if let (Some(prefix), Some(protocol)) = (prefix, protocol) {
            found.push(BirdRoute {
                prefix,
                protocol: protocol.to_owned(),
                next_hop: None,
                attributes: Attributes::default(),
            });
        }
    }
    found
}

fn take(route: &mut BirdRoute, name: &str, value: &str) {
    let attributes = &mut route.attributes;
    match name {
        "BGP.origin" => {
            attributes.origin = match value {
                "IGP" => Origin::Igp,
                "EGP" => Origin::Egp,
                _ => Origin::Incomplete,
            }
        }
        "BGP.as_path" => attributes.as_path = as_path(value),
        "BGP.next_hop" => {
            route.next_hop = value.split_whitespace().next().and_then(|addr| addr.parse().ok());
        }
        "BGP.med" => attributes.med = value.parse().ok(),
        "BGP.local_pref" => attributes.local_pref = value.parse().ok(),
        "BGP.atomic_aggr" => attributes.atomic_aggregate = true,
        "BGP.aggregator" => {
            attributes.aggregator = value.split_once(" AS").and_then(|(id, asn)| {
                Some(Aggregator { asn: Asn(asn.parse().ok()?), router_id: id.parse().ok()? })
            });
        }
        "BGP.community" => {
            let pairs = groups(value).filter_map(|numbers| match numbers.as_slice() {
                [high, low] => Some((high << 16) | (low & 0xffff)),
                _ => None,
            });
            attributes.communities = pairs.collect();
        }
        "BGP.large_community" => {
            let triples = groups(value).filter_map(|numbers| numbers.try_into().ok());
            attributes.large_communities = triples.collect();
        }
        "BGP.originator_id" => attributes.originator_id = value.parse().ok().map(RouterId),
        "BGP.cluster_list" => {
            let ids = value.split_whitespace().filter_map(|id| id.parse::<Ipv4Addr>().ok());
            attributes.cluster_list = ids.map(ClusterId).collect();
        }
        _ => {}
    }
}

/// `(1,2) (3,4)`: the numbers between each pair of brackets.
fn groups(text: &str) -> impl Iterator<Item = Vec<u32>> {
    text.split('(').skip(1).map(|group| {
        let inner = group.split(')').next().unwrap_or_default();
        inner.split(',').filter_map(|number| number.trim().parse().ok()).collect()
    })
}

fn as_path(text: &str) -> AsPath {
    let mut segments = SmallVec::<[Segment; 1]>::new();
    let mut in_set = false;
    for word in text.split_whitespace() {
        let opens = word.starts_with('{');
        let Ok(asn) = word.trim_matches(['{', '}']).parse().map(Asn) else { continue };
        in_set |= opens;
        match (in_set, opens, segments.last_mut()) {
            (true, false, Some(Segment::Set(list))) | (false, _, Some(Segment::Sequence(list))) => {
                list.push(asn);
            }
            (true, ..) => segments.push(Segment::Set(smallvec![asn])),
            (false, ..) => segments.push(Segment::Sequence(smallvec![asn])),
        }
        in_set &= !word.ends_with('}');
    }
    AsPath { segments }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client shows of a recorded reply.
    fn shown(raw: &str) -> String {
        raw.lines().map(|line| format!("{}\n", plain(line).1)).collect()
    }

    const PROTOCOLS: &str = include_str!("../../fixtures/bird-ctl/show-protocols-one-v6.txt");

    #[test]
    fn sessions_are_read_from_birds_own_words() {
        let start = PROTOCOLS.find("2002-").unwrap();
        let end = PROTOCOLS.find("0000 ").unwrap();
        let found = sessions(&shown(&PROTOCOLS[start..end]));
        assert_eq!(
            found,
            [BirdSession {
                name: "Mesh_fd99__2".into(),
                established: true,
                neighbour: "fd99::2".parse().unwrap(),
                asn: Asn(64512),
                neighbour_id: Some(RouterId([10, 99, 0, 2].into())),
                source: Some("fd99::1".parse().unwrap()),
                add_path: true,
            }]
        );
    }

    #[test]
    fn routes_are_read_with_what_they_have_of_bgp() {
        let text = "1007-192.0.2.0/24       via 10.99.0.99 on eth0 [Global_10_99_0_99 02:38:12 from 10.9.9.9] * (100/0) [AS3i]\n\
                    1008-\tType: BGP unicast univ\n\
                    1012-\tBGP.origin: EGP\n \tBGP.as_path: 1 65002 {4 3}\n \tBGP.next_hop: 10.99.0.99\n \tBGP.med: 7\n \
                    \tBGP.local_pref: 90\n \tBGP.atomic_aggr: \n \tBGP.aggregator: 10.0.0.1 AS65000\n \
                    \tBGP.community: (64512,100) (0,1)\n \tBGP.originator_id: 10.99.0.3\n \
                    \tBGP.cluster_list: 244.0.0.1 244.0.0.2\n \tBGP.large_community: (1, 2, 3)\n\
                    1007-                   unreachable [Mesh_10_99_0_2 02:38:12] (100/-) [i]\n\
                    1012-\tBGP.origin: IGP\n \tBGP.as_path: \n \tBGP.next_hop: 10.99.0.2\n";
        let [first, second] = routes(&shown(text)).try_into().unwrap();
        assert_eq!((first.prefix, second.prefix), ("192.0.2.0/24".parse().unwrap(), first.prefix));
        assert_eq!(
            (first.protocol.as_str(), second.protocol.as_str()),
            ("Global_10_99_0_99", "Mesh_10_99_0_2")
        );
        assert_eq!(second.next_hop, Some("10.99.0.2".parse().unwrap()));
        assert_eq!(second.attributes, Attributes::default());
        let sets =
            [Segment::Sequence(smallvec![Asn(1), Asn(65002)]), Segment::Set(smallvec![Asn(4), Asn(3)])];
        let expected = Attributes {
            origin: Origin::Egp,
            as_path: AsPath { segments: sets.into_iter().collect() },
            med: Some(7),
            local_pref: Some(90),
            atomic_aggregate: true,
            aggregator: Some(Aggregator { asn: Asn(65000), router_id: [10, 0, 0, 1].into() }),
            communities: [(64512 << 16) | 100, 1].into(),
            originator_id: Some(RouterId([10, 99, 0, 3].into())),
            cluster_list: [ClusterId([244, 0, 0, 1].into()), ClusterId([244, 0, 0, 2].into())].into(),
            large_communities: [[1, 2, 3]].into(),
            ..Attributes::default()
        };
        assert_eq!(first.attributes, expected);
    }

    #[test]
    fn a_reply_ends_with_a_line_that_has_its_code_and_a_space() {
        assert_eq!(plain("0000 "), (Some("0000"), ""));
        assert_eq!(plain("8001 Network not in table"), (Some("8001"), "Network not in table"));
        assert_eq!(plain("1007-10.0.0.0/8 via"), (None, "10.0.0.0/8 via"));
        assert_eq!(plain(" \tBGP.med: 1"), (None, "\tBGP.med: 1"));
    }
}
