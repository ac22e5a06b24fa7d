//! What is wrong in the datastore, or not done.
//!
//! Owns: [`Problem`], its [`Code`], which programs may rely on, and the form in which both are shown. Never: finds one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Something is left out or done as a default; nothing that worked is lost.
    Warning,
    /// Something that the resources ask for is not done; `check` fails.
    Error,
}

impl Severity {
    /// One word for people and for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

macro_rules! codes {
    ($($variant:ident $name:literal $severity:ident $meaning:literal,)*) => {
        /// What kind of problem it is, for programs: words may change, these do not. Each is always as bad.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Code] = &[$(Code::$variant,)*];

            /// The code in JSON and in documents.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Code::$variant => Severity::$severity,)* }
            }

            /// What it means, for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    // Sources and decoders.
    Unreadable "unreadable" Error "A text that is no YAML or JSON, or a file that cannot be read.",
    NoResource "no-resource" Error "A document that is no resource: no name, no kind, another version of its API.",
    Twice "twice" Error "A resource that stands in more than one place.",
    FieldRefused "field-refused" Error "A field that cannot be used; it keeps its last good value, or what depends on it is left out.",
    FieldDefaulted "field-defaulted" Warning "A field that is read as a default.",
    KindRefused "kind-refused" Error "A kind that the datastore does not let us read.",
    // The node itself.
    NoLocalNode "no-local-node" Error "There is no Node of this node's name that can be used: nothing is configured until there is.",
    NoNodeAddress "no-node-address" Error "This node has no address for BGP: no session is configured.",
    InvalidSetting "invalid-setting" Error "A setting of the environment that cannot be used; its default, or what the datastore says, is used.",
    UnknownRelease "unknown-release" Warning "The cluster's release of Calico is not known, and one is assumed.",
    DatastoreLocked "datastore-locked" Warning "The datastore is locked; a daemon that runs keeps its configuration.",
    UnquotedTag "unquoted-tag" Error "A text without quotes that YAML takes for a tag, as `!has(rack)`; it is not read.",
    // Configuration.
    IgnoredResource "ignored-resource" Warning "A resource at which Calico does not look.",
    IgnoredField "ignored-field" Warning "A field that counts elsewhere only, or has no effect as it stands.",
    UnknownLabelValue "unknown-label-value" Warning "A label that Calico knows, with a value that it does not know.",
    UnknownCommunity "unknown-community" Error "A text that is neither a community nor the name of one; it is left out.",
    EqualPool "equal-pool" Warning "Two IPPools have one CIDR, and only one of them counts.",
    // Sessions.
    SharedNodeAddress "shared-node-address" Error "Two Nodes have one address, and only one of them gets a session.",
    NoPeerAddress "no-peer-address" Error "A BGPPeer with neither an address nor a selector.",
    LinkLocalAddress "link-local-address" Error "A link-local address without its interface.",
    NoAddressOfFamily "no-address-of-family" Warning "This node has no address of the peer's address family.",
    GatewayOfOtherFamily "gateway-of-other-family" Error "`reachableBy` is of the other address family than the peer.",
    PeerIsThisNode "peer-is-this-node" Error "A BGPPeer of this node has this node's own address.",
    OverriddenPeering "overridden-peering" Warning "Another BGPPeer already asks for the session, and that one counts.",
    UnknownFilter "unknown-filter" Error "A BGPPeer names a BGPFilter that does not exist.",
    MissingSecret "missing-secret" Error "The Secret with the password of a session, or the key in it, cannot be had.",
    InvalidPassword "invalid-password" Error "A password that TCP MD5 cannot carry.",
    DoubtfulPassword "doubtful-password" Warning "A password that most likely is not what was meant.",
    TimeTooLong "time-too-long" Error "A time that BGP cannot carry; a shorter one is used.",
    KeptFilter "kept-filter" Error "A BGPFilter that is in use was deleted; what it said last stays in force.",
    DoubtfulFilterRule "doubtful-filter-rule" Warning "A rule of a BGPFilter whose prefix condition matches every prefix or none.",
    ExclusiveFields "exclusive-fields" Error "Fields of a BGPPeer that exclude each other; one of them counts.",
    UnusedPassword "unused-password" Warning "A password that nothing reads.",
    SharedClusterId "shared-cluster-id" Warning "Reflectors have one cluster id, and not every session that this asks for.",
    ReflectorByAddress "reflector-by-address" Warning "A reflector of the same cluster id is taken for a client, for its BGPPeer has an address.",
    // Routes.
    HostMask "host-mask" Warning "A Node's address has the mask of a host, and there is a pool with CrossSubnet: all other nodes are off its subnet.",
    RoutesWithoutOwner "routes-without-owner" Error "By `programClusterRoutes` of BGPConfiguration and FelixConfiguration nobody writes the routes of a type of pools that there is.",
    RoutesWithTwoOwners "routes-with-two-owners" Warning "By the same two fields two write them.",
    // Services.
    ServiceOnNodeAddress "service-on-node-address" Warning "An address of a Service is that of a Node; the kernel gets no blackhole for it.",
}

/// Input that was refused, or whose effect is not built yet: which resource, which field, why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Problem {
    /// `Kind/name` (with a namespace `Kind/namespace/name`), a file's path with the document's number, or an etcd key.
    pub resource: String,
    /// Path of the field, as in `spec.bgp.ipv4Address`; empty where the whole resource is meant.
    pub field: String,
    /// One sentence without a full stop.
    pub why: String,
    /// What kind of problem.
    pub code: Code,
}

impl Problem {
    /// One of the whole resource, or of a document or file.
    pub fn of_whole(code: Code, resource: impl Into<String>, why: impl Into<String>) -> Problem {
        Problem { resource: resource.into(), field: String::new(), why: why.into(), code }
    }

    /// How bad.
    pub const fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// Whether something that the resources ask for is not done.
    pub fn is_error(&self) -> bool {
        self.severity() == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}", self.resource, self.why)
        } else {
            write!(f, "{}: {}: {}", self.resource, self.field, self.why)
        }
    }
}

/// A problem in JSON, and in lists for people.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemView {
    /// `warning` or `error`.
    pub severity: String,
    /// What kind of problem: a word that stays as it is.
    #[serde(default)]
    pub code: String,
    /// Which resource.
    pub resource: String,
    /// Which field; empty where the whole resource is meant.
    pub field: String,
    /// Why.
    pub why: String,
}

impl From<&Problem> for ProblemView {
    fn from(problem: &Problem) -> Self {
        ProblemView {
            severity: problem.severity().name().to_owned(),
            code: problem.code.name().to_owned(),
            resource: problem.resource.clone(),
            field: problem.field.clone(),
            why: problem.why.clone(),
        }
    }
}

/// Severity, what [`Problem`] says, and the code.
impl fmt::Display for ProblemView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { String::new() } else { format!("{}: ", self.field) };
        write!(f, "{}: {}: {field}{} [{}]", self.severity, self.resource, self.why, self.code)
    }
}

/// All problems, a line each, and how many of each kind there are.
pub fn list(problems: &[ProblemView]) -> String {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error.name()).count();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let lines: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    format!("{lines}{}, {}\n", count(errors, "error"), count(problems.len() - errors, "warning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page is written by hand around the table.
    #[test]
    fn each_code_stands_once_and_is_documented_with_how_bad_it_is() {
        let mut names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        let page = include_str!("../../docs/problems.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let wanted: Vec<String> = Code::ALL
            .iter()
            .map(|code| format!("| `{}` | {} | {} |", code.name(), code.severity().name(), code.meaning()))
            .collect();
        assert_eq!(rows, wanted, "docs/problems.md has to say:\n{}", wanted.join("\n"));
    }
}
