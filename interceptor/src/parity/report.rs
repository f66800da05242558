//! Two backends set side by side: which facts differ, and whether that was meant.

use serde::Serialize;

use super::{
    backend::Backend,
    observation::{Fact, Observation},
    runner::Run,
    scenario::{Expected, Scenario},
};

/// The comparison of every scenario.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Backends in the order of every row's observations: the baseline if there is one, left, right.
    pub backends: Vec<Backend>,
    /// A row per connection.
    pub rows: Vec<Row>,
}

/// Why a scenario was not run: something is missing here that only it needs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);

/// The backend's refusal of a capture that a scenario says it refuses.
#[derive(Debug, thiserror::Error)]
#[error("refused: {0}")]
pub struct Refusal(pub String);

/// One connection under every backend.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Name of the scenario.
    pub scenario: String,
    /// Who connects to where.
    pub connection: String,
    /// What was seen, by backend; or why nothing could be.
    pub seen: Vec<Result<Observation, String>>,
    /// How right compares with left.
    pub verdict: Verdict,
}

/// How right compares with left.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every fact is equal.
    Equal,
    /// Facts differ as the scenario says they must.
    Explained(Vec<Difference>),
    /// Facts differ that should not, or do not differ as they should.
    Different(Vec<Difference>),
    /// One side could not be observed.
    Failed,
    /// It was not run, for this reason.
    Skipped(String),
}

/// One fact in which right differs from left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which fact.
    pub fact: String,
    /// Its value on the left; empty if it is not there.
    pub left: String,
    /// Its value on the right; empty if it is not there.
    pub right: String,
    /// Why it is meant to be, if it is.
    pub reason: Option<&'static str>,
}

impl Report {
    /// Compares the last two backends of `runs`, which has a row per scenario and a run per backend.
    #[must_use]
    pub fn new(scenarios: &[Scenario], backends: &[Backend], runs: &[Vec<Run>]) -> Self {
        let rows =
            scenarios.iter().zip(runs).flat_map(|(scenario, runs)| rows(scenario, backends, runs)).collect();
        Self { backends: backends.to_vec(), rows }
    }

    /// How many rows have a verdict of a kind.
    pub fn count(&self, kind: impl Fn(&Verdict) -> bool) -> usize {
        self.rows.iter().filter(|row| kind(&row.verdict)).count()
    }

    /// Rows that speak against right being like left.
    pub fn objections(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| matches!(row.verdict, Verdict::Different(_) | Verdict::Failed))
    }
}

fn rows(scenario: &Scenario, backends: &[Backend], runs: &[Run]) -> Vec<Row> {
    let row = |(index, connection): (usize, &super::scenario::Connection)| {
        let seen: Vec<_> = runs
            .iter()
            .map(|run| match run {
                Ok(observations) => Ok(observations[index].clone()),
                Err(error) => Err(format!("{error:#}")),
            })
            .collect();
        let skip = runs.iter().find_map(|run| run.as_ref().err()?.downcast_ref::<Skip>());
        let verdict = match (backends, seen.as_slice()) {
            _ if skip.is_some() => Verdict::Skipped(skip.map(ToString::to_string).unwrap_or_default()),
            _ if scenario.refused.is_some() => refusal(scenario, backends, runs),
            ([.., left, right], [.., Ok(on_left), Ok(on_right)]) => {
                let (left, right) = ((*left, on_left), (*right, on_right));
                lost(scenario, index, left, right)
                    .unwrap_or_else(|| compare(&scenario.expected, index, left, right))
            }
            _ => Verdict::Failed,
        };
        Row { scenario: scenario.name.clone(), connection: connection.to_string(), seen, verdict }
    };
    scenario.connections.iter().enumerate().map(row).collect()
}

/// The verdict about a capture that eBPF must refuse, and nat must not.
fn refusal(scenario: &Scenario, backends: &[Backend], runs: &[Run]) -> Verdict {
    let word = |run: &Run| match run {
        Ok(_) => Some("in force"),
        Err(error) if error.is::<Refusal>() => Some("refused"),
        Err(_) => None,
    };
    let ([.., left, right], [.., on_left, on_right]) = (backends, runs) else { return Verdict::Failed };
    let (Some(on_left), Some(on_right)) = (word(on_left), word(on_right)) else { return Verdict::Failed };
    let wanted = |backend| if backend == Backend::Ebpf { "refused" } else { "in force" };
    let as_pinned = on_left == wanted(*left) && on_right == wanted(*right);
    if as_pinned && on_left == on_right {
        return Verdict::Equal;
    }
    let difference = Difference {
        fact: "capture".to_owned(),
        left: on_left.to_owned(),
        right: on_right.to_owned(),
        reason: scenario.refused.filter(|_| as_pinned),
    };
    if as_pinned { Verdict::Explained(vec![difference]) } else { Verdict::Different(vec![difference]) }
}

/// The verdict about a connection that nat loses on this kernel; none if it does not, or if that is not all.
fn lost(
    scenario: &Scenario,
    connection: usize,
    left: (Backend, &Observation),
    right: (Backend, &Observation),
) -> Option<Verdict> {
    const CONNECT: &str = "app.connect";
    let lost = scenario.lost.filter(|lost| lost.connection == connection)?;
    let is_lost =
        |(backend, seen): (Backend, &Observation)| backend.is_nat() && seen.value(CONNECT) == lost.errno;
    let works = |(backend, seen): (Backend, &Observation)| {
        let mut pins = scenario.expected.iter().filter(|pin| pin.connection == connection);
        backend == Backend::Ebpf
            && seen.value(CONNECT) == "ok"
            && seen.value("app.answer") == lost.answer
            && ["proxy.original_v4", "proxy.original_v6"].iter().any(|fact| seen.value(fact) == lost.original)
            && pins.all(|pin| pin.value(backend) == Some(seen.value(pin.fact)))
    };
    if is_lost(left) && is_lost(right) {
        return Some(compare(&[], connection, left, right));
    }
    let is_explained = is_lost(left) && works(right) || works(left) && is_lost(right);
    is_explained.then(|| {
        Verdict::Explained(vec![Difference {
            fact: CONNECT.to_owned(),
            left: left.1.value(CONNECT).to_owned(),
            right: right.1.value(CONNECT).to_owned(),
            reason: Some(lost.reason),
        }])
    })
}

/// Compares fact by fact. A fact with a pinned difference must have exactly the pinned values, so one that has
/// silently become equal is found too.
fn compare(
    expected: &[Expected],
    connection: usize,
    (left, on_left): (Backend, &Observation),
    (right, on_right): (Backend, &Observation),
) -> Verdict {
    let only_right =
        on_right.facts.iter().filter(|fact| on_left.facts.iter().all(|other| other.name != fact.name));
    let names: Vec<&Fact> = on_left.facts.iter().chain(only_right).collect();
    let mut explained = Vec::new();
    let mut different = Vec::new();
    for fact in names {
        let (value_left, value_right) = (on_left.value(&fact.name), on_right.value(&fact.name));
        let pin = expected.iter().find(|expected| expected.is_about(connection, fact));
        let as_pinned = pin.is_none_or(|pin| {
            let holds = |backend, value| pin.value(backend).is_none_or(|pinned| pinned == value);
            holds(left, value_left) && holds(right, value_right)
        });
        let difference = Difference {
            fact: fact.name.clone(),
            left: value_left.to_owned(),
            right: value_right.to_owned(),
            reason: pin.filter(|_| as_pinned).map(|pin| pin.reason),
        };
        match (value_left == value_right, as_pinned, pin) {
            (true, true, _) => {}
            (false, true, Some(_)) => explained.push(difference),
            _ => different.push(difference),
        }
    }
    match (different.is_empty(), explained.is_empty()) {
        (false, _) => Verdict::Different(different),
        (true, false) => Verdict::Explained(explained),
        (true, true) => Verdict::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::scenario::Lost;

    const PIN: Expected =
        Expected { connection: 0, fact: "proxy.peer", nat: "pod:other", ebpf: "pod:src", reason: "so" };

    fn saw(facts: &[(&str, &str)]) -> Observation {
        let fact =
            |(name, value): &(&str, &str)| Fact { name: (*name).to_owned(), value: (*value).to_owned() };
        Observation { facts: facts.iter().map(fact).collect() }
    }

    fn verdict(expected: &[Expected], nat: &[(&str, &str)], ebpf: &[(&str, &str)]) -> Verdict {
        compare(expected, 0, (Backend::IptablesNft, &saw(nat)), (Backend::Ebpf, &saw(ebpf)))
    }

    #[test]
    fn a_fact_on_one_side_only_is_a_difference() {
        let facts = [("app.connect", "ok"), ("proxy.local", "127.0.0.1:15001")];
        assert!(matches!(verdict(&[], &facts, &facts[..1]), Verdict::Different(_)));
        assert!(matches!(verdict(&[], &facts[..1], &facts), Verdict::Different(_)));
        assert_eq!(verdict(&[], &facts, &facts), Verdict::Equal);
    }

    #[test]
    fn a_connection_that_nat_loses_must_work_under_ebpf() {
        let scenario = Scenario {
            expected: vec![PIN],
            lost: Some(Lost {
                connection: 0,
                errno: "ETIMEDOUT",
                answer: "hello",
                original: "pod:81",
                reason: "so",
            }),
            ..crate::parity::catalogue::all().swap_remove(0)
        };
        let verdict = |nat: &[(&str, &str)], ebpf: &[(&str, &str)]| {
            let (nat, ebpf) = (saw(nat), saw(ebpf));
            lost(&scenario, 0, (Backend::IptablesNft, &nat), (Backend::Ebpf, &ebpf))
        };
        let nat = [("app.connect", "ETIMEDOUT")];
        let ebpf = [
            ("app.connect", "ok"),
            ("app.answer", "hello"),
            ("proxy.peer", "pod:src"),
            ("proxy.original_v6", "pod:81"),
        ];
        assert!(matches!(verdict(&nat, &ebpf), Some(Verdict::Explained(_))));
        for fact in 0..ebpf.len() {
            let mut wrong = ebpf;
            wrong[fact].1 = "something else";
            assert_eq!(verdict(&nat, &wrong), None, "{}", ebpf[fact].0);
        }
        let reversed = lost(&scenario, 0, (Backend::Ebpf, &saw(&ebpf)), (Backend::IptablesNft, &saw(&nat)));
        assert!(matches!(reversed, Some(Verdict::Explained(_))));
        assert_eq!(verdict(&[("app.connect", "ECONNREFUSED")], &ebpf), None);
        assert_eq!(verdict(&nat, &nat), None);
        let both = (Backend::IptablesNft, &saw(&nat));
        assert_eq!(lost(&scenario, 0, both, both), Some(Verdict::Equal));
    }

    #[test]
    fn a_pinned_difference_is_explained_only_as_long_as_it_holds() {
        let (nat, ebpf) = ([("proxy.peer", "pod:other")], [("proxy.peer", "pod:src")]);
        assert!(matches!(verdict(&[PIN], &nat, &ebpf), Verdict::Explained(_)));
        assert!(matches!(verdict(&[PIN], &nat, &[("proxy.peer", "pod:other")]), Verdict::Different(_)));
        assert!(matches!(verdict(&[PIN], &ebpf, &ebpf), Verdict::Different(_)));
        assert!(matches!(verdict(&[PIN], &nat, &[("proxy.peer", "peer:src")]), Verdict::Different(_)));
        // It is pinned for the first connection alone.
        let second = compare(&[PIN], 1, (Backend::IptablesNft, &saw(&nat)), (Backend::Ebpf, &saw(&ebpf)));
        assert!(matches!(second, Verdict::Different(_)));
    }
}
