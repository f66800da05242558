//! Why a capture cannot be built from what was given.

use std::path::PathBuf;

/// Why a capture cannot be built; each message is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A value that no backend could enforce.
    #[error("{option}: `{value}` is not {expected}")]
    Value {
        /// The option, as the operator would write it.
        option: &'static str,
        /// The item that was refused.
        value: String,
        /// What is accepted there.
        expected: &'static str,
    },
    /// A bad item of `-i` or `-x`.
    #[error(
        "{option}: `{value}` is not an address range; write 10.0.0.0/8 or 2001:db8::/32, with the prefix length"
    )]
    Cidr {
        /// The option, as the operator would write it.
        option: &'static str,
        /// The item that was refused.
        value: String,
    },
    /// The mark or the table cannot be written into a routing rule.
    #[error("{option}: `{value}` is not a decimal number, which TPROXY needs for its routing rule")]
    Tproxy {
        /// The option, as the operator would write it.
        option: &'static str,
        /// The value that was refused.
        value: String,
    },
    /// `-x '*'`.
    #[error(
        "--istio-service-exclude-cidr: `*` would exclude everything; leave --istio-service-cidr empty instead"
    )]
    ExcludesEverything,
    /// More groups than the owner match takes in one rule.
    #[error("ISTIO_OUTBOUND_OWNER_GROUPS names {0} groups; 64 is the most that one rule can hold")]
    TooManyOwnerGroups(usize),
    /// The loopback CIDR is not one.
    #[error(
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR: `{0}` is not a part of 127.0.0.0/8 with a prefix length from 8 to 32"
    )]
    LoopbackCidr(String),
    /// No address tells whether the workload speaks IPv6.
    #[error(
        "no interface has an address other than loopback and link-local, so the IP family is unknown; \
         give the workload an address first, or say --ipv6 on or --ipv6 off"
    )]
    NoAddress,
    /// DNS capture by server list without a list.
    #[error(
        "cannot read the DNS servers from /etc/resolv.conf ({0}); name them with --dns-servers, or use --capture-all-dns"
    )]
    ResolvConf(String),
    /// The capture file cannot be read or understood.
    #[error("{path}: {why}")]
    File {
        /// The file given to `--config`.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl CaptureError {
    /// Whether a value on the operator's command line or in a file is not one at all, rather than one that cannot
    /// take effect here.
    ///
    /// Such an error ends with exit code 2; the others end with 1. (Called as `istio-iptables`, all end with 1.)
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Value { .. } | Self::Cidr { .. } | Self::File { .. })
    }
}
