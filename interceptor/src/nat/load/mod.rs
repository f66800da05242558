//! Loads the rules into the calling thread's network namespace, by the tools the host has.
//!
//! Every function here works on the namespace of the calling thread; `Netns::run` gives a thread inside another one.

mod binary;
mod cleanup;
mod command;
mod isolation;
mod routes;
mod state;

pub(crate) use self::routes::add as add_routes;
pub use self::{
    binary::{Binary, Force, Variant},
    command::LoadError,
    isolation::{IsolationError, isolate},
};

use std::collections::BTreeSet;

use self::{cleanup::Found, command::run, state::State};
use super::{Family, RuleSet, nft, restore};
use crate::capture::{Capture, InboundMode};

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Which iptables to use instead of finding out.
    pub force: Force,
    /// Replace other rules of Istio that are loaded.
    pub reconcile: bool,
    /// Load even if the same rules are loaded.
    pub force_apply: bool,
}

/// What loading did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The rules were not there.
    New,
    /// The rules were there already, and nothing was done.
    Same,
    /// Other rules of Istio were there and have been replaced.
    Replaced,
}

/// Loads the rules for `capture` by iptables, in both families.
pub fn iptables(capture: &Capture, options: Options) -> Result<Loaded, LoadError> {
    let rules = super::generate(capture);
    let binaries = binaries(capture, options.force)?;
    let mut states = Vec::new();
    for binary in &binaries {
        states.push(State::of(binary, rules.family(binary.family))?);
    }
    let planned =
        || states.iter().zip(&binaries).filter(|(_, binary)| !rules.family(binary.family).is_empty());
    let is_same = states.iter().all(|state| !state.differs);
    let has_istio = states.iter().any(|state| state.has_istio);
    if is_same && planned().all(|(state, _)| state.has_istio) && !options.force_apply {
        routes::add(capture)?;
        return Ok(Loaded::Same);
    }
    if has_istio && !options.reconcile {
        return Err(LoadError::OtherRules);
    }
    if has_istio {
        let mut found = Found::default();
        cleanup::guarded(&binaries, || {
            found = cleanup::iptables(&binaries)?;
            restore_all(&binaries, &rules)
        })?;
        replace_routes(found.tproxy, capture)?;
    } else {
        restore_all(&binaries, &rules)?;
        routes::add(capture)?;
    }
    Ok(if has_istio { Loaded::Replaced } else { Loaded::New })
}

/// Loads the rules for `capture` by nft, in one transaction that also replaces what an earlier one made.
pub fn nftables(capture: &Capture) -> Result<(), LoadError> {
    let old_marks = cleanup::nftables_marks(&run("nft", &["list", "tables", "inet"], "")?)?;
    run("nft", &["-f", "-"], &nft::text(&super::generate(capture)))?;
    replace_routes(old_marks, capture)
}

/// Removes every rule, chain, route and address that Istio or this program has left, whatever they were made from.
/// Says whether there was anything.
pub fn remove() -> Result<bool, LoadError> {
    let mut binaries = Vec::new();
    for family in Family::ALL {
        for variant in [Variant::Legacy, Variant::Nft] {
            binaries.extend(Binary::named(family, variant)?);
        }
    }
    let mut found = cleanup::iptables(&binaries)?;
    let Found { found: had_tables, tproxy } = cleanup::nftables()?;
    found.tproxy.extend(tproxy);
    Ok(routes::remove(&found.tproxy)? || had_tables || found.found)
}

/// Adds the routes of `capture`, and removes those of other rules, which nothing would find any more.
fn replace_routes(mut old_marks: BTreeSet<u32>, capture: &Capture) -> Result<(), LoadError> {
    if capture.inbound_mode == InboundMode::Tproxy {
        old_marks.remove(&capture.tproxy_mark);
    }
    routes::remove_rules(&old_marks)?;
    routes::add(capture)
}

fn binaries(capture: &Capture, force: Force) -> Result<Vec<Binary>, LoadError> {
    let mut binaries = vec![Binary::find(Family::V4, force)?];
    match Binary::find(Family::V6, force) {
        Ok(binary) => binaries.push(binary),
        // A kernel without IPv6 has no rules to make or to find there.
        Err(error) if capture.ipv6 => return Err(error),
        Err(_) => {}
    }
    Ok(binaries)
}

fn restore_all(binaries: &[Binary], rules: &RuleSet) -> Result<(), LoadError> {
    for binary in binaries {
        let text = restore::text(rules.family(binary.family));
        if !text.is_empty() {
            binary.restore(&text)?;
        }
    }
    Ok(())
}
