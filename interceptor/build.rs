//! Builds the BPF object with `aya-build`, so that a plain `cargo build` embeds programs of the same source.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
};

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
    )?;
    tell_digest()
}

/// Hashes the object once here, so that no process of the product has to.
fn tell_digest() -> anyhow::Result<()> {
    let folder = env::var_os("OUT_DIR").context("cargo names the folder for what is built")?;
    let object = Path::new(&folder).join("interceptor-ebpf");
    let bytes = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let mut hasher = DefaultHasher::new();
    bytes.as_slice().hash(&mut hasher);
    println!("cargo::rustc-env=INTERCEPTOR_OBJECT_DIGEST={:016x}", hasher.finish());
    Ok(())
}
