//! Reads `tests/golden/*.txt`: flags and environment, and the restore text they must give.

use std::{collections::BTreeMap, fs, path::Path};

use clap::Parser;
use interceptor::capture::{Capture, CaptureArgs, CaptureError, Detected};

/// A hand-written pair of command line and rules.
pub(crate) struct Golden {
    /// The file's name without its extension.
    pub(crate) name: String,
    /// The command line.
    pub(crate) args: Vec<String>,
    /// The environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// The interfaces' addresses.
    pub(crate) addresses: Vec<String>,
    /// resolv.conf's text.
    pub(crate) resolv_conf: String,
    /// What iptables says when the rules are more than it takes.
    pub(crate) refused: Option<String>,
    /// What `iptables-restore` is to be given.
    pub(crate) v4: String,
    /// What `ip6tables-restore` is to be given.
    pub(crate) v6: String,
}

impl Golden {
    /// Every golden file there is.
    pub(crate) fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
        paths.sort();
        assert!(!paths.is_empty(), "tests/golden holds no case");
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// The capture its flags, environment and surroundings make.
    pub(crate) fn capture(&self) -> Result<Capture, CaptureError> {
        let detected = Detected {
            environment: self.environment.clone(),
            addresses: self.addresses.iter().map(|address| address.parse().unwrap()).collect(),
            resolv_conf: Ok(self.resolv_conf.clone()),
            user_id: |_| None,
            group_id: |_| None,
        };
        flags(&self.args).capture(&detected)
    }

    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut golden = Self {
            name,
            args: Vec::new(),
            environment: BTreeMap::new(),
            addresses: vec!["10.1.0.5".to_owned()],
            resolv_conf: String::new(),
            refused: None,
            v4: String::new(),
            v6: String::new(),
        };
        let text = fs::read_to_string(path).unwrap();
        let (head, rules) = text.split_once("\nv4:\n").expect("a golden file has a part `v4:`");
        let (v4, v6) = rules.split_once("\nv6:\n").unwrap_or((rules, ""));
        golden.v4 = with_newline(v4);
        golden.v6 = with_newline(v6);
        for line in head.lines() {
            let words = |text: &str| text.split_whitespace().map(|word| word.replace('"', "")).collect();
            if let Some(args) = line.strip_prefix("args:") {
                golden.args.extend::<Vec<_>>(words(args));
            } else if let Some(variable) = line.strip_prefix("env: ") {
                let (name, value) = variable.split_once('=').expect("env: NAME=VALUE");
                golden.environment.insert(name.to_owned(), value.to_owned());
            } else if let Some(addresses) = line.strip_prefix("addresses:") {
                golden.addresses = words(addresses);
            } else if let Some(message) = line.strip_prefix("refused: ") {
                golden.refused = Some(message.to_owned());
            } else if let Some(line) = line.strip_prefix("resolv.conf: ") {
                golden.resolv_conf += line;
                golden.resolv_conf += "\n";
            }
        }
        golden
    }
}

/// The capture that flags and environment make where nothing can be detected.
pub(crate) fn parse_flags(
    args: &[String],
    environment: BTreeMap<String, String>,
) -> Result<Capture, CaptureError> {
    flags(args).capture(&Detected {
        environment,
        addresses: Vec::new(),
        resolv_conf: Err("there is none".to_owned()),
        user_id: |_| None,
        group_id: |_| None,
    })
}

fn flags(args: &[String]) -> CaptureArgs {
    let command_line = ["istio-iptables"].into_iter().chain(args.iter().map(String::as_str));
    Cli::try_parse_from(command_line).unwrap_or_else(|error| panic!("{args:?}: {error}")).capture
}

/// The flags alone, as the command's other options are not the capture's.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    capture: CaptureArgs,
}

fn with_newline(text: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}
