//! `cargo xtask demo`: the same connections under three regimes, in one table.

use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::{build, preflight, process, setup};

const NAME: &str = "cargo xtask demo";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The sidecar that the connections are redirected to.
    #[arg(long, value_enum, default_value_t = Proxy::Builtin)]
    proxy: Proxy,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Proxy {
    /// A small proxy inside the `interceptor` command.
    Builtin,
    /// Envoy with Istio's listeners.
    Envoy,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    preflight::check(NAME)?;
    setup::for_demo(options.proxy == Proxy::Envoy)?;
    let interceptor = build::interceptor()?;
    preflight::check_ebpf(NAME, &interceptor)?;
    let mut parity = Command::new(interceptor);
    // The other sets are for tests: more of the same to a newcomer, and minutes of it.
    parity.args(["parity", "--set", "injected"]);
    parity.args(["--baseline", "none", "--left", "iptables-nft", "--right", "ebpf"]);
    match options.proxy {
        Proxy::Builtin => parity.args(["--proxy", "builtin"]),
        Proxy::Envoy => parity.args(["--proxy", "envoy", "--envoy"]).arg(setup::envoy_path()),
    };
    process::become_command(&mut parity)
}
