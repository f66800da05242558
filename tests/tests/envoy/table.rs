//! What is seen of each connection, under any backend.

use interceptor::parity::{
    plan::Host,
    scenario::{APP, Client, PROXY, REMOTE},
};

use crate::stage::MESH_PORT;

/// Who connects where, and what is seen of it: by the client, by Envoy, by the server, in this order.
pub(crate) type Row = (Client, Host, u16, &'static [&'static str]);

/// With Envoy up.
pub(crate) const WHILE_ENVOY_RUNS: [Row; 10] = [
    // App to remote.
    (
        APP,
        Host::Service(1),
        80,
        &[
            "client from pod:client: service1:80 answers \"service hello\"",
            "virtualOutbound at 127.0.0.1:15001: pod:client for service1:80; PassthroughCluster to service1:80, -",
            "service at service1:80: pod:envoy",
        ],
    ),
    (
        APP,
        Host::Service(2),
        8099,
        &[
            "client from pod:client: service2:8099 closes",
            "virtualOutbound at 127.0.0.1:15001: pod:client for service2:8099; PassthroughCluster to service2:8099, UF,URX",
        ],
    ),
    // Remote to pod.
    (
        REMOTE,
        Host::Pod,
        8080,
        &[
            "client from peer:client: pod:8080 answers \"app hello\"",
            "virtualInbound at pod:15006: peer:client for pod:8080; InboundPassthroughCluster to pod:8080, -",
            "app at pod:8080: 127.0.0.6:envoy",
        ],
    ),
    (
        REMOTE,
        Host::Pod,
        8099,
        &[
            "client from peer:client: pod:8099 closes",
            "virtualInbound at pod:15006: peer:client for pod:8099; InboundPassthroughCluster to pod:8099, UF,URX",
        ],
    ),
    (
        REMOTE,
        Host::Pod,
        15006,
        &[
            "client from peer:client: pod:15006 closes",
            "virtualInbound-blackhole at pod:15006: peer:client for pod:15006; BlackHoleCluster to nobody, UH",
        ],
    ),
    // App to itself.
    (
        APP,
        Host::Pod,
        8080,
        &["client from pod:client: pod:8080 answers \"app hello\"", "app at pod:8080: pod:client"],
    ),
    (
        APP,
        Host::Loopback(1),
        8080,
        &[
            "client from 127.0.0.1:client: 127.0.0.1:8080 answers \"app hello\"",
            "app at 127.0.0.1:8080: 127.0.0.1:client",
        ],
    ),
    // Proxy to itself: a service whose endpoint is the pod, and another process of the proxy's user.
    (
        APP,
        Host::Service(3),
        MESH_PORT,
        &[
            "client from pod:client: service3:9080 answers \"app hello\"",
            "0.0.0.0_9080 at 127.0.0.1:15001: pod:client for service3:9080; outbound|9080||service to pod:8080, -",
            "virtualInbound at 127.0.0.1:15006: pod:envoy for pod:8080; InboundPassthroughCluster to pod:8080, -",
            "app at pod:8080: 127.0.0.6:envoy",
        ],
    ),
    (
        PROXY,
        Host::Pod,
        8080,
        &[
            "client from pod:client: pod:8080 answers \"app hello\"",
            "virtualInbound at 127.0.0.1:15006: pod:client for pod:8080; InboundPassthroughCluster to pod:8080, -",
            "app at pod:8080: 127.0.0.6:envoy",
        ],
    ),
    // An excluded inbound port.
    (
        REMOTE,
        Host::Pod,
        15020,
        &["client from peer:client: pod:15020 answers \"app hello\"", "app at pod:15020: peer:client"],
    ),
];

/// With Envoy gone: what it would have got is refused, the rest is as before.
pub(crate) const WHILE_ENVOY_IS_DEAD: [Row; 4] = [
    (APP, Host::Service(1), 80, &["client: ECONNREFUSED"]),
    (REMOTE, Host::Pod, 8080, &["client: ECONNREFUSED"]),
    (APP, Host::Pod, 8080, WHILE_ENVOY_RUNS[5].3),
    (REMOTE, Host::Pod, 15020, WHILE_ENVOY_RUNS[9].3),
];

/// Envoy's own count of the rows with Envoy up.
pub(crate) const STATS: [(&str, u64); 13] = [
    ("listener.0.0.0.0_15001.downstream_cx_total", 2),
    ("listener.0.0.0.0_9080.downstream_cx_total", 1),
    ("listener.0.0.0.0_15006.downstream_cx_total", 5),
    ("tcp.PassthroughCluster.downstream_cx_total", 2),
    ("tcp.InboundPassthroughCluster.downstream_cx_total", 4),
    ("tcp.BlackHoleCluster.downstream_cx_total", 1),
    ("tcp.outbound|9080||service.downstream_cx_total", 1),
    ("cluster.PassthroughCluster.upstream_cx_total", 2),
    ("cluster.PassthroughCluster.upstream_cx_connect_fail", 1),
    ("cluster.InboundPassthroughCluster.upstream_cx_total", 4),
    ("cluster.InboundPassthroughCluster.upstream_cx_connect_fail", 1),
    ("cluster.BlackHoleCluster.upstream_cx_none_healthy", 1),
    ("cluster.outbound|9080||service.upstream_cx_total", 1),
];
