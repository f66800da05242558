//! bpf-linker, which turns LLVM bitcode into BPF objects.

use anyhow::Result;
use indicatif::ProgressBar;

use super::Tool;
use crate::{process, workspace};

/// The last release that loads the LLVM of rustc itself, so no LLVM need be installed;
/// 0.10.1 and older write type information that kernels reject for `aya_ebpf::Global` (aya issue 1490).
/// It goes with the toolchain of `rust-toolchain.toml`: move both together.
const VERSION: &str = "0.10.4";

/// bpf-linker, built from source.
pub(super) struct Linker;

impl Tool for Linker {
    fn missing(&self) -> Option<String> {
        let found = process::version_of(&workspace::tools().join("bin/bpf-linker"));
        let wanted = format!("bpf-linker {VERSION}");
        (found.as_deref().map(str::trim_end) != Some(wanted.as_str())).then_some(wanted)
    }

    fn purpose(&self) -> &'static str {
        "links the BPF programs (built from source, one to three minutes)"
    }

    fn install(&self, progress: &ProgressBar) -> Result<()> {
        let mut install = process::cargo();
        install.args(["install", "bpf-linker", "--locked", "--force", "--version", &format!("={VERSION}")]);
        install.arg("--root").arg(workspace::tools()).current_dir(workspace::root());
        process::run_quietly(install, progress)
    }
}
