//! How well each backend would work here.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::feature::{Need, Presence, Row};

/// Who enforces a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// eBPF programs at the socket.
    Ebpf,
    /// Istio's nat rules, loaded by iptables.
    Iptables,
    /// The same rules, loaded by nft.
    Nft,
}

/// What a backend works by. There are two kinds of iptables, and one of them is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// eBPF programs.
    Ebpf,
    /// iptables over `nf_tables`.
    IptablesNft,
    /// iptables over its own tables.
    IptablesLegacy,
    /// nft.
    Nft,
}

/// How well a backend would work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Grade {
    /// In every respect.
    Full,
    /// But for what is named.
    Partial {
        /// What is lost.
        lost: Vec<&'static str>,
    },
    /// Not at all.
    Unavailable {
        /// The features missing, or not known to be there.
        missing: Vec<&'static str>,
    },
}

impl Backend {
    /// Every backend, in the order `auto` prefers them.
    pub const ALL: [Self; 3] = [Self::Ebpf, Self::Iptables, Self::Nft];

    pub(super) fn engines(self) -> &'static [Engine] {
        match self {
            Self::Ebpf => &[Engine::Ebpf],
            Self::Iptables => &[Engine::IptablesNft, Engine::IptablesLegacy],
            Self::Nft => &[Engine::Nft],
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebpf => "ebpf",
            Self::Iptables => "iptables",
            Self::Nft => "nft",
        })
    }
}

impl Grade {
    pub(super) fn of(backend: Backend, rows: &[Row]) -> Self {
        let missing = missing(backend, rows);
        if !missing.is_empty() {
            return Self::Unavailable { missing: missing.iter().map(|row| row.feature.name).collect() };
        }
        let absent = rows.iter().filter(|row| row.finding.present != Presence::Yes);
        let lost: Vec<_> = absent
            .filter_map(|row| match row.feature.need {
                Need::Gain(what) if backend == Backend::Ebpf => Some(what),
                Need::Gain(_) | Need::Of(_) | Need::Nobody => None,
            })
            .collect();
        if lost.is_empty() { Self::Full } else { Self::Partial { lost } }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Partial { lost } => write!(f, "without {}", lost.join(", ")),
            Self::Unavailable { missing } => write!(f, "unavailable: {}", missing.join(", ")),
        }
    }
}

/// The rows a backend cannot do without and that are not known to be there: those of the engine that lacks least.
pub(super) fn missing(backend: Backend, rows: &[Row]) -> Vec<&Row> {
    let of_engine = |engine: &Engine| {
        let needs = |row: &&Row| matches!(row.feature.need, Need::Of(engines) if engines.contains(engine));
        rows.iter().filter(needs).filter(|row| row.finding.present != Presence::Yes).collect::<Vec<_>>()
    };
    backend.engines().iter().map(of_engine).min_by_key(Vec::len).unwrap_or_default()
}
