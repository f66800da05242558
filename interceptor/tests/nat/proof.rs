//! The proof on paper: the policy and the rules decide alike about every class of connection.

use std::{ops::ControlFlow, thread};

use interceptor::{
    capture::PortRange,
    nat::{Loaded, Outcome, Rule, Target, Test, classes::Classes, evaluate},
    parity::random::captures::capture,
};
use proptest::prelude::*;

use crate::{
    agreement::{Rules, difference, rules_of, tests_of},
    golden::Golden,
};

/// More boundaries than this are first reduced to those that some test tells apart, to keep the run short.
const MOST_CLASSES: usize = 200_000;

#[test]
fn policy_and_rules_agree_about_every_boundary_of_every_golden() {
    thread::scope(|scope| {
        for golden in Golden::all() {
            scope.spawn(move || {
                let capture = golden.capture().unwrap();
                let rules = rules_of(&capture);
                let tests = tests_of(&capture, &rules);
                let mut classes = Classes::boundaries(&tests);
                if classes.count() > MOST_CLASSES {
                    classes = Classes::distinct(&tests);
                }
                assert_eq!(difference(&capture, &rules, &classes), None, "{}", golden.name);
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..cases(2_000) })]

    #[test]
    fn policy_and_rules_agree_about_random_captures(capture in capture()) {
        let rules = rules_of(&capture);
        let classes = Classes::distinct(&tests_of(&capture, &rules));
        prop_assert_eq!(difference(&capture, &rules, &classes), None);
    }
}

/// That many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(count: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        config
    } else {
        ProptestConfig { cases: count, ..config }
    }
}

#[test]
fn every_mutation_that_matters_is_found() {
    let (mut found, mut without_effect) = (0, 0);
    for golden in Golden::all() {
        let capture = golden.capture().unwrap();
        // A rule with dozens of tests only makes this slow.
        if golden.name.starts_with("owner-groups-4") || golden.name.starts_with("owner-groups-6") {
            continue;
        }
        let rules = rules_of(&capture);
        for (what, mutated) in mutations(&rules) {
            let mut tests = tests_of(&capture, &rules);
            tests.extend(tests_of(&capture, &mutated));
            let classes = Classes::distinct(&tests);
            // The yardstick is the rules themselves: some mutations change nothing, as Istio's dead rules show.
            let matters = rules_differ(&rules, &mutated, &classes);
            let difference = difference(&capture, &mutated, &classes);
            assert_eq!(difference.is_some(), matters, "{}: {what}: {difference:?}", golden.name);
            if matters { found += 1 } else { without_effect += 1 }
        }
    }
    println!("{found} mutations found, {without_effect} without effect on any connection");
    assert!(found > 0);
}

#[test]
fn the_mutations_that_matter_most_are_found() {
    let golden = Golden::all().into_iter().find(|golden| golden.name == "injected-pod").unwrap();
    let capture = golden.capture().unwrap();
    let rules = rules_of(&capture);
    let found: Vec<String> = mutations(&rules)
        .into_iter()
        .filter(|(_, mutated)| {
            let classes = Classes::distinct(&tests_of(&capture, mutated));
            difference(&capture, mutated, &classes).is_some()
        })
        .map(|(what, _)| what)
        .collect();
    for expected in [
        "nat ISTIO_REDIRECT 1: target port off by one",
        "nat ISTIO_IN_REDIRECT 1: target port off by one",
        "nat ISTIO_INBOUND 1: port off by one",
        "nat ISTIO_INBOUND 4: port off by one",
        "nat ISTIO_INBOUND 4: swapped with the next",
        "nat ISTIO_OUTPUT 2: port off by one",
        "nat ISTIO_OUTPUT 1: swapped with the next",
        "nat ISTIO_OUTPUT 8: swapped with the next",
    ] {
        assert!(found.iter().any(|what| what == expected), "not found: {expected}; found: {found:#?}");
    }
}

/// Each rule with one of its ports off by one, and each pair of neighbours swapped.
fn mutations(rules: &Rules) -> Vec<(String, Rules)> {
    let mut mutations = Vec::new();
    for (family, loaded) in rules.iter().enumerate() {
        for (table, chain, place, rule) in loaded.all() {
            if table == interceptor::nat::Table::Raw {
                continue;
            }
            let at = format!("{} {chain} {place}", table.name());
            let mut push = |what: &str, change: &dyn Fn(&mut Vec<Rule>)| {
                let mut mutated: Rules = rules.clone();
                let chains = &mut mutated[family].tables.get_mut(&table).unwrap().chains;
                change(chains.get_mut(chain).unwrap());
                mutations.push((format!("{at}: {what}"), mutated));
            };
            for (index, part) in rule.matches.iter().enumerate() {
                if let Test::DestinationPorts(ports) = part.test {
                    push("port off by one", &|rules| {
                        let last = ports.last.saturating_add(1);
                        rules[place - 1].matches[index].test =
                            Test::DestinationPorts(PortRange { first: last.min(ports.first + 1), last });
                    });
                }
            }
            if let Target::Redirect(port) = rule.target {
                push("target port off by one", &|rules| rules[place - 1].target = Target::Redirect(port + 1));
            }
            if place < loaded.rules(table, chain).len() {
                push("swapped with the next", &|rules| rules.swap(place - 1, place));
            }
        }
    }
    mutations
}

fn rules_differ(one: &Rules, other: &Rules, classes: &Classes) -> bool {
    let landing = |outcome| match outcome {
        Outcome::Pass => None,
        Outcome::Redirect(port) | Outcome::Tproxy(port) => Some(port),
        Outcome::Drop => Some(0),
    };
    let decide = |rules: &Rules, packet: &interceptor::nat::Packet| {
        let loaded: &Loaded = &rules[usize::from(packet.destination.is_ipv6())];
        landing(evaluate(loaded, packet).unwrap().outcome)
    };
    classes
        .each(|packet| {
            let alike = decide(one, packet) == decide(other, packet);
            if alike { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .is_break()
}
