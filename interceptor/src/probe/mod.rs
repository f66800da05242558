//! What this machine offers: every feature a backend needs or can use, found out by trying it, never by a version.
//!
//! The [`catalogue`] says what is looked for and why, a [`Check`](feature::Check) how. From the [`Row`]s follow each
//! backend's [`Grade`] and the [`Choice`] among backends.

mod catalogue;
mod choose;
mod feature;
mod grade;
mod host;
mod netfilter;

use std::path::Path;

use serde::Serialize;

use self::{catalogue::FEATURES, host::Host};
pub use self::{
    choose::{Choice, NoBackend, choose},
    feature::{Feature, Finding, Group, Need, Presence, Row},
    grade::{Backend, Engine, Grade},
};

/// Everything that was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// A row a feature.
    pub rows: Vec<Row>,
    /// How well each backend would work.
    pub grades: Vec<BackendGrade>,
    /// What `auto` takes.
    pub auto: Auto,
}

/// What `auto` takes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auto {
    /// This backend.
    Takes(Choice),
    /// No backend works here.
    TakesNothing(NoBackend),
}

/// How well a backend would work.
#[derive(Clone, Debug, Serialize)]
pub struct BackendGrade {
    /// The backend.
    pub backend: Backend,
    /// How well.
    pub grade: Grade,
}

/// Looks at everything. Changes nothing: what it makes for a try is gone when it returns, and no module is loaded.
#[must_use]
pub fn probe(state: &Path) -> Report {
    let rows = rows(state, |_| true);
    let grades =
        Backend::ALL.map(|backend| BackendGrade { backend, grade: Grade::of(backend, &rows) }).into();
    let auto = choose::among(&rows).map_or_else(Auto::TakesNothing, Auto::Takes);
    Report { rows, grades, auto }
}

/// The rows of the features wanted, in the catalogue's order.
fn rows(state: &Path, wanted: impl Fn(&Feature) -> bool) -> Vec<Row> {
    let host = Host::new(state);
    let wanted = FEATURES.iter().filter(|feature| wanted(feature));
    wanted.map(|feature| Row { feature, finding: feature.check.run(&host) }).collect()
}
