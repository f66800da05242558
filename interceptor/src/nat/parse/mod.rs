//! Reads rules back from what iptables prints.

mod list;
mod rule;
mod save;
mod words;

pub use self::{list::list, save::save};
use super::loaded::Loaded;

/// Rules read from a text, and what had to be assumed to read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The rules.
    pub loaded: Loaded,
    /// What the text does not say and was taken from what Istio does, a sentence each.
    pub assumptions: Vec<String>,
}

/// Why a text is not what iptables prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ParseError {
    /// The line at fault, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// Reads `text`, whichever of the forms it has: a listing has lines that begin with `Chain`, a save has not.
pub fn any(text: &str) -> Result<Parsed, ParseError> {
    if text.lines().any(|line| line.starts_with("Chain ")) { list(text) } else { save(text) }
}
