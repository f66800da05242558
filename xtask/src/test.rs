//! `cargo xtask test`: everything that proves something.

use std::ffi::OsString;

use anyhow::Result;

use crate::{build, preflight, process, setup, vm, workspace};

const NAME: &str = "cargo xtask test";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Handed to the test programs: a part of a test's name, `--nocapture`, ...
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: Options) -> Result<()> {
    preflight::check(NAME)?;
    setup::everything()?;
    build::everything()?;
    preflight::check_ebpf(NAME, &build::interceptor()?)?;
    // Whoever asks for single tests wants an answer soon.
    if options.arguments.is_empty() {
        vm::smoke()?;
    }
    let mut tests = process::cargo();
    tests
        .args(["test", "--workspace", "--no-fail-fast", "--"])
        .args(options.arguments)
        .current_dir(workspace::root());
    process::become_command(&mut tests)
}
