//! Choosing a backend.

use std::{fmt, path::Path};

use serde::Serialize;
use thiserror::Error;

use super::{
    feature::{Need, Presence, Row},
    grade::{Backend, Engine, missing},
    rows,
};

/// A backend, and why it is that one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The backend.
    pub backend: Backend,
    /// The feature that decided against a better one; none if there is no better one.
    pub decided_by: Option<&'static str>,
    /// Why, as the rest of a sentence that begins with the backend.
    pub because: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backend, self.because)
    }
}

/// No backend works here, or not the one that must.
#[derive(Clone, Debug, Error, Serialize)]
#[error("{sentence}")]
pub struct NoBackend {
    /// What each lacks, and what to do.
    pub sentence: String,
}

/// Chooses the best of the backends `allowed` that works here. Looks only at what it takes to decide.
pub fn choose(state: &Path, allowed: &[Backend]) -> Result<Choice, NoBackend> {
    if allowed.contains(&Backend::Ebpf) {
        let rows = rows(
            state,
            |feature| matches!(feature.need, Need::Of(engines) if engines.contains(&Engine::Ebpf)),
        );
        if missing(Backend::Ebpf, &rows).is_empty() {
            return first(allowed, &rows);
        }
    }
    first(allowed, &rows(state, |feature| matches!(feature.need, Need::Of(_))))
}

/// What `auto` takes.
pub(super) fn among(rows: &[Row]) -> Result<Choice, NoBackend> {
    first(&Backend::ALL, rows)
}

fn first(allowed: &[Backend], rows: &[Row]) -> Result<Choice, NoBackend> {
    let mut objections: Vec<(Backend, &Row)> = Vec::new();
    for backend in Backend::ALL.into_iter().filter(|backend| allowed.contains(backend)) {
        // The first row in the catalogue's order: what it says explains the later ones.
        let Some(row) = missing(backend, rows).first().copied() else {
            return Ok(choice(backend, objections.first().map(|(_, row)| *row)));
        };
        objections.push((backend, row));
    }
    let each: Vec<_> =
        objections.iter().map(|(backend, row)| format!("{backend} needs {}", lack(row))).collect();
    Err(NoBackend {
        sentence: format!("{}; `interceptor probe` shows what else is missing", each.join("; ")),
    })
}

fn choice(backend: Backend, decider: Option<&Row>) -> Choice {
    let because = decider.map_or_else(
        || "everything it needs is here".to_owned(),
        |row| format!("the better one, ebpf, needs {}", lack(row)),
    );
    Choice { backend, decided_by: decider.map(|row| row.feature.name), because }
}

/// A missing feature in words.
fn lack(row: &Row) -> String {
    let absent = match row.finding.present {
        Presence::No => "not here",
        Presence::Yes | Presence::Unknown => "not known to be here",
    };
    let since = row.feature.since.map_or_else(String::new, |since| format!(", in Linux since {since}"));
    let detail =
        if row.finding.detail.is_empty() { String::new() } else { format!(": {}", row.finding.detail) };
    format!("{}, which is {absent}{detail}{since}", row.feature.name)
}
