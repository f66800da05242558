//! What commands print: results to standard output, everything else to standard error.

use std::io::{self, Write as _};

use serde::Serialize;

/// Prints a line of a result.
pub(super) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Prints a result that brings its own line ends.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// Prints a result for programs.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    serde_json::to_writer_pretty(&mut output, value)?;
    Ok(writeln!(output)?)
}

/// Tells the operator something beside the result.
pub(super) fn warning(text: impl std::fmt::Display) {
    to_stderr(format_args!("warning: {text}"));
}

/// Tells why a command failed: the error and its causes, each said once.
pub(super) fn error(error: &anyhow::Error) {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !sentence.contains(&cause) {
            let separator = if sentence.is_empty() { "" } else { ": " };
            sentence = format!("{sentence}{separator}{cause}");
        }
    }
    to_stderr(format_args!("error: {sentence}"));
}

fn to_stderr(text: std::fmt::Arguments<'_>) {
    // With standard error closed there is nobody left to tell.
    let _unheard = writeln!(io::stderr().lock(), "{text}");
}
