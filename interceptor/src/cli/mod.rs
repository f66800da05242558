//! The command line.

mod actor;
mod parity;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Transparent interception of a workload's traffic for a sidecar proxy.
#[derive(Parser, Debug)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Parity(parity::Args),
    #[command(hide = true)]
    Actor(actor::ActorArgs),
    #[command(hide = true)]
    Enter(actor::EnterArgs),
}

pub(crate) fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Parity(args) => parity::run(&args),
        Command::Actor(args) => actor::act(&args),
        Command::Enter(args) => actor::enter(&args),
    };
    outcome.unwrap_or_else(|error| {
        #[expect(clippy::print_stderr, reason = "this is where a command's error reaches its user")]
        {
            eprintln!("error: {error:#}");
        }
        ExitCode::FAILURE
    })
}
