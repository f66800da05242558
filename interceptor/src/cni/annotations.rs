//! A pod's annotations as a capture, as Istio's own CNI plugin reads them (`cni/pkg/plugin/sidecar_redirect.go`).

use std::collections::BTreeMap;

use super::error::{CniError, Code};
use crate::capture::CaptureArgs;

/// Ports of the sidecar's own that are never intercepted.
const OWN_PORTS: [&str; 3] = ["15020", "15021", "15090"];

/// Whether the pod has an injected sidecar.
pub(super) fn is_injected(annotations: &BTreeMap<String, String>) -> bool {
    let refuses = annotations.get("sidecar.istio.io/inject").is_some_and(|inject| inject == "false");
    annotations.contains_key("sidecar.istio.io/status") && !refuses
}

/// What the annotations ask for; where they are silent, `defaults`, and where those are, what Istio does.
pub(super) fn capture(
    annotations: &BTreeMap<String, String>,
    defaults: CaptureArgs,
) -> Result<CaptureArgs, CniError> {
    let mut capture = defaults;
    let set = |setting: &mut Option<String>, name: &str, default: &str| {
        let given = annotations.get(name).map(|value| without_blanks(value));
        *setting = given.or(setting.take()).or_else(|| Some(default.to_owned()));
    };
    set(&mut capture.istio_service_cidr, "traffic.sidecar.istio.io/includeOutboundIPRanges", "*");
    set(&mut capture.istio_service_exclude_cidr, "traffic.sidecar.istio.io/excludeOutboundIPRanges", "");
    set(&mut capture.istio_inbound_ports, "traffic.sidecar.istio.io/includeInboundPorts", "*");
    set(&mut capture.istio_local_exclude_ports, "traffic.sidecar.istio.io/excludeInboundPorts", "15020");
    set(&mut capture.istio_outbound_ports, "traffic.sidecar.istio.io/includeOutboundPorts", "");
    set(
        &mut capture.istio_local_outbound_ports_exclude,
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "15020",
    );
    set(&mut capture.istio_exclude_interfaces, "traffic.sidecar.istio.io/excludeInterfaces", "");
    let rerouted = ["istio.io/reroute-virtual-interfaces", "traffic.sidecar.istio.io/kubevirtInterfaces"];
    let rerouted = rerouted.into_iter().find(|name| annotations.contains_key(*name)).unwrap_or(rerouted[0]);
    set(&mut capture.kube_virt_interfaces, rerouted, "");
    if let Some(excluded) = &mut capture.istio_local_exclude_ports {
        *excluded = with_own_ports(excluded);
    }
    match annotations.get("sidecar.istio.io/interceptionMode").map(String::as_str) {
        None => {}
        Some(mode @ ("REDIRECT" | "TPROXY")) => {
            capture.istio_inbound_interception_mode = Some(mode.to_owned());
        }
        Some(other) => {
            return Err(CniError::new(
                Code::Configuration,
                format!(
                    "the annotation sidecar.istio.io/interceptionMode is `{other}`: write REDIRECT or TPROXY"
                ),
            ));
        }
    }
    Ok(capture)
}

/// Istio takes blanks around the items of a list for nothing.
fn without_blanks(list: &str) -> String {
    list.split(',').map(str::trim).filter(|item| !item.is_empty()).collect::<Vec<_>>().join(",")
}

fn with_own_ports(list: &str) -> String {
    let mut ports: Vec<&str> = list.split(',').filter(|port| !port.is_empty()).collect();
    for port in OWN_PORTS {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_pod_without_annotations_gets_istios_defaults() {
        let capture = capture(&annotations(&[]), CaptureArgs::default()).unwrap();
        assert_eq!(capture.istio_service_cidr.as_deref(), Some("*"));
        assert_eq!(capture.istio_inbound_ports.as_deref(), Some("*"));
        assert_eq!(capture.istio_local_exclude_ports.as_deref(), Some("15020,15021,15090"));
        assert_eq!(capture.istio_local_outbound_ports_exclude.as_deref(), Some("15020"));
    }

    #[test]
    fn annotations_win_over_defaults_and_blanks_are_nothing() {
        let mut defaults = CaptureArgs::default();
        defaults.istio_outbound_ports = Some("1".to_owned());
        defaults.istio_service_exclude_cidr = Some("10.0.0.0/8".to_owned());
        let given = annotations(&[
            ("traffic.sidecar.istio.io/includeOutboundPorts", "80, 443"),
            ("traffic.sidecar.istio.io/excludeInboundPorts", " 8080 ,15090"),
        ]);
        let capture = capture(&given, defaults).unwrap();
        assert_eq!(capture.istio_outbound_ports.as_deref(), Some("80,443"));
        assert_eq!(capture.istio_service_exclude_cidr.as_deref(), Some("10.0.0.0/8"));
        assert_eq!(capture.istio_local_exclude_ports.as_deref(), Some("8080,15090,15020,15021"));
    }

    #[test]
    fn a_mode_there_is_not_is_refused() {
        let given = annotations(&[("sidecar.istio.io/interceptionMode", "NONE")]);
        let error = capture(&given, CaptureArgs::default()).unwrap_err();
        assert_eq!(error.code(), Code::Configuration);
    }
}
