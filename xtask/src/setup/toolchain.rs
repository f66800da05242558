//! The parts of the pinned Rust toolchain that a bare installation may lack.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;

use super::Tool;
use crate::{process, workspace};

/// The components named in `rust-toolchain.toml`.
pub(super) struct Toolchain;

impl Tool for Toolchain {
    fn missing(&self) -> Option<String> {
        let sysroot = sysroot().ok();
        let has = |path: &str| sysroot.as_ref().is_some_and(|sysroot| sysroot.join(path).exists());
        let components = [
            ("rust-src", "lib/rustlib/src/rust/library/core"),
            ("rustfmt", "bin/rustfmt"),
            ("clippy", "bin/cargo-clippy"),
        ];
        let missing: Vec<&str> =
            components.iter().filter(|(_, path)| !has(path)).map(|(name, _)| *name).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    fn purpose(&self) -> &'static str {
        "`core` is built from source for the BPF target; format and lints are part of the tests"
    }

    fn install(&self, progress: &ProgressBar) -> Result<()> {
        let mut rustup = Command::new(process::find("rustup").context(
            "rustup is not in PATH, and only rustup can add to the toolchain of rust-toolchain.toml",
        )?);
        rustup.args(["component", "add", "rust-src", "rustfmt", "clippy"]).current_dir(workspace::root());
        process::run_quietly(rustup, progress)
    }
}

/// The folder of the toolchain that runs us.
fn sysroot() -> Result<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(workspace::root())
        .output()
        .context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout).context("the path of the toolchain is not UTF-8")?;
    Ok(Path::new(text.trim()).to_owned())
}
