//! Kernels of the matrix, as Debian packages them for clouds.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use indicatif::ProgressBar;

use super::{debian::Apt, folder};

/// Which kernel: a series like 6.12, or the newest that is packaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    Version(String),
    Newest,
}

impl Series {
    /// The oldest kernel of the matrix that runs the data path.
    pub(super) fn smoke() -> Self {
        Self::Version("6.1".to_owned())
    }

    /// The kernels every change of the data path must hold on.
    pub(super) fn matrix() -> Vec<Self> {
        let version = |version: &str| Self::Version(version.to_owned());
        vec![version("5.10"), version("6.1"), version("6.12"), version("6.18"), Self::Newest]
    }
}

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "newest" {
            return Ok(Self::Newest);
        }
        let numbers = text.split('.').filter(|part| part.parse::<u32>().is_ok()).count();
        ensure!(
            numbers >= 2 && numbers == text.split('.').count(),
            "{text:?} is neither `newest` nor a version like 6.12"
        );
        Ok(Self::Version(text.to_owned()))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => f.write_str(version),
            Self::Newest => f.write_str("newest"),
        }
    }
}

/// A kernel, unpacked.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The image that boots.
    pub(super) image: PathBuf,
    /// The folder of its modules.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// The newest kernel of a series. One that was fetched before serves until `refresh` asks for newer ones.
    pub(super) fn fetch(series: &Series, refresh: bool, progress: &ProgressBar) -> Result<Self> {
        let target = folder().join("kernels").join(series.to_string());
        let fetched = Self::in_folder(&target);
        if !refresh && let Ok(kernel) = fetched {
            return Ok(kernel);
        }
        let apt = Apt::open(refresh, progress)?;
        let packages = packages(&apt.names("linux-")?, series)
            .with_context(|| format!("Debian has no kernel package of series {series} (any more)"))?;
        if target.exists() {
            fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))?;
        }
        apt.unpack(&packages, &target, progress)?;
        Self::in_folder(&target)
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        // Where things lie changed over the years.
        let modules =
            ["lib/modules", "usr/lib/modules"].iter().find_map(|path| only_child(&folder.join(path)));
        let modules = modules.with_context(|| format!("no modules in {}", folder.display()))?;
        let image = [folder.join("boot"), modules.clone()].iter().find_map(|folder| image(folder));
        let image = image.with_context(|| format!("no kernel image in {}", folder.display()))?;
        Ok(Self { image, modules })
    }
}

fn only_child(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path()).find(|path| path.is_dir())
}

fn image(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    entries
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
}

/// The packages that make up the newest kernel of a series. Since 7.2 image and modules are packages of their own.
fn packages(names: &[String], series: &Series) -> Result<Vec<String>> {
    let version = |name: &str, part: &str| {
        let version = name.strip_prefix("linux-")?.strip_prefix(part)?.strip_prefix('-')?;
        let version = version.strip_suffix("-cloud-amd64")?;
        version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
    };
    let is_wanted = |version: &str| match series {
        // A name without a point release is a package without content.
        Series::Newest => numbers(version).len() > 2,
        Series::Version(series) => version
            .strip_prefix(series.as_str())
            .is_some_and(|rest| rest.starts_with(['.', '-', '+']) && numbers(version).len() > 2),
    };
    let of = |part: &str| {
        let versions =
            names.iter().filter_map(|name| version(name, part)).filter(|version| is_wanted(version));
        versions.map(|version| (version, part.to_owned())).collect::<Vec<_>>()
    };
    let mut kernels: Vec<(String, String)> =
        ["image", "binary", "binary-unsigned"].iter().flat_map(|p| of(p)).collect();
    // With modules apart, the package named image holds none.
    kernels.retain(|(version, part)| part != "image" || !names.contains(&name("modules", version)));
    kernels.sort_by_key(|(version, _)| numbers(version));
    let (version, part) = kernels.pop().ok_or_else(|| anyhow!("no package fits"))?;
    let mut packages = vec![name(&part, &version)];
    if part != "image" {
        packages.push(name("modules", &version));
    }
    Ok(packages)
}

fn name(part: &str, version: &str) -> String {
    format!("linux-{part}-{version}-cloud-amd64")
}

/// Every number in a version, in order.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|digit: char| !digit.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(series: &str) -> Vec<String> {
        let names = [
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-0.deb11.52-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12.94+deb13-cloud-amd64",
            "linux-image-7.2.12+deb13-cloud-amd64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-modules-7.2.12+deb13-cloud-amd64",
            "linux-headers-7.4.1+deb13-cloud-amd64",
            "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        packages(&names, &series.parse().expect("a series")).unwrap_or_default()
    }

    #[test]
    fn the_newest_of_a_series_is_chosen_whichever_way_it_is_packaged() {
        assert_eq!(chosen("6.1"), ["linux-image-6.1.0-56-cloud-amd64"]);
        assert_eq!(chosen("6.12"), ["linux-image-6.12.117+deb13-cloud-amd64"]);
        assert_eq!(
            chosen("7.2"),
            ["linux-binary-7.2.12+deb13-cloud-amd64", "linux-modules-7.2.12+deb13-cloud-amd64"]
        );
        assert_eq!(
            chosen("newest"),
            ["linux-binary-unsigned-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64"]
        );
        assert!(chosen("6.6").is_empty());
    }

    #[test]
    fn a_series_is_a_version() {
        assert!("6".parse::<Series>().is_err());
        assert!("6.x".parse::<Series>().is_err());
        assert_eq!("newest".parse::<Series>().expect("the word"), Series::Newest);
    }
}
