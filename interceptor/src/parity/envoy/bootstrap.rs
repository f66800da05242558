//! Envoy's configuration: the part of what istiod sends to a sidecar that decides where a connection goes.
//!
//! Names and structure are those of `pilot/pkg/networking/core` in Istio.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::access;
use crate::parity::{
    plan::Family,
    proxy::{INBOUND_PORT, OUTBOUND_PORT},
};

/// The port of Envoy's administration, on 127.0.0.1.
pub const ADMIN_PORT: u16 = 15000;

/// A listener that connections are redirected to.
pub(super) struct Captured {
    pub(super) name: &'static str,
    pub(super) port: u16,
    /// Whether it hands connections to the listener of their original destination, if there is one.
    hands_over: bool,
    /// The cluster for what is not handed over.
    to: &'static str,
}

/// For the workload's own connections.
pub(super) const OUTBOUND: Captured =
    Captured { name: "virtualOutbound", port: OUTBOUND_PORT, hands_over: true, to: "PassthroughCluster" };

/// For connections to the workload.
pub(super) const INBOUND: Captured = Captured {
    name: "virtualInbound",
    port: INBOUND_PORT,
    hands_over: false,
    to: "InboundPassthroughCluster",
};

/// The source addresses of connections that the inbound listener makes to the application.
const INBOUND_SOURCES: [&str; 2] = ["127.0.0.6", "::6"];

/// Istio's default of `MeshConfig.connectTimeout`.
const CONNECT_TIMEOUT: &str = "10s";

/// Bytes that Envoy reads from a client before it is connected onwards; clients here begin with a short line.
const MAX_EARLY_DATA: u32 = 1024;

/// A service of the mesh: what applications send to `port`, whatever the address, goes to `endpoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The port of the service's virtual address.
    pub port: u16,
    /// Its only endpoint.
    pub endpoint: SocketAddr,
}

/// A static configuration with Istio's two captured listeners, one unbound listener a service, and administration.
pub(super) fn bootstrap(services: &[Service]) -> Value {
    let mut listeners = vec![captured(&OUTBOUND), captured(&INBOUND)];
    let mut clusters = vec![
        original_dst_cluster(OUTBOUND.to, &Value::Null),
        original_dst_cluster(
            INBOUND.to,
            &json!({
                "source_address": { "address": INBOUND_SOURCES[0], "port_value": 0 },
                "extra_source_addresses": [{ "address": { "address": INBOUND_SOURCES[1], "port_value": 0 } }],
            }),
        ),
        static_cluster("BlackHoleCluster", &[]),
    ];
    for service in services {
        let name = format!("outbound|{}||service", service.port);
        listeners.push(unbound(service.port, &name));
        clusters.push(static_cluster(&name, &[service.endpoint]));
    }
    json!({
        "admin": { "address": address(&SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT))) },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
}

/// A connection made to the listener's own port has no original destination; passing it on would make Envoy connect
/// to itself for ever, so it ends in a black hole.
fn captured(listener: &Captured) -> Value {
    let Captured { name, port, hands_over, to } = *listener;
    json!({
        "name": name,
        "address": address(&any(Family::V4, port)),
        "additional_addresses": [{ "address": address(&any(Family::V6, port)) }],
        "use_original_dst": hands_over,
        "listener_filters": [{
            "name": "envoy.filters.listener.original_dst",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
            },
        }],
        "filter_chains": [
            {
                "name": format!("{name}-blackhole"),
                "filter_chain_match": { "destination_port": port },
                "filters": [tcp_proxy("BlackHoleCluster")],
            },
            { "name": name, "filters": [tcp_proxy(to)] },
        ],
    })
}

/// A listener without a socket: `virtualOutbound` hands over what was meant for `port`.
fn unbound(port: u16, to: &str) -> Value {
    let name = format!("0.0.0.0_{port}");
    json!({
        "name": name,
        "address": address(&any(Family::V4, port)),
        "bind_to_port": false,
        "filter_chains": [{ "name": name, "filters": [tcp_proxy(to)] }],
    })
}

/// Istio keeps Envoy's default of connecting onwards at once, for protocols in which the server speaks first. If that
/// fails, Envoy closes with the client's first bytes unread, and it is a race whether the client sees an end or a reset.
/// Here it waits for those bytes: where a connection goes is the same, and how it ends is always an end.
fn tcp_proxy(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
            "upstream_connect_mode": "ON_DOWNSTREAM_DATA",
            "max_early_data_bytes": MAX_EARLY_DATA,
            "access_log_options": { "flush_access_log_on_connected": true },
            "access_log": [{
                "name": "envoy.access_loggers.stdout",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                    "log_format": { "json_format": access::format() },
                },
            }],
        },
    })
}

/// Connects to the original destination; `bind` says from where, null leaves it to the kernel.
fn original_dst_cluster(name: &str, bind: &Value) -> Value {
    json!({
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": CONNECT_TIMEOUT,
        "upstream_bind_config": bind,
    })
}

fn static_cluster(name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> =
        endpoints.iter().map(|endpoint| json!({ "endpoint": { "address": address(endpoint) } })).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
    })
}

fn any(family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(family.unspecified(), port)
}

fn address(address: &SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
