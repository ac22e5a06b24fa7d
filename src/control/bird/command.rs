//! What is asked on BIRD's socket (CTL-7, CTL-9, CTL-21, CTL-26, CTL-27).
//!
//! Owns: the grammar: full words only, names and `"patterns"`. Never: knows what there is. Input: one line. Output:
//! a [`BirdCommand`], or the reply to a line that is none.

use std::net::IpAddr;

use bgp_proto::{Afi, IpPrefix};

use super::reply::code;

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BirdCommand {
    /// `show status`.
    Status,
    /// `show protocols [all] [name | "pattern"]`.
    Protocols {
        /// With details.
        all: bool,
        /// Which.
        which: Which,
    },
    /// `show route …`.
    Route(RouteQuery),
    /// `show interfaces [summary]`.
    Interfaces {
        /// One line for each.
        summary: bool,
    },
    /// `show symbols`.
    Symbols,
    /// `show memory`.
    Memory,
    /// `configure …`.
    Configure(ConfigureCommand),
    /// `enable`.
    Enable(Which),
    /// `disable` or `restart`, which only the datastore can ask for here.
    Switch(Which),
    /// `reload [in | out]`.
    Reload {
        /// The peer sends its routes again.
        inward: bool,
        /// We send ours again.
        outward: bool,
        /// Which.
        which: Which,
    },
    /// `restrict`.
    Restrict,
    /// `down`.
    Down,
    /// `echo`, `debug`, `dump`, `mrtdump`: taken, and without effect.
    Nothing,
}

impl BirdCommand {
    /// Whether a restricted connection may not ask for it (CTL-8).
    pub const fn changes(&self) -> bool {
        matches!(
            self,
            BirdCommand::Configure(_)
                | BirdCommand::Enable(_)
                | BirdCommand::Switch(_)
                | BirdCommand::Reload { .. }
                | BirdCommand::Down
                | BirdCommand::Nothing
        )
    }
}

/// Which protocols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// All.
    All,
    /// That one.
    Name(String),
    /// Those that match; `*` and `?`.
    Pattern(String),
}

/// `configure`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigureCommand {
    /// Do it; undo it by itself after so many seconds.
    Now {
        /// `timeout`.
        undo: Option<u32>,
    },
    /// See whether it could be done.
    Check,
    /// Keep it.
    Confirm,
    /// Take it back.
    Undo,
}

/// `show route`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RouteQuery {
    /// Which destinations.
    pub what: Destinations,
    /// With attributes.
    pub all: bool,
    /// The best of each destination only.
    pub primary: bool,
    /// Those that import refused.
    pub filtered: bool,
    /// Of this protocol.
    pub protocol: Option<String>,
    /// As this protocol is told of them.
    pub export: Option<(Export, String)>,
    /// With a count at the end; `true`: nothing but that.
    pub count: Option<bool>,
}

impl RouteQuery {
    /// The one form that Calico's status reporter asks for and parses (CTL-32, CTL-33).
    pub fn is_plain(&self) -> bool {
        *self == RouteQuery::default()
    }
}

/// Destinations of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Destinations {
    /// All.
    #[default]
    All,
    /// This one.
    Exact(IpPrefix),
    /// The one that a packet to this would take.
    For(IpPrefix),
}

/// How a protocol is told of routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Export {
    /// What it gets.
    Export,
    /// What its filter is asked about.
    Before,
    /// What its filter refuses.
    Refused,
}

/// The reply to a line that is no request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandFault {
    /// Its code.
    pub code: u16,
    /// Its text.
    pub text: String,
}

impl CommandFault {
    /// A fault.
    pub fn new(code: u16, text: impl Into<String>) -> CommandFault {
        CommandFault { code, text: text.into() }
    }

    fn syntax() -> CommandFault {
        CommandFault::new(code::SYNTAX, "syntax error")
    }
}

/// Words of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word<'l> {
    Plain(&'l str),
    Quoted(&'l str),
}

fn words(line: &str) -> Option<Vec<Word<'_>>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let after = if let Some(quoted) = rest.strip_prefix('"') {
            let (text, after) = quoted.split_once('"')?;
            words.push(Word::Quoted(text));
            after
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
            let (text, after) = rest.split_at_checked(end)?;
            words.push(Word::Plain(text));
            after
        };
        rest = after.trim_start();
    }
    Some(words)
}

/// Reads one line of a client of this family.
pub fn parse(line: &str, afi: Afi) -> Result<BirdCommand, CommandFault> {
    let words = words(line).ok_or_else(CommandFault::syntax)?;
    let plain: Vec<&str> = words
        .iter()
        .map(|word| match word {
            Word::Plain(text) => *text,
            Word::Quoted(_) => "\"",
        })
        .collect();
    let rest = |from: usize| words.get(from..).unwrap_or_default();
    match plain.as_slice() {
        ["show", "status"] => Ok(BirdCommand::Status),
        ["show", "memory"] => Ok(BirdCommand::Memory),
        ["show", "symbols", ..] => Ok(BirdCommand::Symbols),
        ["show", "interfaces"] => Ok(BirdCommand::Interfaces { summary: false }),
        ["show", "interfaces", "summary"] => Ok(BirdCommand::Interfaces { summary: true }),
        ["show", "protocols", "all", ..] => {
            Ok(BirdCommand::Protocols { all: true, which: which(rest(3), true)? })
        }
        ["show", "protocols", ..] => Ok(BirdCommand::Protocols { all: false, which: which(rest(2), true)? }),
        ["show", "route", ..] => route(rest(2), afi).map(BirdCommand::Route),
        ["show", "bfd", "sessions", ..] => {
            Err(CommandFault::new(code::SYNTAX, "There is no BFD protocol running"))
        }
        ["configure", rest @ ..] => configure(rest),
        ["enable", ..] => Ok(BirdCommand::Enable(which(rest(1), false)?)),
        ["disable" | "restart", ..] => Ok(BirdCommand::Switch(which(rest(1), false)?)),
        ["reload", "in", ..] => {
            Ok(BirdCommand::Reload { inward: true, outward: false, which: which(rest(2), false)? })
        }
        ["reload", "out", ..] => {
            Ok(BirdCommand::Reload { inward: false, outward: true, which: which(rest(2), false)? })
        }
        ["reload", ..] => {
            Ok(BirdCommand::Reload { inward: true, outward: true, which: which(rest(1), false)? })
        }
        ["restrict"] => Ok(BirdCommand::Restrict),
        ["down"] => Ok(BirdCommand::Down),
        ["echo" | "debug" | "dump" | "mrtdump", _, ..] => Ok(BirdCommand::Nothing),
        _ => Err(CommandFault::syntax()),
    }
}

/// One name or pattern; nothing at all, or `all`, is all where that may be.
fn which(words: &[Word<'_>], may_be_empty: bool) -> Result<Which, CommandFault> {
    match words {
        [] if may_be_empty => Ok(Which::All),
        [Word::Plain("all")] => Ok(Which::All),
        [Word::Plain(name)] => Ok(Which::Name((*name).to_string())),
        [Word::Quoted(pattern)] => Ok(Which::Pattern((*pattern).to_string())),
        _ => Err(CommandFault::syntax()),
    }
}

fn configure(words: &[&str]) -> Result<BirdCommand, CommandFault> {
    // The name of another file may stand at the end.
    let words: &[&str] = match words {
        [before @ .., "\""] => before,
        words => words,
    };
    let now = |undo| Ok(BirdCommand::Configure(ConfigureCommand::Now { undo }));
    match words {
        [] | ["soft"] => now(None),
        ["timeout"] | ["soft", "timeout"] => now(Some(300)),
        ["timeout", secs] | ["soft", "timeout", secs] => {
            secs.parse().map_err(|_| CommandFault::syntax()).and_then(|secs| now(Some(secs)))
        }
        ["check"] => Ok(BirdCommand::Configure(ConfigureCommand::Check)),
        ["confirm"] => Ok(BirdCommand::Configure(ConfigureCommand::Confirm)),
        ["undo"] => Ok(BirdCommand::Configure(ConfigureCommand::Undo)),
        _ => Err(CommandFault::syntax()),
    }
}

fn route(words: &[Word<'_>], afi: Afi) -> Result<RouteQuery, CommandFault> {
    let mut query = RouteQuery::default();
    let mut words = words.iter().map(|word| match word {
        Word::Plain(text) => *text,
        Word::Quoted(_) => "\"",
    });
    while let Some(word) = words.next() {
        let mut name = || words.next().ok_or_else(CommandFault::syntax);
        match word {
            "all" => query.all = true,
            "primary" => query.primary = true,
            "filtered" => query.filtered = true,
            "stats" => query.count = Some(false),
            "count" => query.count = Some(true),
            "protocol" => query.protocol = Some(name()?.to_string()),
            "export" => query.export = Some((Export::Export, name()?.to_string())),
            "preexport" => query.export = Some((Export::Before, name()?.to_string())),
            "noexport" => query.export = Some((Export::Refused, name()?.to_string())),
            "table" => match name()? {
                "master" => {}
                other => return Err(CommandFault::new(code::SYNTAX, format!("{other} is not a table"))),
            },
            "for" => query.what = Destinations::For(prefix(name()?, afi)?),
            "where" | "filter" => {
                return Err(CommandFault::new(
                    code::SYNTAX,
                    "filters are not supported here; see calico-bgpd show routes",
                ));
            }
            word if query.what == Destinations::All
                && word.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':') =>
            {
                query.what = Destinations::Exact(prefix(word, afi)?);
            }
            _ => return Err(CommandFault::syntax()),
        }
    }
    Ok(query)
}

/// An address or a prefix of the family of the socket.
fn prefix(text: &str, afi: Afi) -> Result<IpPrefix, CommandFault> {
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(len)),
        None => (text, None),
    };
    let (looks_right, family) = match afi {
        Afi::Ipv4 => (addr.starts_with(|c: char| c.is_ascii_digit()) && addr.contains('.'), "IPv4"),
        Afi::Ipv6 => (addr.contains(':'), "IPv6"),
    };
    if !looks_right {
        return Err(CommandFault::syntax());
    }
    let parsed: IpAddr = addr
        .parse()
        .ok()
        .filter(|parsed: &IpAddr| Afi::of(*parsed) == afi)
        .ok_or_else(|| CommandFault::new(code::SYNTAX, format!("Invalid {family} address {addr}")))?;
    let Some(len) = len else { return Ok(IpPrefix::host(parsed)) };
    let len: u8 = len.parse().map_err(|_| CommandFault::syntax())?;
    IpPrefix::new(parsed, len)
        .filter(|prefix| prefix.addr() == parsed)
        .ok_or_else(|| CommandFault::new(code::SYNTAX, format!("Invalid prefix {text}")))
}

/// Whether `name` matches a pattern of `*` and `?` (CTL-21).
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || Some(c) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    p = at + 1;
                    n = taken + 1;
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<BirdCommand, CommandFault> {
        parse(line, Afi::Ipv4)
    }

    /// CTL-7, CTL-26: as recorded of BIRD.
    #[test]
    fn what_bird_does_not_take_is_refused_in_its_words() {
        for (line, code, text) in [
            ("show", 9001, "syntax error"),
            ("sho prot", 9001, "syntax error"),
            ("bogus", 9001, "syntax error"),
            ("", 9001, "syntax error"),
            ("?", 9001, "syntax error"),
            ("show route for", 9001, "syntax error"),
            ("show route 10.300.0.0/26", 9001, "Invalid IPv4 address 10.300.0.0"),
            ("show route fd00::/64", 9001, "syntax error"),
            ("show protocols \"a", 9001, "syntax error"),
            ("show bfd sessions", 9001, "There is no BFD protocol running"),
            ("enable", 9001, "syntax error"),
        ] {
            assert_eq!(ask(line), Err(CommandFault::new(code, text)), "{line}");
        }
        let six = |line| parse(line, Afi::Ipv6);
        assert_eq!(six("show route 198.51.100.0/24"), Err(CommandFault::syntax()));
        assert_eq!(six("show route for 203.0.113.9"), Err(CommandFault::syntax()));
        assert!(six("show route for fd00::1 all").is_ok());
    }

    #[test]
    fn the_words_of_a_listing_combine() {
        let expected = RouteQuery {
            what: Destinations::For("10.244.1.6/32".parse().unwrap()),
            all: true,
            primary: true,
            protocol: Some("kernel1".into()),
            count: Some(true),
            ..RouteQuery::default()
        };
        let line = "show route for 10.244.1.6 table master protocol kernel1 all primary count\r";
        assert_eq!(ask(line), Ok(BirdCommand::Route(expected)));
        assert!(matches!(ask("show route"), Ok(BirdCommand::Route(query)) if query.is_plain()));
        assert!(matches!(ask("show route all"), Ok(BirdCommand::Route(query)) if !query.is_plain()));
    }

    #[test]
    fn names_and_patterns_are_told_apart() {
        let which = |line| match ask(line) {
            Ok(BirdCommand::Protocols { which, .. }) => which,
            other => panic!("{other:?}"),
        };
        assert_eq!(which("show protocols"), Which::All);
        assert_eq!(which("show protocols all Mesh_1"), Which::Name("Mesh_1".into()));
        assert_eq!(which("show protocols \"Mesh_*\""), Which::Pattern("Mesh_*".into()));
        for (pattern, name, expected) in [
            ("Mesh_*", "Mesh_10_0_0_2", true),
            ("*_2", "Mesh_10_2_0_2", true),
            ("Mesh_10_0_0_?", "Mesh_10_0_0_2", true),
            ("Mesh_10_0_0_?", "Mesh_10_0_0_22", false),
            ("", "x", false),
            ("*a*b", "xaxbxab", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn configure_takes_its_variants_and_the_name_of_a_file() {
        for (line, expected) in [
            ("configure", ConfigureCommand::Now { undo: None }),
            ("configure soft", ConfigureCommand::Now { undo: None }),
            ("configure \"/etc/bird.cfg\"", ConfigureCommand::Now { undo: None }),
            ("configure timeout 10", ConfigureCommand::Now { undo: Some(10) }),
            ("configure timeout", ConfigureCommand::Now { undo: Some(300) }),
            ("configure check", ConfigureCommand::Check),
            ("configure undo", ConfigureCommand::Undo),
        ] {
            assert_eq!(ask(line), Ok(BirdCommand::Configure(expected)), "{line}");
        }
    }
}
