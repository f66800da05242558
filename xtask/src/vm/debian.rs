//! Debian packages, fetched into `target/vm` and unpacked there. Nothing is installed on this system.
//!
//! apt runs with folders of its own, so it verifies signatures as always and this system's package lists stay as they
//! are. The mirrors are those this system uses.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::ProgressBar;

use super::folder;
use crate::process;

/// Releases with a kernel of the matrix, or a tool; the name of each's security archive follows from it.
const RELEASES: [&str; 4] = ["bullseye", "bookworm", "trixie", "trixie-backports"];
/// The release the tools are from: qemu and what runs inside the machines.
const TOOLS_RELEASE: &str = "trixie";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt that installs nothing.
pub(super) struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Makes apt's folders, and reads what packages there are: on the first use, and when `refresh` says so.
    pub(super) fn open(refresh: bool, progress: &ProgressBar) -> Result<Self> {
        let root = folder().join("apt");
        let apt = Self { config: root.join("apt.conf") };
        // It names folders by their full paths: one that was moved along with its tree counts as none.
        let config = configuration(&root);
        let is_new = fs::read_to_string(&apt.config).ok().as_ref() != Some(&config);
        if is_new {
            prepare(&root)?;
            fs::write(&apt.config, config).context("cannot write apt's configuration")?;
        }
        if (is_new || refresh)
            && let Err(error) = apt.update(progress)
        {
            // Half a set of lists must not pass for a whole one next time.
            fs::remove_file(&apt.config).context("cannot remove a half-made apt configuration")?;
            return Err(error);
        }
        Ok(apt)
    }

    fn update(&self, progress: &ProgressBar) -> Result<()> {
        let mut update = self.command("apt-get");
        update.args(["--quiet", "update"]);
        process::run_quietly(update, progress)?;
        // apt takes it for a success if it reaches nobody.
        ensure!(
            !self.names("linux-")?.is_empty(),
            "apt could fetch no list of packages, is there a network here?"
        );
        Ok(())
    }

    /// Names of all packages that begin with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let output =
            self.command("apt-cache").args(["pkgnames", prefix]).output().context("cannot run apt-cache")?;
        ensure!(
            output.status.success(),
            "apt-cache failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Unpacks these packages alone into a folder.
    pub(super) fn unpack(&self, packages: &[String], target: &Path, progress: &ProgressBar) -> Result<()> {
        let download = tempfile::tempdir_in(folder()).context("cannot make a folder for packages")?;
        let mut get = self.command("apt-get");
        get.args(["--quiet", "download"]).args(packages).current_dir(download.path());
        process::run_quietly(get, progress)?;
        unpack_all(download.path(), target, progress)
    }

    /// Unpacks packages with everything they depend on, so that they work beside any system.
    pub(super) fn unpack_with_dependencies(
        &self,
        packages: &[&str],
        target: &Path,
        progress: &ProgressBar,
    ) -> Result<()> {
        let download = tempfile::tempdir_in(folder()).context("cannot make a folder for packages")?;
        fs::create_dir(download.path().join("partial")).context("cannot make a folder for packages")?;
        // For a system on which nothing is installed yet.
        let status = folder().join("apt/no-packages");
        fs::write(&status, "").with_context(|| format!("cannot write {}", status.display()))?;
        let mut get = self.command("apt-get");
        get.arg("--quiet").arg(format!("--option=Dir::State::status={}", status.display()));
        get.arg(format!("--option=Dir::Cache::archives={}", download.path().display()));
        get.args(["--target-release", TOOLS_RELEASE, "--no-install-recommends", "--download-only", "--yes"]);
        get.arg("install").args(packages);
        process::run_quietly(get, progress)?;
        unpack_all(download.path(), target, progress)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).stdin(Stdio::null());
        command
    }
}

fn prepare(root: &Path) -> Result<()> {
    let mirrors = Mirrors::of_this_system()?;
    for part in
        ["etc/parts", "etc/sources.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"]
    {
        fs::create_dir_all(root.join(part)).context("cannot make apt's folders")?;
    }
    let mut sources = Vec::new();
    for release in RELEASES {
        sources.push(format!("deb [signed-by={KEYRING}] {} {release} main\n", mirrors.main));
        if !release.ends_with("-backports") {
            sources.push(format!("deb [signed-by={KEYRING}] {} {release}-security main\n", mirrors.security));
        }
    }
    fs::write(root.join("etc/sources.list"), sources.concat()).context("cannot write apt's sources")
}

fn configuration(root: &Path) -> String {
    let root = root.display();
    format!(
        "Dir::Etc \"{root}/etc\";\nDir::Etc::sourcelist \"sources.list\";\nDir::Etc::sourceparts \"sources.d\";\n\
         Dir::Etc::parts \"parts\";\nDir::State \"{root}/state\";\nDir::State::status \"/var/lib/dpkg/status\";\n\
         Dir::Cache \"{root}/cache\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
         Acquire::http::Timeout \"20\";\nAcquire::https::Timeout \"20\";\nAcquire::Retries \"1\";\n"
    )
}

/// Where Debian's packages come from.
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    fn of_this_system() -> Result<Self> {
        for (tool, package) in [("apt-get", "apt"), ("dpkg-deb", "dpkg")] {
            ensure!(
                process::find(tool).is_some(),
                "there is no {tool} here (package {package}), to fetch kernels with"
            );
        }
        ensure!(
            Path::new(KEYRING).exists(),
            "there is no {KEYRING}, to verify kernels with: install the package debian-archive-keyring"
        );
        let output = Command::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
            .output()
            .context("cannot run apt-get")?;
        let listed = String::from_utf8_lossy(&output.stdout);
        Self::among(&listed)
            .context("this system's apt sources name no mirror of Debian, to fetch kernels from")
    }

    /// Picks the mirrors from lines of address and release.
    fn among(listed: &str) -> Option<Self> {
        let known = ["stable", "bullseye", "bookworm", "trixie", "forky", "sid"];
        let of = |suffix: &str| {
            listed.lines().filter_map(|line| line.split_once(' ')).find_map(|(address, release)| {
                let release = release.strip_suffix(suffix)?;
                known.contains(&release).then(|| address.to_owned())
            })
        };
        Some(Self { main: of("")?, security: of("-security")? })
    }
}

/// Unpacks every package of a folder. The target appears only when it is whole.
fn unpack_all(packages: &Path, target: &Path, progress: &ProgressBar) -> Result<()> {
    let parent = target.parent().context("the target lies in a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let whole = tempfile::tempdir_in(parent).context("cannot make a folder to unpack into")?;
    let mut found = false;
    for package in fs::read_dir(packages).context("cannot list the packages")? {
        let package = package.context("cannot list the packages")?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            found = true;
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(&package).arg(whole.path());
            process::run_quietly(unpack, progress)?;
        }
    }
    if !found {
        bail!("apt downloaded nothing for {}", target.display());
    }
    fs::rename(whole.keep(), target).with_context(|| format!("cannot put packages at {}", target.display()))
}

/// Whether apt could fetch anything here; `None` if it could, else why not.
pub(super) fn obstacle() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some(format!("the kernels are for x86_64, this is {}", env::consts::ARCH));
    }
    Mirrors::of_this_system().err().map(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_mirrors_are_told_from_others() {
        let listed = "http://tools.example/apt/ nodistro\nhttp://mirror.example/debian/ bookworm\n\
                      http://mirror.example/debian/ bookworm-updates\nhttp://mirror.example/security/ bookworm-security\n";
        let mirrors = Mirrors::among(listed).expect("both are listed");
        assert_eq!(mirrors.main, "http://mirror.example/debian/");
        assert_eq!(mirrors.security, "http://mirror.example/security/");
        assert!(Mirrors::among("http://mirror.example/ubuntu/ noble\n").is_none());
    }
}
