//! `iptables-save`, `iptables -S`, and what `iptables-restore` takes.

use super::{ParseError, Parsed, rule, words::words};
use crate::nat::{
    loaded::{Chains, Loaded},
    model::{Chain, Table},
};

/// Reads a save; without a line that names the table (`iptables -S`) the rules are nat's.
pub fn save(text: &str) -> Result<Parsed, ParseError> {
    let mut loaded = Loaded::default();
    let mut table = Some(Table::Nat);
    for (line, number) in text.lines().zip(1..) {
        let wrong = |why: String| ParseError { line: number, why };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line == "COMMIT" {
            continue;
        }
        if let Some(name) = line.strip_prefix('*') {
            table = Table::ALL.into_iter().find(|table| table.name() == name.trim());
            if let Some(table) = table {
                loaded.tables.entry(table).or_insert_with(|| Chains::empty(table));
            }
            continue;
        }
        // A table Istio does not use (`security`) has no say in what it does.
        let Some(table) = table else { continue };
        let chains = loaded.tables.entry(table).or_insert_with(|| Chains::empty(table));
        read(line, chains).map_err(wrong)?;
    }
    Ok(Parsed { loaded, assumptions: Vec::new() })
}

fn read(line: &str, chains: &mut Chains) -> Result<(), String> {
    // `-c` puts counters in brackets before a rule, without a blank in them.
    let line = match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ").map_or(line, |(_, rule)| rule),
        None => line,
    };
    if let Some(declaration) = line.strip_prefix(':') {
        let mut words = declaration.split_whitespace();
        let name = words.next().ok_or("a chain is declared without a name")?;
        return declare(chains, name, words.next());
    }
    let words = words(line).ok_or("a quotation mark is not closed")?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["-P" | "--policy", name, policy, ..] => declare(chains, name, Some(policy)),
        ["-N" | "--new-chain", name, ..] => declare(chains, name, None),
        ["-A" | "--append", chain, rest @ ..] => {
            let rule = rule::parse(rest, chains)?;
            chains.chains.entry(Chain::named(*chain)).or_default().push(rule);
            Ok(())
        }
        ["-I" | "--insert", chain, rest @ ..] => {
            let place = rest.first().and_then(|word| word.parse::<usize>().ok());
            let rest = if place.is_some() { &rest[1..] } else { rest };
            let rule = rule::parse(rest, chains)?;
            let rules = chains.chains.entry(Chain::named(*chain)).or_default();
            let place = place.unwrap_or(1);
            if !(1..=rules.len() + 1).contains(&place) {
                return Err(format!(
                    "{chain} has {} rules, so none can be put at place {place}",
                    rules.len()
                ));
            }
            rules.insert(place - 1, rule);
            Ok(())
        }
        _ => Err(format!("`{line}` is not a line that iptables-save or `iptables -S` prints")),
    }
}

fn declare(chains: &mut Chains, name: &str, policy: Option<&str>) -> Result<(), String> {
    let chain = Chain::named(name);
    chains.chains.entry(chain.clone()).or_default();
    match policy {
        None | Some("-" | "ACCEPT") => Ok(()),
        Some("DROP") => {
            chains.dropping.push(chain);
            Ok(())
        }
        Some(other) => Err(format!("chain {name} has the policy `{other}`, which iptables does not know")),
    }
}
