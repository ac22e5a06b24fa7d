//! What is followed, and where the API server has it (DS-30, DS-31).
//!
//! Owns: [`Resource`], kinds with their plurals and groups; which of Calico's two groups counts; whether the server has
//! a kind at all. Never: reads what a resource says.

use serde::Deserialize;

use super::api::{ANSWER, Api, Failure};
use super::items::malformed;
use crate::datastore::settings::ApiGroup;
use crate::model::Kind;

/// An answer of discovery that is longer is none.
const LONGEST: usize = 8 << 20;
const ENDPOINTS: &str = "endpoints";

/// Where a kind is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Home {
    /// `/api/v1`.
    Core,
    /// One of Calico's groups.
    Calico,
    /// `discovery.k8s.io/v1`.
    Discovery,
}

/// One collection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// Its kind.
    pub kind: Kind,
    plural: &'static str,
    home: Home,
    /// Nothing can be said without it; others are done without where the server has or gives none.
    pub needed: bool,
    /// One object of one namespace, where it is not the whole collection.
    pub only: Option<(String, String)>,
}

/// All of Calico's that are read, and of Kubernetes' own Nodes, Services and EndpointSlices; without block affinities
/// where pod CIDRs stand in for them (DS-38).
pub fn resources(use_pod_cidr: bool) -> Vec<Resource> {
    let all = [
        (Kind::Node, "nodes", Home::Core, true),
        (Kind::BgpConfiguration, "bgpconfigurations", Home::Calico, true),
        (Kind::BgpPeer, "bgppeers", Home::Calico, true),
        (Kind::BgpFilter, "bgpfilters", Home::Calico, false),
        (Kind::IpPool, "ippools", Home::Calico, true),
        (Kind::BlockAffinity, "blockaffinities", Home::Calico, true),
        (Kind::ClusterInformation, "clusterinformations", Home::Calico, false),
        (Kind::FelixConfiguration, "felixconfigurations", Home::Calico, false),
        (Kind::Service, "services", Home::Core, false),
    ];
    all.into_iter()
        .filter(|(kind, ..)| *kind != Kind::BlockAffinity || !use_pod_cidr)
        .map(|(kind, plural, home, needed)| Resource { kind, plural, home, needed, only: None })
        .chain([endpoint_slices()])
        .collect()
}

/// What says the same as EndpointSlices, in older clusters (REL-10).
pub fn endpoints() -> Resource {
    Resource { kind: Kind::EndpointSlice, plural: ENDPOINTS, home: Home::Core, needed: false, only: None }
}

/// EndpointSlices.
pub fn endpoint_slices() -> Resource {
    Resource {
        kind: Kind::EndpointSlice,
        plural: "endpointslices",
        home: Home::Discovery,
        needed: false,
        only: None,
    }
}

/// One Secret (DS-40).
pub fn secret(namespace: &str, name: &str) -> Resource {
    let only = Some((namespace.to_owned(), name.to_owned()));
    Resource { kind: Kind::Secret, plural: "secrets", home: Home::Core, needed: false, only }
}

/// The group that has Calico's resources.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CalicoGroup {
    /// `crd.projectcalico.org/v1`.
    V1,
    /// `projectcalico.org/v3`.
    V3,
}

impl CalicoGroup {
    fn path(self) -> &'static str {
        match self {
            CalicoGroup::V1 => "crd.projectcalico.org/v1",
            CalicoGroup::V3 => "projectcalico.org/v3",
        }
    }

    /// The one that is set, or else that the server shows: the new one only where there is no old one, for where both
    /// are, the new one is an API server of Calico's in front of the old one.
    ///
    /// # Errors
    ///
    /// Where the server cannot be asked; where it refuses to say, it is the old one.
    pub async fn choose(api: &Api) -> Result<CalicoGroup, Failure> {
        match api.settings().api_group {
            ApiGroup::V1 => return Ok(CalicoGroup::V1),
            ApiGroup::V3 => return Ok(CalicoGroup::V3),
            ApiGroup::Discover => {}
        }
        let groups = match discovery(api, "/apis").await {
            Ok(discovery) => discovery.groups.unwrap_or_default(),
            Err(Failure::Refused { status: 403 | 404 | 406, .. }) => Vec::new(),
            Err(failure) => return Err(failure),
        };
        let has = |wanted: &str| groups.iter().any(|group| group.name == wanted);
        Ok(match has("projectcalico.org") && !has("crd.projectcalico.org") {
            true => CalicoGroup::V3,
            false => CalicoGroup::V1,
        })
    }
}

impl Resource {
    fn group(&self, calico: CalicoGroup) -> String {
        match self.home {
            Home::Core => "/api/v1".to_owned(),
            Home::Calico => format!("/apis/{}", calico.path()),
            Home::Discovery => "/apis/discovery.k8s.io/v1".to_owned(),
        }
    }

    /// Whether it is Endpoints in the place of EndpointSlices.
    pub fn is_endpoints(&self) -> bool {
        self.plural == ENDPOINTS
    }

    /// Whether it is in one of Calico's groups.
    pub fn is_calico(&self) -> bool {
        self.home == Home::Calico
    }

    /// The collection's path with the start of a query, to which more may be added.
    pub fn path(&self, calico: CalicoGroup) -> String {
        let group = self.group(calico);
        match &self.only {
            None => format!("{group}/{}?", self.plural),
            Some((namespace, name)) => {
                format!(
                    "{group}/namespaces/{}/{}?fieldSelector=metadata.name%3D{}&",
                    text(namespace),
                    self.plural,
                    text(name)
                )
            }
        }
    }

    /// Whether the server has the kind. A refusal does not say: who may not read a kind is told so whether it is there or
    /// not.
    ///
    /// # Errors
    ///
    /// Where the server cannot be asked.
    pub async fn is_served(&self, api: &Api, calico: CalicoGroup) -> Result<bool, Failure> {
        if self.home == Home::Core {
            return Ok(true);
        }
        match discovery(api, &self.group(calico)).await {
            Ok(discovery) => {
                let has =
                    |resources: Vec<Named>| resources.iter().any(|resource| resource.name == self.plural);
                Ok(discovery.resources.is_some_and(has))
            }
            Err(Failure::Refused { status: 404, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

/// Text for a URL.
pub fn text(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => {
                use std::fmt::Write as _;
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Discovery {
    groups: Option<Vec<Named>>,
    resources: Option<Vec<Named>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
}

async fn discovery(api: &Api, path: &str) -> Result<Discovery, Failure> {
    let mut answer = api.get(path).await?;
    let mut text = Vec::new();
    while let Some(piece) = api.piece(&mut answer, ANSWER).await? {
        text.extend_from_slice(&piece);
        if text.len() > LONGEST {
            break;
        }
    }
    // What cannot be read says nothing: least of all that there is nothing.
    serde_json::from_slice(&text).map_err(|error| Failure::malformed(&answer.server, &malformed(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_where_its_group_is() {
        let of = |kind| resources(false).into_iter().find(|resource| resource.kind == kind).unwrap();
        let (v1, v3) = (CalicoGroup::V1, CalicoGroup::V3);
        assert_eq!(of(Kind::Node).path(v3), "/api/v1/nodes?");
        assert_eq!(of(Kind::BgpPeer).path(v1), "/apis/crd.projectcalico.org/v1/bgppeers?");
        assert_eq!(of(Kind::BgpPeer).path(v3), "/apis/projectcalico.org/v3/bgppeers?");
        assert_eq!(of(Kind::EndpointSlice).path(v1), "/apis/discovery.k8s.io/v1/endpointslices?");
        assert_eq!(
            secret("kube-system", "a b").path(v1),
            "/api/v1/namespaces/kube-system/secrets?fieldSelector=metadata.name%3Da%20b&"
        );
        assert!(resources(true).iter().all(|resource| resource.kind != Kind::BlockAffinity));
    }
}
