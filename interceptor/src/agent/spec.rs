//! A workload as it is declared: where its namespace is, and what to intercept.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize, Serializer, ser};
use thiserror::Error;

use crate::{
    capture::{Capture, CaptureArgs, CaptureError, Detected},
    netns::{Netns, NetnsError},
};

/// The longest declaration that is read, in bytes.
pub(super) const MOST_BYTES: usize = 64 * 1024;

/// What a declared workload is called: the name of its file without extension.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadId(String);

/// A declared workload. Exactly one of `netns`, `pid` and `cgroup` says where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WorkloadSpec {
    /// Path of the network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// A process in the network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The container's cgroup; its first process is in the network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// What to intercept, by the long flags of `apply`.
    #[serde(default, serialize_with = "given")]
    pub capture: CaptureArgs,
    /// Whether every redirected connection is sent to 127.0.0.1 itself.
    #[serde(default)]
    pub no_spread: bool,
    /// What becomes of a connection that cannot be redirected.
    #[serde(default)]
    pub on_error: OnError,
}

/// What becomes of a connection that cannot be redirected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// It fails, with an error of its own.
    #[default]
    Closed,
    /// It passes without the proxy.
    Bypass,
}

/// Why a declaration cannot be used.
#[derive(Debug, Error)]
pub enum SpecError {
    /// The name is no identifier.
    #[error("`{0}` cannot name a workload: use 1 to 128 of a-z A-Z 0-9 . _ -, not beginning with a dot")]
    Id(String),
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could have written it.
    #[error(
        "{path} could be written by others than the agent's user: chown it to that user and chmod go-w it"
    )]
    Unsafe {
        /// The file or folder.
        path: PathBuf,
    },
    /// It is too long.
    #[error("{0} is longer than 64 KiB")]
    TooLong(String),
    /// It is not what a declaration looks like.
    #[error("{what}: {why}")]
    Syntax {
        /// The file, or where the text came from.
        what: String,
        /// What the parser said.
        why: String,
    },
    /// It does not say where the workload is, or says it twice.
    #[error("give exactly one of netns, pid and cgroup")]
    Place,
    /// The cgroup has no process.
    #[error("the cgroup {0} has no process, so its network namespace is not known yet")]
    EmptyCgroup(PathBuf),
    /// The namespace cannot be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The capture is wrong.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The namespace's addresses cannot be listed.
    #[error("cannot look at the addresses of the namespace: {0}")]
    Detect(io::Error),
}

impl WorkloadSpec {
    /// Reads a declaration from a file. Its extension says which language it is in.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        check_writers(path)?;
        let failed = |source| SpecError::Read { path: path.to_owned(), source };
        let what = path.display().to_string();
        if fs::metadata(path).map_err(failed)?.len() > MOST_BYTES as u64 {
            return Err(SpecError::TooLong(what));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let spec: Result<Self, String> = match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => toml::from_str(&text).map_err(|error| error.to_string().trim_end().to_owned()),
            Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string()),
            _ => serde_saphyr::from_str(&text).map_err(|error| error.to_string()),
        };
        let spec = spec.map_err(|why| SpecError::Syntax { what, why })?;
        spec.check()?;
        Ok(spec)
    }

    /// Reads a declaration from JSON.
    pub fn from_json(text: &[u8]) -> Result<Self, SpecError> {
        let wrong = |why: String| SpecError::Syntax { what: "the declaration".to_owned(), why };
        let spec: Self = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        spec.check()?;
        Ok(spec)
    }

    /// The declaration as JSON.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }

    /// Opens the workload's namespace.
    pub fn open(&self) -> Result<Netns, SpecError> {
        let path = match (&self.netns, self.pid, &self.cgroup) {
            (Some(path), None, None) => path.clone(),
            (None, Some(pid), None) => of_process(pid),
            (None, None, Some(cgroup)) => of_process(first_process(cgroup)?),
            _ => return Err(SpecError::Place),
        };
        Ok(Netns::open(&path)?)
    }

    /// The capture, as the namespace's addresses complete it. The agent's own environment is no part of it.
    pub fn capture(&self, netns: &Netns) -> Result<Capture, SpecError> {
        let detected = netns.run(Detected::here)?.map_err(SpecError::Detect)?;
        Ok(self.capture.capture(&Detected { environment: BTreeMap::new(), ..detected })?)
    }

    fn check(&self) -> Result<(), SpecError> {
        let places =
            [self.netns.is_some(), self.pid.is_some(), self.cgroup.is_some()].into_iter().filter(|is| *is);
        if places.count() == 1 { Ok(()) } else { Err(SpecError::Place) }
    }
}

/// Refuses a file or folder that others than root and ourselves could have written.
pub(super) fn check_writers(path: &Path) -> Result<(), SpecError> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path).map_err(|source| SpecError::Read { path: path.to_owned(), source })?;
    let ours = metadata.uid() == 0 || metadata.uid() == geteuid().as_raw();
    if ours && metadata.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(SpecError::Unsafe { path: path.to_owned() })
    }
}

fn of_process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

fn first_process(cgroup: &Path) -> Result<u32, SpecError> {
    let path = cgroup.join("cgroup.procs");
    let processes =
        fs::read_to_string(&path).map_err(|source| SpecError::Read { path: path.clone(), source })?;
    let first = processes.lines().find_map(|line| line.parse().ok().filter(|pid| *pid != 0));
    first.ok_or_else(|| SpecError::EmptyCgroup(cgroup.to_owned()))
}

/// Only the settings that were given: the reader has no word for one that was not.
fn given<S: Serializer>(capture: &CaptureArgs, serializer: S) -> Result<S::Ok, S::Error> {
    let mut value = serde_json::to_value(capture).map_err(ser::Error::custom)?;
    if let Some(settings) = value.as_object_mut() {
        settings.retain(|_, setting| !setting.is_null());
    }
    value.serialize(serializer)
}

impl FromStr for WorkloadId {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=128).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('.') {
            Ok(Self(text.to_owned()))
        } else {
            Err(SpecError::Id(text.chars().take(200).collect()))
        }
    }
}

impl TryFrom<String> for WorkloadId {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<WorkloadId> for String {
    fn from(id: WorkloadId) -> Self {
        id.0
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_declaration_says_where_the_workload_is_exactly_once() {
        for text in ["{}", r#"{"netns": "/run/netns/a", "pid": 7}"#] {
            let error = WorkloadSpec::from_json(text.as_bytes()).unwrap_err();
            assert!(matches!(error, SpecError::Place), "{error}");
        }
        let spec = WorkloadSpec::from_json(br#"{"pid": 7, "capture": {"istio-inbound-ports": [80, 443]}}"#);
        assert_eq!(spec.unwrap().capture.istio_inbound_ports.as_deref(), Some("80,443"));
    }

    #[test]
    fn what_is_misspelt_is_named() {
        let error = WorkloadSpec::from_json(br#"{"pid": 7, "captur": {}}"#).unwrap_err().to_string();
        assert!(error.contains("captur"), "{error}");
    }

    #[test]
    fn an_id_never_leaves_its_folder() {
        for text in ["", ".", "..", ".hidden", "a/b", "a\0b", "ä", &"x".repeat(129)] {
            assert!(text.parse::<WorkloadId>().is_err(), "{text:?}");
        }
        assert_eq!("default_pod-1.a".parse::<WorkloadId>().unwrap().to_string(), "default_pod-1.a");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _any = WorkloadSpec::from_json(&text);
        }

        #[test]
        fn a_declaration_reads_back_as_it_was_written(pid in 1_u32.., no_spread: bool, port in 1_u16..) {
            let mut capture = CaptureArgs::default();
            capture.envoy_port = Some(port.to_string());
            let spec = WorkloadSpec { pid: Some(pid), no_spread, capture, ..WorkloadSpec::default() };
            let text = spec.to_json().unwrap();
            prop_assert_eq!(WorkloadSpec::from_json(&text).unwrap(), spec);
        }
    }
}
