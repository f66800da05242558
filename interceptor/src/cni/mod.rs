//! A CNI plugin, chained after the one that makes a pod's interface: the pod's first connection is intercepted already.
//!
//! It speaks versions 0.3.0 to 1.1.0 of the specification (containernetworking/cni, SPEC.md): ADD has the agent enrol the
//! pod and hands the previous result on; DEL releases it, with or without an agent.

mod annotations;
mod error;
mod perform;
mod request;

use std::{
    collections::BTreeMap,
    env,
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use serde_json::{Value, json};

pub use self::{
    error::{CniError, Code},
    request::{Action, Request},
};

/// The name under which the command is a CNI plugin.
pub const PLUGIN_NAME: &str = "interceptor-cni";

/// Versions of the specification that are spoken, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The longest network configuration that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Does what the environment and standard input ask, as a runtime calls a plugin.
#[must_use]
pub fn main() -> ExitCode {
    let environment = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("CNI_"))
        .collect();
    let outcome = read().and_then(|configuration| {
        let request = Request::parse(&environment, &configuration);
        request.and_then(|request| perform::perform(&request).map_err(|error| error.at(&request.version)))
    });
    let (answer, code) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err(error) => (error.to_json(), ExitCode::FAILURE),
    };
    match writeln!(io::stdout().lock(), "{answer}") {
        Ok(()) => code,
        // The runtime went away: it cannot know that it worked.
        Err(_) => ExitCode::FAILURE,
    }
}

/// What VERSION answers.
fn versions(version: &str) -> Value {
    json!({ "cniVersion": version, "supportedVersions": VERSIONS })
}

fn read() -> Result<Vec<u8>, CniError> {
    let mut configuration = Vec::new();
    let read = io::stdin().lock().take(LONGEST + 1).read_to_end(&mut configuration);
    read.map_err(|error| CniError::new(Code::Io, format!("cannot read standard input: {error}")))?;
    if configuration.len() as u64 > LONGEST {
        return Err(CniError::new(Code::Decode, "the network configuration is longer than 1 MiB"));
    }
    Ok(configuration)
}

type Environment = BTreeMap<String, String>;
