//! The commands of this repository: `cargo xtask setup`, `test`, `churn`, `mutants`, `vm`, `demo` and `bench`.
//!
//! Nothing here may depend on the `interceptor` crate: its build needs the linker that `setup` installs.

mod bench;
mod build;
mod churn;
mod demo;
mod mutants;
mod preflight;
mod process;
mod setup;
mod test;
mod vm;
mod workspace;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Setup, test and demo of this repository")]
enum Command {
    /// Install what building, testing and the demo need, and nothing that is there already.
    Setup,
    /// Build, then run every test: units, and behaviour in real namespaces (as root).
    Test(test::Options),
    /// Run the node agent's long tests: churn, live changes, namespaces that come and go, many workloads (as root).
    Churn(churn::Options),
    /// Plant faults in the data path, one after the other, and see each caught by `interceptor parity` (as root).
    Mutants(mutants::Options),
    /// Run the behaviour tests on real kernels, in emulated machines.
    Vm(vm::Options),
    /// Measure what interception costs, beside iptables and beside none (as root).
    Bench(bench::Options),
    /// Show the same connections without interception, under iptables and under eBPF (as root).
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Setup => setup::run(),
        Command::Test(options) => test::run(options),
        Command::Churn(options) => churn::run(&options),
        Command::Mutants(options) => mutants::run(&options),
        Command::Vm(options) => vm::run(&options),
        Command::Bench(options) => bench::run(options),
        Command::Demo(options) => demo::run(&options),
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
