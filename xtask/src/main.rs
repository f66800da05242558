//! The commands of this repository: `cargo xtask setup`, `test`, `demo` and `bench`.
//!
//! Nothing here may depend on the `interceptor` crate: its build needs the linker that `setup` installs.

mod bench;
mod build;
mod demo;
mod preflight;
mod process;
mod setup;
mod test;
mod workspace;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Setup, test, demo and measures of this repository"
)]
enum Command {
    /// Install what building, testing and the demo need, and nothing that is there already.
    Setup,
    /// Build, then run every test: units, and behaviour in real namespaces (as root).
    Test(test::Options),
    /// Show the same connections without interception, under iptables and under eBPF (as root).
    Demo(demo::Options),
    /// Measure what interception costs, beside iptables and beside none (as root).
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Setup => setup::run(),
        Command::Test(options) => test::run(options),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if standard error itself is closed.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
