//! Removes what Istio left, known by its names and shapes rather than by a configuration.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    binary::Binary,
    command::{LoadError, run},
};
use crate::nat::{
    Chain, Loaded, Match, Rule, Table, Target, Test, nft,
    rules::{PROXY_DNS_PORT, SELF_CALL_MARK},
    save::Saved,
};

/// What was found while removing.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether there was anything.
    pub(super) found: bool,
    /// The marks that TPROXY rules set, which routing rules may still name.
    pub(super) tproxy: BTreeSet<u32>,
}

/// Whether chains or rules of Istio are loaded.
pub(super) fn has_istio(loaded: &Loaded) -> bool {
    loaded.tables.values().any(|table| table.chains.keys().any(Chain::is_istio))
}

/// Removes Istio's rules by every one of `binaries`, each table at one stroke.
pub(super) fn iptables(binaries: &[Binary]) -> Result<Found, LoadError> {
    let mut found = Found::default();
    for binary in binaries {
        let loaded = binary.loaded()?;
        let text = removal(&loaded, binary);
        if !text.is_empty() {
            found.found = true;
            let mark =
                |rule: &Rule| if let Target::Tproxy { mark, .. } = rule.target { Some(mark) } else { None };
            found.tproxy.extend(loaded.all().filter_map(|(_, _, _, rule)| mark(rule)));
            binary.restore(&text)?;
        }
    }
    Ok(found)
}

/// Removes the tables of the nft backend. A host without nft has none.
pub(super) fn nftables() -> Result<Found, LoadError> {
    let tables = match run("nft", &["list", "tables", "inet"], "") {
        Ok(tables) => tables,
        Err(error) if error.is_denied() => return Err(error),
        Err(_) => return Ok(Found::default()),
    };
    if !tables.contains("istio-proxy-") {
        return Ok(Found::default());
    }
    let tproxy = nftables_marks(&tables)?;
    run("nft", &["-f", "-"], &nft::removal())?;
    Ok(Found { found: true, tproxy })
}

/// The marks that rules of the nft backend set for TPROXY, given the list of tables there are.
pub(super) fn nftables_marks(tables: &str) -> Result<BTreeSet<u32>, LoadError> {
    let mangle = nft::name(Table::Mangle);
    if !tables.contains(mangle) {
        return Ok(BTreeSet::new());
    }
    let rules = run("nft", &["list", "table", "inet", mangle], "")?;
    // `tproxy ip to :15006 meta mark set 0x00000539 accept`
    let marks = rules.lines().filter(|line| line.contains(" tproxy ")).filter_map(|line| {
        let (_, mark) = line.split_once(" meta mark set 0x")?;
        u32::from_str_radix(mark.split_whitespace().next()?, 16).ok()
    });
    Ok(marks.collect())
}

/// Runs `change` while no TCP or UDP packet passes, so that none passes between two sets of rules.
pub(super) fn guarded(
    binaries: &[Binary],
    change: impl FnOnce() -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let text = |option: &str| {
        let mut text = "*filter\n".to_owned();
        for chain in ["INPUT", "FORWARD", "OUTPUT"] {
            for protocol in ["tcp", "udp"] {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{option} {chain} -p {protocol} -j DROP");
            }
        }
        text + "COMMIT\n"
    };
    let remove = |binaries: &[Binary]| {
        let results: Vec<_> = binaries.iter().map(|binary| binary.restore(&text("-D"))).collect();
        results.into_iter().collect::<Result<(), _>>()
    };
    let mut set = 0;
    let mut outcome = Ok(());
    for binary in binaries {
        outcome = binary.restore(&text("-I"));
        if outcome.is_err() {
            break;
        }
        set += 1;
    }
    let outcome = outcome.and_then(|()| change());
    // Also after an error: a workload left without any traffic helps nobody find out why.
    outcome.and(remove(&binaries[..set]))
}

/// Input for restore that removes all rules of Istio; empty if there are none.
fn removal(loaded: &Loaded, binary: &Binary) -> String {
    let anywhere = has_istio(loaded);
    let mut text = String::new();
    for (table, chains) in &loaded.tables {
        let mut lines = String::new();
        for (chain, rules) in chains.in_order(*table).filter(|(chain, _)| !chain.is_istio()) {
            for rule in rules.iter().filter(|rule| is_istios(*table, rule, anywhere)) {
                // Writing to a string cannot fail.
                let _ = writeln!(lines, "-D {chain}{}", Saved { rule, family: binary.family });
            }
        }
        let ours = || chains.chains.keys().filter(|chain| chain.is_istio());
        for (option, chain) in ours().map(|chain| ("-F", chain)).chain(ours().map(|chain| ("-X", chain))) {
            let _ = writeln!(lines, "{option} {chain}");
        }
        if !lines.is_empty() {
            let _ = write!(text, "*{}\n{lines}COMMIT\n", table.name());
        }
    }
    text
}

/// Whether a rule outside Istio's chains is Istio's: it leads into them, or, where they are there, it has a shape that
/// Istio puts beside them.
fn is_istios(table: Table, rule: &Rule, beside_its_chains: bool) -> bool {
    if rule.target.jump().is_some_and(Chain::is_istio) {
        return true;
    }
    let tests: Vec<&Test> = rule.matches.iter().map(|part| &part.test).collect();
    let shape = match (table, &rule.target) {
        // An excluded interface, or one of a virtual machine.
        (Table::Nat | Table::Mangle, Target::Return) => {
            matches!(
                rule.matches.as_slice(),
                [Match { negated: false, test: Test::InInterface(_) | Test::OutInterface(_) }]
            ) || matches!(tests.as_slice(), [Test::OutInterface(lo), Test::Protocol(_), Test::Mark(_)] if lo == "lo")
                || matches!(
                    tests.as_slice(),
                    [Test::Protocol(_), Test::DestinationPorts(ports), Test::Uid(_) | Test::Gid(_)]
                        if ports.first == 53 && ports.last == 53
                )
        }
        (Table::Mangle, Target::SetMark(mark)) => *mark == SELF_CALL_MARK,
        (Table::Mangle, Target::SaveMark) => matches!(tests.as_slice(), [Test::Protocol(_), Test::Mark(_)]),
        (Table::Mangle, Target::RestoreMark) => {
            matches!(tests.as_slice(), [Test::Protocol(_), Test::ConnectionMark(_)])
        }
        // Before 1.25 the rules about DNS had no chain of their own.
        (Table::Nat, Target::Redirect(port)) => *port == PROXY_DNS_PORT,
        (Table::Raw, Target::Zone(1 | 2)) => true,
        _ => false,
    };
    beside_its_chains && shape
}
