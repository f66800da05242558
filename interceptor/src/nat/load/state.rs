//! What is loaded, compared with what should be.

use super::{binary::Binary, cleanup, command::LoadError};
use crate::nat::{Chain, Entry, Family, Loaded, Rule, Table, save::Saved};

/// How the rules of one family stand to what should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Whether rules or chains of Istio are loaded, of whichever configuration.
    pub(super) has_istio: bool,
    /// Whether they differ from what should be there, order included.
    pub(super) differs: bool,
}

impl State {
    pub(super) fn of(binary: &Binary, wanted: &[Entry]) -> Result<Self, LoadError> {
        let (found, wanted) = (binary.loaded()?, Loaded::of(wanted));
        Ok(Self { has_istio: cleanup::has_istio(&found), differs: differs(&found, &wanted, binary.family) })
    }
}

fn differs(found: &Loaded, wanted: &Loaded, family: Family) -> bool {
    let printed = |rule: &Rule| Saved { rule, family }.to_string();
    for table in Table::ALL {
        let chains = |loaded: &Loaded| -> Vec<Chain> {
            let in_table = loaded.tables.get(&table);
            in_table.into_iter().flat_map(|table| table.chains.keys().cloned()).collect()
        };
        for chain in chains(found).into_iter().chain(chains(wanted)) {
            let here: Vec<String> = found.rules(table, &chain).iter().map(printed).collect();
            let there: Vec<String> = wanted.rules(table, &chain).iter().map(printed).collect();
            let exists = |loaded: &Loaded| {
                loaded.tables.get(&table).is_some_and(|table| table.chains.contains_key(&chain))
            };
            let alike = if chain.is_built_in() {
                // Others may have rules there; ours must be among them, in our order.
                let mut rest = here.iter();
                there.iter().all(|rule| rest.any(|found| found == rule))
            } else if chain.is_istio() {
                here == there && exists(found) == exists(wanted)
            } else {
                true
            };
            if !alike {
                return true;
            }
        }
    }
    false
}
