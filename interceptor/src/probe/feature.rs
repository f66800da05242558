//! A feature as data: what it is for, since when, who needs it, and how one finds out whether it is there.

use std::{borrow::Cow, io};

use serde::Serialize;

use super::{
    grade::Engine,
    host::Host,
    netfilter::{self, Symbol},
};
use crate::datapath::trial::{self, Answer, Hook, Shape};

/// Something a backend needs or can use.
#[derive(Debug, Serialize)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Which part of the table it is in.
    pub group: Group,
    /// First Linux version with it, as released by kernel.org; distributions carry features back.
    pub since: Option<&'static str>,
    /// What it is for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub without: &'static str,
    /// Who needs it.
    #[serde(flatten)]
    pub need: Need,
    /// Names of the BPF programs that do not load without it.
    pub programs: &'static [&'static str],
    #[serde(skip)]
    pub(super) check: Check,
}

/// Part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// What BPF programs, maps and links can do.
    Bpf,
    /// What the system and the caller bring.
    System,
    /// What nat rules need.
    Netfilter,
}

/// Who needs a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Need {
    /// These do not work without it.
    #[serde(rename = "needed_by")]
    Of(&'static [Engine]),
    /// eBPF works without it, but not this.
    #[serde(rename = "brings")]
    Gain(&'static str),
    /// Nobody; it is told because it explains things.
    #[serde(untagged)]
    Nobody,
}

/// What was found out about a feature.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The feature.
    #[serde(flatten)]
    pub feature: &'static Feature,
    /// What was found out.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether the feature is there.
    pub present: Presence,
    /// How that was found out.
    pub how: Cow<'static, str>,
    /// What more there is to say; may be empty.
    pub detail: String,
}

/// Whether a feature is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// The caller may not find out, or something else went wrong.
    Unknown,
}

impl Finding {
    pub(super) fn new(present: bool, how: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let present = if present { Presence::Yes } else { Presence::No };
        Self { present, how: how.into(), detail: detail.into() }
    }

    pub(super) fn unknown(how: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { present: Presence::Unknown, how: how.into(), detail: detail.into() }
    }

    fn answered(how: &'static str, answer: Answer) -> Self {
        match answer {
            Ok(present) => Self::new(present, how, ""),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Self::unknown(how, "the kernel tells only with CAP_BPF and CAP_NET_ADMIN")
            }
            Err(error) => Self::unknown(how, error.to_string()),
        }
    }
}

impl Feature {
    pub(super) const fn new(group: Group, name: &'static str, check: Check) -> Self {
        let (purpose, without) = ("", "");
        Self { name, group, since: None, purpose, without, need: Need::Nobody, programs: &[], check }
    }

    pub(super) const fn since(mut self, version: &'static str) -> Self {
        self.since = Some(version);
        self
    }

    pub(super) const fn serves(mut self, purpose: &'static str) -> Self {
        self.purpose = purpose;
        self
    }

    pub(super) const fn without_it(mut self, without: &'static str) -> Self {
        self.without = without;
        self
    }

    pub(super) const fn needed_by(mut self, engines: &'static [Engine]) -> Self {
        self.need = Need::Of(engines);
        self
    }

    /// The named programs do not load without it, so eBPF needs it.
    pub(super) const fn in_programs(mut self, programs: &'static [&'static str]) -> Self {
        self.programs = programs;
        self.need = Need::Of(&[Engine::Ebpf]);
        self
    }

    pub(super) const fn gains(mut self, what: &'static str) -> Self {
        self.need = Need::Gain(what);
        self
    }
}

/// How to find out whether a feature is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// A program of the hook loads.
    Hook(Hook),
    /// A program of the hook may call a helper, by its number in linux/bpf.h.
    Helper(Hook, u16),
    /// A program of the hook may read its context at an offset.
    Context(Hook, u16),
    /// Links attach programs of the hook, with flags.
    Link(Hook, u32),
    /// A link's program can be replaced.
    LinkUpdate,
    /// A map of the shape can be made.
    Map(Shape),
    /// A map of maps can be made: the outer shape, then the inner.
    MapOfMaps(Shape, Shape),
    /// Maps keep values with sockets, under map flags.
    SocketStorage(u32),
    /// Descriptions of types load.
    TypeInformation,
    /// Functions that the verifier follows by themselves may be given memory.
    MemoryForFunctions,
    /// A part of netfilter, by a function of it.
    Netfilter(Symbol),
    /// A program in `PATH`, and what it says its version is.
    Tool(&'static str),
    /// Anything else.
    Host(fn(&Host) -> Finding),
}

impl Check {
    pub(super) fn run(self, host: &Host) -> Finding {
        const LOADED: &str = "loaded a program";
        const LINKED: &str = "asked for a link to nothing";
        const MADE: &str = "made a map";
        match self {
            Self::Hook(hook) => Finding::answered(LOADED, trial::hook(hook)),
            Self::Helper(hook, helper) => Finding::answered(LOADED, trial::helper(hook, helper)),
            Self::Context(hook, offset) => Finding::answered(LOADED, trial::context_word(hook, offset)),
            Self::Link(hook, flags) => Finding::answered(LINKED, trial::link(hook, flags)),
            Self::LinkUpdate => Finding::answered(LINKED, trial::link_update()),
            Self::Map(shape) => Finding::answered(MADE, trial::map(shape)),
            Self::MapOfMaps(outer, inner) => Finding::answered(MADE, trial::map_of_maps(outer, inner)),
            Self::SocketStorage(flags) => {
                Finding::answered("stored a value with a socket", trial::socket_storage(flags))
            }
            Self::TypeInformation => Finding::answered("loaded a description", trial::type_information()),
            Self::MemoryForFunctions => Finding::answered(LOADED, trial::memory_for_functions()),
            Self::Netfilter(symbol) => netfilter::symbol(host, symbol),
            Self::Tool(name) => netfilter::tool(name),
            Self::Host(check) => check(host),
        }
    }
}
