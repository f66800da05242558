//! `cargo xtask churn`: the long runs of what `cargo xtask test` runs shortly about the node agent.

use anyhow::Result;

use crate::{build, preflight, process, setup, workspace};

/// Test programs that are longer by their environment.
const PROGRAMS: [&str; 4] = ["churn", "live_change", "short_lived", "scale"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long connections go on while agents are killed, restarted and replaced.
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    minutes: u32,
    /// Workloads whose connections these are.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=200))]
    pods: u8,
    /// Connections during which one capture changes again and again.
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000)]
    connections: u32,
    /// Network namespaces that are made, enrolled and deleted.
    #[arg(long, value_name = "NUMBER", default_value_t = 5000)]
    namespaces: u32,
    /// Workloads to have at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    workloads: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    preflight::check("cargo xtask churn")?;
    setup::everything()?;
    build::everything()?;
    let mut tests = process::cargo();
    tests.args(["test", "--package", "interceptor-tests", "--no-fail-fast"]);
    tests.args(PROGRAMS.iter().flat_map(|program| ["--test", program]));
    tests
        .args(["--", "--nocapture"])
        .env("INTERCEPTOR_CHURN_MINUTES", options.minutes.to_string())
        .env("INTERCEPTOR_CHURN_PODS", options.pods.to_string())
        .env("INTERCEPTOR_CHURN_CONNECTIONS", options.connections.to_string())
        .env("INTERCEPTOR_CHURN_NAMESPACES", options.namespaces.to_string())
        .env("INTERCEPTOR_SCALE_WORKLOADS", options.workloads.to_string())
        .current_dir(workspace::root());
    process::become_command(&mut tests)
}
