//! The hidden commands by which `parity` and the tests put processes into their worlds.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use interceptor::parity::{actor::serve_requests, world::Identity};

/// Does what it is told on standard input.
#[derive(clap::Args, Debug)]
pub(super) struct ActorArgs {
    #[command(flatten)]
    identity: Identity,
}

/// Becomes another program, elsewhere and as somebody else.
#[derive(clap::Args, Debug)]
pub(super) struct EnterArgs {
    #[command(flatten)]
    identity: Identity,
    /// Path of the program.
    program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(super) fn act(args: &ActorArgs) -> anyhow::Result<ExitCode> {
    args.identity.assume()?;
    serve_requests()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn enter(args: &EnterArgs) -> anyhow::Result<ExitCode> {
    let error = args.identity.exec(&args.program, &args.arguments)?;
    Err(anyhow::Error::new(error).context(format!("cannot run {}", args.program.display())))
}
