//! Where things lie in this repository.

use std::path::{Path, PathBuf};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where `setup` puts tools: the path `.cargo/config.toml` and the tests know, whatever `CARGO_TARGET_DIR` says.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}
