//! Endpoints of clusters that have no EndpointSlices, or do not let them be read, as EndpointSlices (REL-10).
//!
//! Owns: which slices an Endpoints object stands for: one of each family, so that each change of the object changes both.
//! Never: reads what an EndpointSlice says.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// The slices that `object` stands for.
pub fn slices(object: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let word =
        |name: &str| object.get("metadata").and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
    let (Some(name), namespace) = (word("name"), word("namespace").unwrap_or_default()) else {
        return Vec::new();
    };
    let mut families = [("ipv4", "IPv4", Vec::new()), ("ipv6", "IPv6", Vec::new())];
    for subset in list(object.get("subsets")) {
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in list(subset.get(field)) {
                let text = address.get("ip").and_then(Value::as_str).unwrap_or_default();
                let Ok(ip) = text.parse::<IpAddr>() else { continue };
                let endpoint = json!({
                    "addresses": [text],
                    "conditions": {"ready": ready},
                    "nodeName": address.get("nodeName").cloned().unwrap_or_default(),
                });
                let [(.., v4), (.., v6)] = &mut families;
                if ip.is_ipv4() { v4.push(endpoint) } else { v6.push(endpoint) }
            }
        }
    }
    let slice = |(suffix, family, endpoints): (&str, &str, Vec<Value>)| {
        let metadata = json!({
            "name": format!("{name}-{suffix}"),
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        });
        Map::from_iter([
            ("metadata".to_owned(), metadata),
            ("addressType".to_owned(), json!(family)),
            ("endpoints".to_owned(), Value::Array(endpoints)),
        ])
    };
    families.into_iter().map(slice).collect()
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoints_object_stands_for_a_slice_of_each_family() {
        let object = json!({
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"},
            "subsets": [
                {"addresses": [{"ip": "10.1.0.1", "nodeName": "a"}, {"ip": "fd00::1"}, {"ip": "no"}]},
                {"notReadyAddresses": [{"ip": "10.1.0.2", "nodeName": "b"}]}
            ]
        });
        let slices = slices(object.as_object().unwrap());
        let endpoint = |ip: &str, node: Value, ready: bool| json!({"addresses": [ip], "conditions": {"ready": ready}, "nodeName": node});
        let of = |suffix: &str, family: &str, endpoints: Vec<Value>| {
            json!({
                "metadata": {"name": format!("web-{suffix}"), "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": family, "endpoints": endpoints
            })
        };
        let v4 = vec![endpoint("10.1.0.1", json!("a"), true), endpoint("10.1.0.2", json!("b"), false)];
        let wanted =
            [of("ipv4", "IPv4", v4), of("ipv6", "IPv6", vec![endpoint("fd00::1", Value::Null, true)])];
        assert_eq!(slices.into_iter().map(Value::Object).collect::<Vec<_>>(), wanted);
        let bare = json!({"metadata": {"name": "web", "namespace": "shop"}, "subsets": null});
        assert_eq!(super::slices(bare.as_object().unwrap()).len(), 2);
    }
}
