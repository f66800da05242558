//! Our own programs, linked statically, so that they run on a machine without our libraries.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{process, workspace};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The command and the behaviour tests.
pub(super) struct Programs {
    command: PathBuf,
    tests: Vec<(String, PathBuf)>,
}

/// The test program that loads everything and holds that against the probe.
pub(super) const PROBE: &str = "probe";
/// The test program about nat rules.
pub(super) const NAT: &str = "nat";

impl Programs {
    /// Builds all of them; cargo's own progress goes to standard error.
    pub(super) fn build() -> Result<Self> {
        let mut programs = Self::of_tests(&["--package", "interceptor-tests", "--tests"])?;
        programs.tests.extend(executables(&["test", "--no-run", "--package", "interceptor", "--test", NAT])?);
        // A package's own units need no other kernel, and Envoy would be slow in emulation and say nothing of a kernel.
        programs.tests.retain(|(name, _)| name != "interceptor_tests" && name != "envoy");
        Ok(programs)
    }

    /// Builds what a look at a kernel takes.
    pub(super) fn build_probe() -> Result<Self> {
        Self::of_tests(&["--package", "interceptor-tests", "--test", PROBE])
    }

    fn of_tests(which: &[&str]) -> Result<Self> {
        let command = executables(&["build", "--package", "interceptor", "--bin", "interceptor"])?;
        let (_, command) =
            command.into_iter().next().context("cargo named no executable for `interceptor`")?;
        let tests = executables(&[&["test", "--no-run"], which].concat())?;
        Ok(Self { command, tests })
    }

    /// Names of the test programs.
    pub(super) fn tests(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().map(|(name, _)| name.as_str())
    }

    /// Copies all to a folder, laid out as cargo does, since the tests look for the command beside them.
    pub(super) fn put(&self, target: &Path) -> Result<()> {
        let copy = |from: &Path, to: PathBuf| {
            fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
        };
        copy(&self.command, target.join("interceptor"))?;
        copy(&self.command.with_extension("d"), target.join("interceptor.d"))?;
        self.tests.iter().try_for_each(|(name, path)| copy(path, target.join("deps").join(name)))
    }
}

/// Runs cargo and returns the executables it made, by the name of their target.
fn executables(arguments: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let is_test = arguments.first() == Some(&"test");
    let mut cargo = process::cargo();
    cargo.args(arguments).args(["--target", TARGET, "--message-format=json-render-diagnostics"]);
    // Given here and not in the environment, where the build of the BPF programs would inherit it.
    cargo.args(["--config", &format!(r#"target.{TARGET}.rustflags=["-C","target-feature=+crt-static"]"#)]);
    // The archive they go into lies in the machine's memory.
    cargo.args(["--config", "profile.dev.debug=0", "--config", r#"profile.dev.strip="symbols""#]);
    let output =
        cargo.current_dir(workspace::root()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the build failed ({}); cargo says why above", output.status);
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(messages
        .filter_map(|message| {
            // For a test of a package with a command cargo builds that too.
            let path =
                message.get("executable")?.as_str().filter(|_| message["profile"]["test"] == is_test)?;
            Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
        })
        .collect())
}
