//! Runs the host's tools.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

/// Why rules could not be loaded, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The tool is not there.
    #[error("cannot run {program}: {source}; install it, or choose another --backend")]
    Start {
        /// The tool.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The tool failed.
    #[error("{command} failed: {message}")]
    Failed {
        /// The command line.
        command: String,
        /// What it wrote to its standard error.
        message: String,
    },
    /// No usable iptables.
    #[error(
        "no usable {0} here: neither the legacy nor the nft variant can add a rule to the nat table; \
         are the kernel's modules for it loaded?"
    )]
    NoBinary(&'static str),
    /// The tool printed something unknown.
    #[error("cannot understand what {program} printed: {why}")]
    Unreadable {
        /// The tool.
        program: String,
        /// What is wrong.
        why: String,
    },
    /// Other rules of Istio are loaded.
    #[error("other rules of Istio are loaded here; add --reconcile to replace them, or release them first")]
    OtherRules,
}

impl LoadError {
    /// Whether rights are missing, rather than the tool or what it needs of the kernel.
    pub(super) fn is_denied(&self) -> bool {
        let refusals = ["Permission denied", "Operation not permitted"];
        matches!(self, Self::Failed { message, .. } if refusals.iter().any(|text| message.contains(text)))
    }
}

/// Runs a program with `input` on its standard input, and gives what it printed.
pub(super) fn run(program: &str, args: &[&str], input: &str) -> Result<String, LoadError> {
    let start = |source| LoadError::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let mut stdin = child.stdin.take();
    // The program reads all of its input before it prints, so that writing first cannot block for ever; one that has
    // seen an error stops reading, and what it says about that is worth more than the broken pipe.
    let written = stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(input.as_bytes()));
    drop(stdin);
    let output = child.wait_with_output().map_err(start)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let message = message.trim().lines().next().unwrap_or("it gave no reason").to_owned();
        return Err(LoadError::Failed { command: format!("{program} {}", args.join(" ")), message });
    }
    written.map_err(start)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
