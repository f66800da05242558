//! Measures interception: by eBPF, by iptables, and none, side by side on this machine.
#![expect(clippy::cast_precision_loss, reason = "counts and nanoseconds stay far below 2^52")]

mod bench;
mod machine;
mod measures;
mod options;
mod regime;
mod report;
mod sample;
mod stage;
mod statistics;
mod worker;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

use self::options::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Worker(args)) => worker::work(&args).map(|()| ExitCode::SUCCESS),
        None => cli.options.run(),
    };
    result.unwrap_or_else(|error| {
        // Nobody is left to tell if standard error itself is closed.
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}
