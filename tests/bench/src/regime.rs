//! Under which rule connections are made: who intercepts, and how.

use std::fmt;

use clap::ValueEnum;
use interceptor::parity::backend::Backend;
use serde::{Deserialize, Serialize};

/// Who intercepts, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Regime {
    /// Nobody: the application connects to the proxy's own port. No interception can be faster.
    Direct,
    /// This product.
    Ebpf,
    /// This product without spreading destinations over 127.128.0.0/9.
    EbpfNoSpread,
    /// Istio's rules by `iptables-legacy`.
    IptablesLegacy,
    /// Istio's rules by `iptables-nft`.
    IptablesNft,
    /// Rules that say the same, loaded by `nft`.
    Nft,
}

impl Regime {
    /// All of them, in the order of tables.
    pub(crate) const ALL: [Self; 6] =
        [Self::Direct, Self::Ebpf, Self::EbpfNoSpread, Self::IptablesLegacy, Self::IptablesNft, Self::Nft];

    /// Who intercepts.
    pub(crate) const fn backend(self) -> Backend {
        match self {
            Self::Direct => Backend::None,
            Self::Ebpf | Self::EbpfNoSpread => Backend::Ebpf,
            Self::IptablesLegacy => Backend::IptablesLegacy,
            Self::IptablesNft => Backend::IptablesNft,
            Self::Nft => Backend::Nft,
        }
    }

    /// Flags of its own, beside those that say what to intercept.
    pub(crate) const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::EbpfNoSpread => &["--no-spread"],
            Self::Direct | Self::Ebpf | Self::IptablesLegacy | Self::IptablesNft | Self::Nft => &[],
        }
    }

    /// Whether it rewrites connections with conntrack.
    pub(crate) fn is_nat(self) -> bool {
        self.backend().is_nat()
    }
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Ebpf => "ebpf",
            Self::EbpfNoSpread => "ebpf, no spread",
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Nft => "nft",
        })
    }
}
