//! The rules as one nft transaction in tables of family `inet`, as Istio's nftables backend lays them out (1.27 on).
//!
//! A nat chain of this family has conntrack follow connections over IPv6 as well, also where none is captured.

use std::fmt::{self, Write as _};

use ipnet::IpNet;

use super::{
    loaded::Loaded,
    model::{Chain, Family, Match, Protocol, Rule, RuleSet, Table, Target, Test},
};
use crate::capture::PortRange;

/// The tables this backend may make.
const TABLES: [Table; 3] = [Table::Nat, Table::Mangle, Table::Raw];

/// Input for `nft -f`: every table is emptied and filled again, and those no longer needed are removed, all at once.
#[must_use]
pub fn text(rules: &RuleSet) -> String {
    let families = Family::ALL.map(|family| Loaded::of(rules.family(family)));
    let mut text = String::new();
    for table in TABLES {
        let lines = table_lines(table, &families, !rules.v6.is_empty());
        // Adding comes first, because neither flushing nor deleting works on a table that is not there.
        push(&mut text, format_args!("add table inet {}", name(table)));
        if lines.is_empty() {
            push(&mut text, format_args!("delete table inet {}", name(table)));
        } else {
            push(&mut text, format_args!("flush table inet {}", name(table)));
            text.push_str(&lines);
        }
    }
    text
}

/// Input for `nft -f` that removes every table this backend may have made.
#[must_use]
pub fn removal() -> String {
    let mut text = String::new();
    for table in TABLES {
        push(&mut text, format_args!("add table inet {}", name(table)));
        push(&mut text, format_args!("delete table inet {}", name(table)));
    }
    text
}

/// The table's name.
#[must_use]
pub const fn name(table: Table) -> &'static str {
    match table {
        Table::Nat => "istio-proxy-nat",
        Table::Mangle => "istio-proxy-mangle",
        Table::Raw => "istio-proxy-raw",
        Table::Filter => "istio-proxy-filter",
    }
}

fn table_lines(table: Table, families: &[Loaded; 2], ipv6: bool) -> String {
    let mut chains: Vec<&Chain> = Vec::new();
    for family in families {
        let in_table = family.tables.get(&table);
        chains.extend(in_table.into_iter().flat_map(|chains| chains.in_order(table)).map(|(chain, _)| chain));
    }
    let has_rules = |chain: &Chain| families.iter().any(|family| !family.rules(table, chain).is_empty());
    let is_target = |chain: &Chain| {
        families.iter().flat_map(Loaded::all).any(|(_, _, _, rule)| rule.target.jump() == Some(chain))
    };
    chains.retain(|chain| has_rules(chain) || !chain.is_built_in() && is_target(chain));
    let mut seen = std::collections::HashSet::new();
    chains.retain(|chain| seen.insert(*chain));

    let mut text = String::new();
    for chain in &chains {
        let hook = hook(table, chain).map_or_else(String::new, |hook| format!(" {{ {hook}; }}"));
        push(&mut text, format_args!("add chain inet {} {}{hook}", name(table), chain_name(chain)));
    }
    for chain in &chains {
        for (only, rule) in merged(families[0].rules(table, chain), families[1].rules(table, chain)) {
            // With IPv6 left alone, only IPv4 may enter where the kernel calls.
            let only = only.or_else(|| (!ipv6 && chain.is_built_in()).then_some(Family::V4));
            let rule = Statement { rule, only };
            push(&mut text, format_args!("add rule inet {} {}{rule}", name(table), chain_name(chain)));
        }
    }
    text
}

/// The rules of both families as one list that keeps the order of each. A rule they share comes once; one that names
/// an address is of that address's family anyway, and any other is restricted to its family.
fn merged<'a>(v4: &'a [Rule], v6: &'a [Rule]) -> Vec<(Option<Family>, &'a Rule)> {
    let names_address = |rule: &Rule| {
        rule.matches.iter().any(|part| matches!(part.test, Test::Source(_) | Test::Destination(_)))
    };
    let restricted = |rule: &Rule, family| (!names_address(rule)).then_some(family);
    let mut merged = Vec::new();
    let (mut v4, mut v6) = (v4.iter().peekable(), v6.iter().peekable());
    loop {
        match (v4.peek(), v6.peek()) {
            (Some(one), Some(other)) if one == other => {
                merged.push((None, *one));
                v4.next();
                v6.next();
            }
            (Some(one), Some(other)) if names_address(one) || !names_address(other) => {
                merged.push((restricted(one, Family::V4), *one));
                v4.next();
            }
            (Some(one), None) => {
                // Without rules of the other family there is nothing to tell apart.
                merged.push((None, *one));
                v4.next();
            }
            (_, Some(other)) => {
                merged.push((restricted(other, Family::V6), *other));
                v6.next();
            }
            (None, None) => return merged,
        }
    }
}

fn hook(table: Table, chain: &Chain) -> Option<String> {
    let (priority, kind) = match (table, chain.name()) {
        (Table::Nat, _) => (-100, "nat"),
        // Only in a chain of this type does a new mark make the kernel look for the route again.
        (Table::Mangle, "OUTPUT") => (-150, "route"),
        (Table::Mangle, _) => (-150, "filter"),
        (Table::Raw, _) => (-300, "filter"),
        (Table::Filter, _) => (0, "filter"),
    };
    let hook = chain_name(chain);
    chain.is_built_in().then(|| format!("type {kind} hook {hook} priority {priority}"))
}

fn chain_name(chain: &Chain) -> String {
    chain.name().to_lowercase().replace('_', "-")
}

/// A rule in nft's words, with a blank before each part.
struct Statement<'a> {
    rule: &'a Rule,
    only: Option<Family>,
}

impl fmt::Display for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only {
            Some(Family::V4) => f.write_str(" meta nfproto ipv4")?,
            Some(Family::V6) => f.write_str(" meta nfproto ipv6")?,
            None => {}
        }
        let groups = self.other_groups();
        for part in self.rule.matches.iter().filter(|part| groups.len() < 2 || !is_other_group(part)) {
            self.write_match(f, part)?;
        }
        if groups.len() > 1 {
            // One by one they would be more expressions than a rule may have (NFT_RULE_MAXEXPRS).
            write!(f, " meta skgid != {{ {} }}", groups.join(", "))?;
        }
        f.write_str(" counter")?;
        match &self.rule.target {
            Target::Return => f.write_str(" return"),
            Target::Accept => f.write_str(" accept"),
            Target::Drop => f.write_str(" drop"),
            Target::Jump(chain) => write!(f, " jump {}", chain_name(chain)),
            Target::Redirect(port) => write!(f, " redirect to :{port}"),
            Target::Tproxy { port, mark } => {
                let v6 = |part: &Match| matches!(part.test, Test::Destination(IpNet::V6(_)));
                let family = if self.rule.matches.iter().any(v6) { "ip6" } else { "ip" };
                write!(f, " tproxy {family} to :{port} meta mark set {mark} accept")
            }
            Target::SetMark(mark) => write!(f, " meta mark set {mark}"),
            Target::SaveMark => f.write_str(" ct mark set meta mark"),
            Target::RestoreMark => f.write_str(" meta mark set ct mark"),
            Target::Zone(zone) => write!(f, " ct zone set {zone}"),
            Target::None => Ok(()),
            Target::Other(text) => write!(f, " {text}"),
        }
    }
}

impl Statement<'_> {
    /// The groups that the packet's must not be.
    fn other_groups(&self) -> Vec<String> {
        let group = |part: &Match| if let Test::Gid(gid) = part.test { Some(gid.to_string()) } else { None };
        let groups: std::collections::BTreeSet<_> =
            self.rule.matches.iter().filter(|part| is_other_group(part)).filter_map(group).collect();
        groups.into_iter().collect()
    }

    fn write_match(&self, f: &mut fmt::Formatter<'_>, part: &Match) -> fmt::Result {
        let not = if part.negated { " !=" } else { "" };
        let protocol = self.rule.protocol().map_or_else(String::new, |protocol| protocol.to_string());
        match &part.test {
            Test::Source(cidr) => write!(f, " {} saddr{not} {}", family_name(cidr), cidr.trunc()),
            Test::Destination(cidr) => write!(f, " {} daddr{not} {}", family_name(cidr), cidr.trunc()),
            Test::InInterface(name) => write!(f, " iifname{not} \"{}\"", name.replace('+', "*")),
            Test::OutInterface(name) => write!(f, " oifname{not} \"{}\"", name.replace('+', "*")),
            Test::Protocol(protocol) => write!(f, " meta l4proto{not} {protocol}"),
            Test::SourcePorts(ports) => write!(f, " {protocol} sport{not} {}", Ports(*ports)),
            Test::DestinationPorts(ports) => write!(f, " {protocol} dport{not} {}", Ports(*ports)),
            Test::AnyDestinationPorts(ports) => {
                let ports: Vec<String> = ports.iter().map(|ports| Ports(*ports).to_string()).collect();
                write!(f, " {protocol} dport{not} {{ {} }}", ports.join(", "))
            }
            Test::Uid(uid) => write!(f, " meta skuid{not} {uid}"),
            Test::Gid(gid) => write!(f, " meta skgid{not} {gid}"),
            Test::ConntrackState(states) => {
                // Istio's nftables backend drops invalid packets of TCP only.
                if states.iter().any(|state| state == "INVALID") {
                    write!(f, " meta l4proto {}", Protocol::Tcp)?;
                }
                write!(f, " ct state{not} {}", states.join(",").to_lowercase())
            }
            Test::Mark(mark) => write!(f, " meta mark{not} {}", mark.value),
            Test::ConnectionMark(mark) => write!(f, " ct mark{not} {}", mark.value),
            Test::Comment(_) => Ok(()),
            Test::Other(text) => write!(f, " {text}"),
        }
    }
}

fn is_other_group(part: &Match) -> bool {
    part.negated && matches!(part.test, Test::Gid(_))
}

struct Ports(PortRange);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortRange { first, last } = self.0;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

fn family_name(cidr: &IpNet) -> &'static str {
    match cidr {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}

fn push(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}
