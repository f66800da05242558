//! A line of Envoy's access log.

use std::net::SocketAddr;

use nix::errno::Errno;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bootstrap::{INBOUND, OUTBOUND};
use crate::parity::{
    actor::protocol::{Outcome, Seen, Sighting},
    plan::Family,
};

/// A connection in Envoy's own words, at the moment when it was connected onwards or had ended without that.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Access {
    /// Envoy's number for it; later connections have higher ones.
    pub id: u64,
    /// The filter chain that took it: says which listener it was handed to.
    pub chain: String,
    /// Who connected: what `getpeername()` said.
    pub peer: SocketAddr,
    /// Where it was accepted: what `getsockname()` said.
    pub local: SocketAddr,
    /// Where it was meant to go: `SO_ORIGINAL_DST`, or `local` if that gave nothing else.
    pub original: SocketAddr,
    /// The cluster it was sent to.
    pub cluster: String,
    /// The host it was sent to; `None` if the cluster had none.
    pub upstream: Option<SocketAddr>,
    /// The address it was sent from; `None` if that connection failed.
    pub upstream_source: Option<SocketAddr>,
    /// Envoy's response flags, `-` if all went well: `UF` is "the upstream connection failed", `UH` "no upstream".
    pub flags: String,
    /// Why the upstream connection failed: the error's text, with a prefix, and underscores for spaces.
    pub failure: Option<String>,
}

/// The `json_format` that yields an [`Access`]; Envoy's documentation of access logging explains the operators.
pub(super) fn format() -> Value {
    json!({
        "id": "%CONNECTION_ID%",
        "chain": "%FILTER_CHAIN_NAME%",
        "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
        "local": "%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%",
        "original": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "upstream": "%UPSTREAM_HOST%",
        "upstream_source": "%UPSTREAM_LOCAL_ADDRESS%",
        "flags": "%RESPONSE_FLAGS%",
        "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    })
}

impl Access {
    /// The same in the words of the built-in proxy. What Envoy does not tell is `ENODATA`.
    #[must_use]
    pub fn sighting(&self) -> Sighting {
        let (original_v4, original_v6) = match self.original {
            SocketAddr::V4(_) => (Ok(self.original), Err(Errno::ENODATA as i32)),
            SocketAddr::V6(_) => (Err(Errno::ENODATA as i32), Ok(self.original)),
        };
        let family = if self.local.is_ipv4() { Family::V4 } else { Family::V6 };
        // The inbound chains are named after their listener; all others were reached through the outbound one.
        let port = if self.chain.starts_with(INBOUND.name) { INBOUND.port } else { OUTBOUND.port };
        Sighting {
            listener: SocketAddr::new(family.unspecified(), port),
            from: self.peer,
            seen: Some(Seen { local: Ok(self.local), peer: Ok(self.peer), original_v4, original_v6 }),
            onward: Some(self.onward()),
        }
    }

    fn onward(&self) -> Outcome<SocketAddr> {
        match (self.upstream, self.upstream_source) {
            (_, Some(source)) => Ok(source),
            (Some(_), None) => Err(self.failure.as_deref().map_or(Errno::ENODATA, errno) as i32),
            // The black hole, where the built-in proxy says the same.
            (None, None) => Err(Errno::ELOOP as i32),
        }
    }
}

/// The error whose text ends Envoy's reason.
fn errno(reason: &str) -> Errno {
    let errors = [Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ENETUNREACH, Errno::ETIMEDOUT];
    let told = |error: &Errno| reason.ends_with(&error.desc().replace(' ', "_"));
    errors.into_iter().find(told).unwrap_or(Errno::ENODATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(more: &Value) -> Access {
        let mut line = json!({
            "id": 3, "chain": "virtualOutbound", "peer": "10.77.1.2:40000", "local": "127.0.0.1:15001",
            "original": "10.88.0.1:80", "cluster": "PassthroughCluster", "upstream": "10.88.0.1:80",
            "upstream_source": null, "flags": "-", "failure": null,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            line[key] = value.clone();
        }
        serde_json::from_value(line).expect("a whole line")
    }

    #[test]
    fn onward_is_a_source_an_error_or_the_black_hole() {
        let source = access(&json!({ "upstream_source": "10.77.1.2:40001" }));
        assert_eq!(source.onward(), Ok(SocketAddr::from(([10, 77, 1, 2], 40001))));
        let refused = access(&json!({ "failure": "delayed_connect_error:_Connection_refused" }));
        assert_eq!(refused.onward(), Err(Errno::ECONNREFUSED as i32));
        let black_hole = access(&json!({ "upstream": null }));
        assert_eq!(black_hole.onward(), Err(Errno::ELOOP as i32));
    }

    #[test]
    fn the_listener_follows_from_the_chain() {
        let port = |chain: &str| access(&json!({ "chain": chain })).sighting().listener.port();
        assert_eq!(port("virtualOutbound"), 15001);
        assert_eq!(port("0.0.0.0_9080"), 15001);
        assert_eq!(port("virtualInbound-blackhole"), 15006);
    }
}
