//! Building: the `interceptor` command alone, or all there is.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{process, workspace};

/// Builds the command and returns its path; cargo's own progress goes to standard error.
pub(crate) fn interceptor() -> Result<PathBuf> {
    build("interceptor", &[])
}

/// Builds a package's command with all optimisation and returns its path.
pub(crate) fn release(package: &str) -> Result<PathBuf> {
    build(package, &["--release"])
}

fn build(package: &str, options: &[&str]) -> Result<PathBuf> {
    let output = process::cargo()
        .args(["build", "--package", package, "--bin", package])
        .args(options)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo build")?;
    ensure!(output.status.success(), "the build failed ({}); cargo says why above", output.status);
    executable(&output.stdout).with_context(|| format!("cargo named no executable for `{package}`"))
}

/// Builds everything, tests included, so that a test finds the command beside it.
///
/// `cargo test` alone does not build another package's command. Building all targets at once also settles the features
/// of dependencies as `cargo test` does; otherwise most of them would be compiled twice.
pub(crate) fn everything() -> Result<()> {
    let status = process::cargo()
        .args(["build", "--workspace", "--all-targets"])
        .current_dir(workspace::root())
        .status()
        .context("cannot run cargo build")?;
    ensure!(status.success(), "the build failed ({status}); cargo says why above");
    Ok(())
}

/// The path of the executable in cargo's JSON messages, one a line.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let messages = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    messages.filter_map(|message: Value| message.get("executable")?.as_str().map(PathBuf::from)).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"nix"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"interceptor"},"executable":"/t/debug/interceptor"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/debug/interceptor")));
        assert_eq!(executable(b"{\"reason\":\"build-finished\",\"success\":true}\n"), None);
    }
}
