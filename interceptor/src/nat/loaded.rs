//! Rules as they stand in the kernel: chains with their rules in order.

use std::collections::{BTreeMap, VecDeque};

use super::model::{Chain, Entry, Rule, Table};

/// The tables of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The tables that exist.
    pub tables: BTreeMap<Table, Chains>,
}

/// The chains of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    /// By name.
    pub chains: BTreeMap<Chain, Vec<Rule>>,
    /// Built-in chains that drop what no rule decides; the others accept.
    pub dropping: Vec<Chain>,
}

impl Loaded {
    /// What stands in the kernel after `entries` were loaded into empty tables.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        let mut loaded = Self::default();
        // Istio inserts near a chain's beginning, which takes a deque no longer than near its end.
        let mut growing: BTreeMap<(Table, &Chain), VecDeque<Rule>> = BTreeMap::new();
        for Entry { table, chain, place, rule } in entries {
            if let Some(target) = rule.target.jump() {
                growing.entry((*table, target)).or_default();
            }
            let rules = growing.entry((*table, chain)).or_default();
            let place = place.map_or(rules.len(), |place| (place - 1).min(rules.len()));
            rules.insert(place, rule.clone());
        }
        for ((table, chain), rules) in growing {
            let chains = loaded.tables.entry(table).or_insert_with(|| Chains::empty(table));
            chains.chains.insert(chain.clone(), rules.into());
        }
        loaded
    }

    /// The rules of one chain; none if there is no such chain.
    #[must_use]
    pub fn rules(&self, table: Table, chain: &Chain) -> &[Rule] {
        self.tables.get(&table).and_then(|chains| chains.chains.get(chain)).map_or(&[], Vec::as_slice)
    }

    /// Every rule there is, with its table, chain and place (counted from 1).
    pub fn all(&self) -> impl Iterator<Item = (Table, &Chain, usize, &Rule)> {
        self.tables.iter().flat_map(|(table, chains)| {
            chains.chains.iter().flat_map(move |(chain, rules)| {
                rules.iter().zip(1..).map(move |(rule, place)| (*table, chain, place, rule))
            })
        })
    }
}

impl Chains {
    /// A table with nothing but its built-in chains.
    #[must_use]
    pub fn empty(table: Table) -> Self {
        let chains = table.built_in().iter().map(|name| (Chain::named(*name), Vec::new()));
        Self { chains: chains.collect(), dropping: Vec::new() }
    }

    /// The chains in the order iptables prints them: built-in ones first, as the kernel calls them, then by name.
    pub fn in_order(&self, table: Table) -> impl Iterator<Item = (&Chain, &Vec<Rule>)> {
        let rank = move |chain: &Chain| {
            let built_in = table.built_in();
            built_in.iter().position(|name| *name == chain.name()).unwrap_or(built_in.len())
        };
        let mut chains: Vec<_> = self.chains.iter().collect();
        chains.sort_by_key(|(chain, _)| rank(chain));
        chains.into_iter()
    }
}
