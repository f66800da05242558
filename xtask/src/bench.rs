//! `cargo xtask bench`: what interception costs, beside iptables and beside none.

use std::{ffi::OsString, process::Command};

use anyhow::Result;

use crate::{build, preflight, process, setup, workspace};

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Handed to the measuring command, which explains itself with `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: Options) -> Result<()> {
    preflight::check("cargo xtask bench")?;
    setup::for_demo(false)?;
    let interceptor = build::release("interceptor")?;
    let mut bench = Command::new(build::release("interceptor-bench")?);
    bench
        .args(options.arguments)
        .env("INTERCEPTOR", interceptor)
        .env("INTERCEPTOR_WORKSPACE", workspace::root());
    process::become_command(&mut bench)
}
