//! The flags of `istio-iptables`, under the same names.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{SelfCalls, file};

/// The settings of one capture as written on a command line, in the environment or in a file: nothing parsed yet.
///
/// A field that is `None` was not given there. Istio passes most values on as text, so most fields are text.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[command(
    args_override_self = true,
    next_help_heading = "Capture (also from the environment: --proxy-uid is PROXY_UID; --envoy-port has no variable)"
)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CaptureArgs {
    /// Port of the proxy's outbound listener [default: 15001].
    #[arg(short = 'p', long, value_name = "PORT")]
    #[serde(deserialize_with = "file::text")]
    pub envoy_port: Option<String>,
    /// Port of the proxy's inbound listener [default: 15006].
    #[arg(short = 'z', long, value_name = "PORT")]
    #[serde(deserialize_with = "file::text")]
    pub inbound_capture_port: Option<String>,
    /// HBONE port: never redirected inbound, never looped outbound [default: 15008].
    #[arg(short = 'e', long, value_name = "PORT")]
    #[serde(deserialize_with = "file::text")]
    pub inbound_tunnel_port: Option<String>,
    /// Users the proxy runs as [default: the id of $`ENVOY_USER` (istio-proxy), else 1337].
    #[arg(short = 'u', long, value_name = "UIDS")]
    #[serde(deserialize_with = "file::text")]
    pub proxy_uid: Option<String>,
    /// Groups the proxy runs as [default: as --proxy-uid].
    #[arg(short = 'g', long, value_name = "GIDS")]
    #[serde(deserialize_with = "file::text")]
    pub proxy_gid: Option<String>,
    /// How inbound connections reach the proxy: TPROXY, or anything else for REDIRECT.
    #[arg(short = 'm', long, value_name = "MODE")]
    #[serde(deserialize_with = "file::text")]
    pub istio_inbound_interception_mode: Option<String>,
    /// Inbound ports to intercept: `*` for all; none by default.
    #[arg(short = 'b', long, value_name = "PORTS")]
    #[serde(deserialize_with = "file::text")]
    pub istio_inbound_ports: Option<String>,
    /// Inbound ports left alone; only read with `-b '*'`.
    #[arg(short = 'd', long, value_name = "PORTS")]
    #[serde(deserialize_with = "file::text")]
    pub istio_local_exclude_ports: Option<String>,
    /// Outbound destinations to intercept: `*` for all; none by default.
    #[arg(short = 'i', long, value_name = "CIDRS")]
    #[serde(deserialize_with = "file::text")]
    pub istio_service_cidr: Option<String>,
    /// Outbound destinations left alone.
    #[arg(short = 'x', long, value_name = "CIDRS")]
    #[serde(deserialize_with = "file::text")]
    pub istio_service_exclude_cidr: Option<String>,
    /// Outbound TCP ports intercepted whatever -i says.
    #[arg(short = 'q', long, value_name = "PORTS")]
    #[serde(deserialize_with = "file::text")]
    pub istio_outbound_ports: Option<String>,
    /// Outbound TCP and UDP ports left alone.
    #[arg(short = 'o', long, value_name = "PORTS")]
    #[serde(deserialize_with = "file::text")]
    pub istio_local_outbound_ports_exclude: Option<String>,
    /// Interfaces whose arriving traffic counts as outbound (virtual machines).
    #[arg(short = 'k', long, value_name = "INTERFACES")]
    #[serde(deserialize_with = "file::text")]
    pub kube_virt_interfaces: Option<String>,
    /// Interfaces on which nothing is intercepted.
    #[arg(short = 'c', long, value_name = "INTERFACES")]
    #[serde(deserialize_with = "file::text")]
    pub istio_exclude_interfaces: Option<String>,
    /// Firewall mark for TPROXY [default: 1337].
    #[arg(short = 't', long, value_name = "MARK")]
    #[serde(deserialize_with = "file::text")]
    pub istio_inbound_tproxy_mark: Option<String>,
    /// Routing table for TPROXY [default: 133].
    #[arg(short = 'r', long, value_name = "TABLE")]
    #[serde(deserialize_with = "file::text")]
    pub istio_inbound_tproxy_route_table: Option<String>,
    /// Intercept DNS queries.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub redirect_dns: Option<bool>,
    /// Intercept DNS queries to any server, not only those of resolv.conf; needs --redirect-dns.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub capture_all_dns: Option<bool>,
    /// Drop packets that conntrack calls INVALID.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub drop_invalid: Option<bool>,
    /// Intercept IPv6 when any address is IPv6, not only when the first one is.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub dual_stack: Option<bool>,
    /// Whether to intercept IPv6 [default: auto, from the workload's addresses].
    #[arg(long, value_name = "WHEN")]
    pub ipv6: Option<Ipv6>,
    /// DNS servers to intercept queries to, instead of those in resolv.conf; empty for none.
    #[arg(long, value_name = "ADDRESSES")]
    #[serde(deserialize_with = "file::text")]
    pub dns_servers: Option<String>,
    /// Groups whose outbound traffic is intercepted; environment and file only, as in Istio.
    #[arg(skip)]
    #[serde(rename = "istio-outbound-owner-groups", deserialize_with = "file::text")]
    pub owner_groups: Option<String>,
    /// Groups whose outbound traffic is left alone; environment and file only, as in Istio.
    #[arg(skip)]
    #[serde(rename = "istio-outbound-owner-groups-exclude", deserialize_with = "file::text")]
    pub owner_groups_exclude: Option<String>,
    /// What counts as the IPv4 loopback address; environment and file only, as in Istio.
    #[arg(skip)]
    #[serde(rename = "istio-outbound-ipv4-loopback-cidr", deserialize_with = "file::text")]
    pub loopback_cidr: Option<String>,
    /// Whose calls of the workload to itself are redirected, and where to, as older releases of Istio had it.
    #[arg(long, value_name = "WHOSE")]
    pub self_calls: Option<SelfCalls>,
    /// Intercept inbound connections to the tunnel port as well, as before Istio 1.7.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub intercept_inbound_tunnel: Option<bool>,
    /// Redirect self calls to the tunnel port as well, as before Istio 1.18.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub intercept_self_call_tunnel: Option<bool>,
    /// Treat 127.0.0.6 and `::6` as any other source address, as before Istio 1.3.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub intercept_passthrough_source: Option<bool>,
    /// Decide DNS queries over UDP before anything but the interface, as before Istio 1.23.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub udp_dns_first: Option<bool>,
    /// A TOML or YAML file with settings named as the long flags; flags and environment win over it.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<std::path::PathBuf>,
    #[command(flatten)]
    #[serde(skip)]
    pub(super) logging: Logging,
}

/// When to intercept IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6 {
    /// As the workload's addresses say.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Istio's logging flags: part of every injected command line, without meaning here.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Logging {
    #[arg(long = "log_output_level", hide = true)]
    level: Option<String>,
    #[arg(long = "log_stacktrace_level", hide = true)]
    stack_trace_level: Option<String>,
    #[arg(long = "log_caller", hide = true)]
    caller: Option<String>,
    #[arg(long = "log_target", hide = true)]
    target: Option<String>,
    #[arg(long = "log_as_json", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    as_json: Option<bool>,
    #[arg(long = "vklog", hide = true)]
    kubernetes_level: Option<String>,
}

impl CaptureArgs {
    /// These settings, and where they are silent, `other`'s.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            envoy_port: self.envoy_port.or(other.envoy_port),
            inbound_capture_port: self.inbound_capture_port.or(other.inbound_capture_port),
            inbound_tunnel_port: self.inbound_tunnel_port.or(other.inbound_tunnel_port),
            proxy_uid: self.proxy_uid.or(other.proxy_uid),
            proxy_gid: self.proxy_gid.or(other.proxy_gid),
            istio_inbound_interception_mode: self
                .istio_inbound_interception_mode
                .or(other.istio_inbound_interception_mode),
            istio_inbound_ports: self.istio_inbound_ports.or(other.istio_inbound_ports),
            istio_local_exclude_ports: self.istio_local_exclude_ports.or(other.istio_local_exclude_ports),
            istio_service_cidr: self.istio_service_cidr.or(other.istio_service_cidr),
            istio_service_exclude_cidr: self.istio_service_exclude_cidr.or(other.istio_service_exclude_cidr),
            istio_outbound_ports: self.istio_outbound_ports.or(other.istio_outbound_ports),
            istio_local_outbound_ports_exclude: self
                .istio_local_outbound_ports_exclude
                .or(other.istio_local_outbound_ports_exclude),
            kube_virt_interfaces: self.kube_virt_interfaces.or(other.kube_virt_interfaces),
            istio_exclude_interfaces: self.istio_exclude_interfaces.or(other.istio_exclude_interfaces),
            istio_inbound_tproxy_mark: self.istio_inbound_tproxy_mark.or(other.istio_inbound_tproxy_mark),
            istio_inbound_tproxy_route_table: self
                .istio_inbound_tproxy_route_table
                .or(other.istio_inbound_tproxy_route_table),
            redirect_dns: self.redirect_dns.or(other.redirect_dns),
            capture_all_dns: self.capture_all_dns.or(other.capture_all_dns),
            drop_invalid: self.drop_invalid.or(other.drop_invalid),
            dual_stack: self.dual_stack.or(other.dual_stack),
            ipv6: self.ipv6.or(other.ipv6),
            dns_servers: self.dns_servers.or(other.dns_servers),
            owner_groups: self.owner_groups.or(other.owner_groups),
            owner_groups_exclude: self.owner_groups_exclude.or(other.owner_groups_exclude),
            loopback_cidr: self.loopback_cidr.or(other.loopback_cidr),
            self_calls: self.self_calls.or(other.self_calls),
            intercept_inbound_tunnel: self.intercept_inbound_tunnel.or(other.intercept_inbound_tunnel),
            intercept_self_call_tunnel: self.intercept_self_call_tunnel.or(other.intercept_self_call_tunnel),
            intercept_passthrough_source: self
                .intercept_passthrough_source
                .or(other.intercept_passthrough_source),
            udp_dns_first: self.udp_dns_first.or(other.udp_dns_first),
            config: self.config.or(other.config),
            logging: self.logging,
        }
    }
}

/// Reads a boolean in any of the spellings that Go's `strconv.ParseBool` knows.
pub fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}
