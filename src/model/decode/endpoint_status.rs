//! What Felix writes of each workload of its node (PEER-30).
//!
//! Owns: which of it makes the workload a peer (PEER-31, PEER-32). Never: reads the files.

use std::net::IpAddr;

use bgp_proto::IpPrefix;
use serde::Deserialize;

use crate::model::WorkloadPeer;

/// The fields that we use; all others are Felix's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointStatus {
    #[serde(default)]
    bgp_peer_name: String,
    #[serde(default)]
    ipv4_nets: Vec<String>,
    #[serde(default)]
    ipv6_nets: Vec<String>,
}

/// Reads a file: the peer that the workload is, if it is one.
///
/// # Errors
/// Why the file cannot be read.
pub fn endpoint_status(text: &str) -> Result<Option<WorkloadPeer>, String> {
    let status: EndpointStatus = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if status.bgp_peer_name.is_empty() {
        return Ok(None);
    }
    let first = |nets: &[String], v4: bool| -> Result<Option<IpAddr>, String> {
        let Some(text) = nets.first() else { return Ok(None) };
        let net: IpPrefix = text.parse().map_err(|_| format!("{text:?} is no address"))?;
        if net.addr().is_ipv4() == v4 {
            Ok(Some(net.addr()))
        } else {
            Err(format!("{text:?} is of the other family"))
        }
    };
    let addresses = [first(&status.ipv4_nets, true)?, first(&status.ipv6_nets, false)?];
    let addresses: Vec<IpAddr> = addresses.into_iter().flatten().collect();
    Ok((!addresses.is_empty()).then_some(WorkloadPeer { peer: status.bgp_peer_name, addresses }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_names_a_bgp_peer_is_a_peer_at_its_first_addresses() {
        let text = r#"{"ifaceName":"cali97e1defe654","mac":"ee:ee:ee:ee:ee:ee","ipv4Nets":["192.168.162.134/32","10.0.0.1/32"],
            "ipv6Nets":["fd00:10:244::a284/128"],"bgpPeerName":"tor"}"#;
        let peer = endpoint_status(text).unwrap().unwrap();
        assert_eq!(peer.peer, "tor");
        let wanted: Vec<IpAddr> =
            vec!["192.168.162.134".parse().unwrap(), "fd00:10:244::a284".parse().unwrap()];
        assert_eq!(peer.addresses, wanted);
    }

    #[test]
    fn one_that_names_none_or_has_no_address_is_no_peer_and_one_with_a_wrong_address_is_an_error() {
        assert_eq!(endpoint_status(r#"{"ipv4Nets":["10.0.0.1/32"]}"#), Ok(None));
        assert_eq!(endpoint_status(r#"{"bgpPeerName":"tor"}"#), Ok(None));
        for bad in [
            r#"{"bgpPeerName":"tor","ipv4Nets":["x","10.0.0.1/32"],"ipv6Nets":["fd00::1/128"]}"#,
            r#"{"bgpPeerName":"tor","ipv4Nets":["fd00::1/128"]}"#,
            r#"{"bgpPeerName":7}"#,
            "",
        ] {
            assert!(endpoint_status(bad).is_err(), "{bad}");
        }
    }
}
