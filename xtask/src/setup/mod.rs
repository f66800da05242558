//! `cargo xtask setup`: installs what is missing, saying what it is and why it is needed.

mod envoy;
mod linker;
mod packages;
mod toolchain;

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use self::envoy::path as envoy_path;
use self::{envoy::Envoy, linker::Linker, packages::Packages, toolchain::Toolchain};

/// Something this repository uses and does not hold.
trait Tool {
    /// The name of what is missing; `None` if nothing is.
    fn missing(&self) -> Option<String>;

    /// What it is for, in a few words.
    fn purpose(&self) -> &'static str;

    /// Gets what is missing; `progress` shows how far it is.
    fn install(&self, progress: &ProgressBar) -> Result<()>;
}

/// The command itself: unlike its callers it also answers when there was nothing to do.
pub(crate) fn run() -> Result<()> {
    everything()?;
    say("everything that is needed is installed")
}

/// Installs what any command of this repository may need.
pub(crate) fn everything() -> Result<()> {
    ensure(&[&Toolchain, &Linker, &Packages::FOR_WORLDS, &Packages::FOR_CNI, &Packages::FOR_DNS, &Envoy])
}

/// Installs what the demo needs, Envoy only if it takes part.
pub(crate) fn for_demo(with_envoy: bool) -> Result<()> {
    ensure(&[&Toolchain, &Linker, &Packages::FOR_WORLDS])?;
    if with_envoy { ensure(&[&Envoy]) } else { Ok(()) }
}

fn ensure(tools: &[&dyn Tool]) -> Result<()> {
    for tool in tools {
        if let Some(name) = tool.missing() {
            say(&format!("installing {name}: {}", tool.purpose()))?;
            let start = Instant::now();
            let progress = spinner();
            let result = tool.install(&progress);
            progress.finish_and_clear();
            result.with_context(|| format!("cannot install {name}"))?;
            say(&format!("installed {name} in {} s", start.elapsed().as_secs()))?;
        }
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stderr(), "{line}").context("cannot write to standard error")
}

/// One moving line; indicatif draws it on a terminal only.
fn spinner() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {elapsed} {wide_msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(120));
    progress
}
