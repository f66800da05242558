//! `cargo xtask mutants`: faults planted in the data path, each of which `interceptor parity` must catch.

mod list;
mod tree;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::{
    list::{MUTANTS, Mutant},
    tree::Tree,
};
use crate::{preflight, setup};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only faults whose name contains this text.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    preflight::check("cargo xtask mutants")?;
    setup::everything()?;
    let mutants: Vec<_> = MUTANTS.iter().filter(|mutant| mutant.name.contains(&options.filter)).collect();
    ensure!(!mutants.is_empty(), "no fault has {:?} in its name", options.filter);

    let tree = Tree::copy()?;
    let mut missed = Vec::new();
    for mutant in &mutants {
        let caught = examine(&tree, mutant).with_context(|| format!("with the fault {:?}", mutant.name))?;
        if let Some(scenario) = caught {
            say(&format!("caught  {}: by {scenario:?}", mutant.name))?;
        } else {
            say(&format!("MISSED  {}", mutant.name))?;
            missed.push(mutant.name);
        }
    }
    say(&format!("{} of {} faults caught", mutants.len() - missed.len(), mutants.len()))?;
    ensure!(missed.is_empty(), "no scenario catches: {}", missed.join("; "));
    Ok(())
}

/// The first scenario that differs with the fault in place, if there is one.
fn examine(tree: &Tree, mutant: &Mutant) -> Result<Option<String>> {
    let _planted = tree.plant(mutant)?;
    tree.build()?;
    let report = tree.compare(mutant.scenarios)?;
    let rows = report["rows"].as_array().context("the report has no rows")?;
    let differs = |row: &&Value| row["verdict"].get("different").is_some();
    Ok(rows.iter().find(differs).and_then(|row| row["scenario"].as_str()).map(str::to_owned))
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("cannot write to standard output")
}
