//! The environment variables of `istio-iptables`.

use std::collections::BTreeMap;

use super::args::{CaptureArgs, go_bool};

/// Reads the settings an environment makes. A boolean that cannot be parsed is dropped, as Istio does, with a warning.
pub(super) fn settings(environment: &BTreeMap<String, String>) -> (CaptureArgs, Vec<String>) {
    let mut warnings = Vec::new();
    let text = |name: &str| environment.get(name).cloned();
    // Of several names for one setting the last wins, if it can be parsed.
    let mut switch = |names: &[&str]| {
        let mut chosen = None;
        for name in names {
            let (value, warning) = read_switch(environment, name);
            chosen = value.or(chosen);
            warnings.extend(warning);
        }
        chosen
    };
    let args = CaptureArgs {
        envoy_port: None,
        redirect_dns: switch(&["REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"]),
        capture_all_dns: switch(&["CAPTURE_ALL_DNS"]),
        drop_invalid: switch(&["DROP_INVALID", "INVALID_DROP"]),
        dual_stack: switch(&["DUAL_STACK", "ISTIO_DUAL_STACK"]),
        inbound_capture_port: text("INBOUND_CAPTURE_PORT"),
        inbound_tunnel_port: text("INBOUND_TUNNEL_PORT"),
        proxy_uid: text("PROXY_UID"),
        proxy_gid: text("PROXY_GID"),
        istio_inbound_interception_mode: text("ISTIO_INBOUND_INTERCEPTION_MODE"),
        istio_inbound_ports: text("ISTIO_INBOUND_PORTS"),
        istio_local_exclude_ports: text("ISTIO_LOCAL_EXCLUDE_PORTS"),
        istio_service_cidr: text("ISTIO_SERVICE_CIDR"),
        istio_service_exclude_cidr: text("ISTIO_SERVICE_EXCLUDE_CIDR"),
        istio_outbound_ports: text("ISTIO_OUTBOUND_PORTS"),
        istio_local_outbound_ports_exclude: text("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"),
        kube_virt_interfaces: text("KUBE_VIRT_INTERFACES"),
        istio_exclude_interfaces: text("ISTIO_EXCLUDE_INTERFACES"),
        istio_inbound_tproxy_mark: text("ISTIO_INBOUND_TPROXY_MARK"),
        istio_inbound_tproxy_route_table: text("ISTIO_INBOUND_TPROXY_ROUTE_TABLE"),
        ipv6: None,
        dns_servers: None,
        owner_groups: text("ISTIO_OUTBOUND_OWNER_GROUPS"),
        owner_groups_exclude: text("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"),
        loopback_cidr: text("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"),
        self_calls: None,
        intercept_inbound_tunnel: None,
        intercept_self_call_tunnel: None,
        intercept_passthrough_source: None,
        udp_dns_first: None,
        config: None,
        logging: super::args::Logging::default(),
    };
    (args, warnings)
}

/// Reads one boolean, or says why it is ignored.
pub(super) fn read_switch(
    environment: &BTreeMap<String, String>,
    name: &str,
) -> (Option<bool>, Option<String>) {
    let Some(value) = environment.get(name) else { return (None, None) };
    if let Ok(value) = go_bool(value) {
        return (Some(value), None);
    }
    let why = format!("the environment variable {name} is ignored: `{value}` is neither true nor false");
    (None, Some(why))
}
