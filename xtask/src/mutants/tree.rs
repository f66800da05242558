//! A copy of the sources in which faults can be planted.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use serde_json::Value;

use super::list::Mutant;
use crate::{process, workspace};

/// The copy, which keeps what it has built for the next time.
pub(super) struct Tree {
    root: PathBuf,
}

/// A fault in its place. Dropping it takes it out again.
pub(super) struct Planted {
    path: PathBuf,
    sound: String,
}

impl Tree {
    /// Copies every file that git knows or would add, where it is not the same already.
    pub(super) fn copy() -> Result<Self> {
        let tree = Self { root: workspace::root().join("target/mutants") };
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(workspace::root())
            .stdin(Stdio::null())
            .output()
            .context("cannot run git")?;
        ensure!(listed.status.success(), "git failed: {}", String::from_utf8_lossy(&listed.stderr).trim());
        let listed = String::from_utf8(listed.stdout).context("a file's name is no text")?;
        for name in listed.split_terminator('\0') {
            tree.copy_file(name)?;
        }
        tree.remove_others(&listed)?;
        let tools = tree.root.join("target/tools");
        if !tools.exists() {
            fs::create_dir_all(tree.root.join("target")).context("cannot make the copy's target")?;
            symlink(workspace::tools(), tools).context("cannot link the tools")?;
        }
        Ok(tree)
    }

    fn copy_file(&self, name: &str) -> Result<()> {
        // One that was removed but not yet from git's index.
        let Ok(content) = fs::read(workspace::root().join(name)) else { return Ok(()) };
        let target = self.root.join(name);
        // cargo goes by the time of the last change.
        if fs::read(&target).is_ok_and(|old| old == content) {
            return Ok(());
        }
        let folder = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(&target, content).with_context(|| format!("cannot write {}", target.display()))
    }

    /// Removes what was copied earlier and is no source any more: of a module that was moved, cargo would find both
    /// files.
    fn remove_others(&self, listed: &str) -> Result<()> {
        let sources: HashSet<_> = listed
            .split_terminator('\0')
            .filter(|name| workspace::root().join(name).exists())
            .map(|name| self.root.join(name))
            .collect();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let entries =
                fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
            for entry in entries {
                let entry = entry.context("cannot read the copy")?;
                let path = entry.path();
                // What a link leads to is not ours.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.extend((path != self.root.join("target")).then_some(path));
                } else if !sources.contains(&path) {
                    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Puts a fault into the copy.
    pub(super) fn plant(&self, mutant: &Mutant) -> Result<Planted> {
        let path = self.root.join("interceptor-ebpf/src").join(mutant.file);
        let sound = read(&path)?;
        fs::write(&path, mutant.planted(&sound)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Planted { path, sound })
    }

    /// Builds the command with the programs as they now are.
    pub(super) fn build(&self) -> Result<()> {
        let mut build = process::cargo();
        build.args(["build", "--quiet", "--package", "interceptor"]).current_dir(&self.root);
        process::run_quietly(build, &ProgressBar::hidden())
    }

    /// Compares the scenarios that fit a filter. That they differ is no failure here.
    pub(super) fn compare(&self, scenarios: &[&str]) -> Result<Value> {
        let output = Command::new(self.root.join("target/debug/interceptor"))
            .args(["parity", "--json"])
            .args(scenarios)
            .stdin(Stdio::null())
            .output()
            .context("cannot run the command")?;
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).with_context(|| format!("there is no report: {}", said.trim()))
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        // What stays in the copy is found there by the next copying, which compares contents.
        let _unreported = fs::write(&self.path, &self.sound);
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
