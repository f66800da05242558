//! Builds the BPF object with `aya-build`, so that a plain `cargo build` embeds programs of the same source.

use std::path::Path;

use anyhow::{Context as _, ensure};
use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in a workspace")?;
    let linker = root.join("target/tools/bin/bpf-linker");
    println!("cargo::rerun-if-changed={}", linker.display());
    ensure!(linker.exists(), "bpf-linker is missing at {}: run `cargo xtask setup`", linker.display());

    let programs = root.join("interceptor-ebpf");
    let programs = programs.to_str().context("the workspace path is valid UTF-8")?;
    build_ebpf(
        [Package { name: "interceptor-ebpf", root_dir: programs, ..Package::default() }],
        Toolchain::Custom("1.98.0"),
    )
}
