//! Doing what a runtime asked.

use std::path::Path;

use serde_json::Value;

use super::{
    error::{CniError, Code},
    request::{Action, Request},
    versions,
};
use crate::{
    agent::{self, Client, ClientError, WorkloadId},
    netns::Netns,
};

/// What every workload of ours is called begins with this.
const PREFIX: &str = "cni-";

/// Does it; the answer, where the specification has one.
pub(super) fn perform(request: &Request) -> Result<Option<Value>, CniError> {
    match &request.action {
        Action::Version => Ok(Some(versions(&request.version))),
        Action::Pass(result) => Ok(Some(at(result, &request.version))),
        Action::Add(id, spec, result) => {
            // The agent answers when the pod is under interception, and not before.
            client(request, Code::TryAgain)?.enrol(id, spec).map_err(|error| failed(&error))?;
            Ok(Some(at(result, &request.version)))
        }
        Action::Delete(id, netns) => delete(request, id, netns.as_deref()).map(|()| None),
        Action::Check(id, netns) => check(request, id, netns).map(|()| None),
        Action::Nothing => Ok(None),
        Action::Status => client(request, Code::NotAvailable).map(|_client| None),
        Action::Collect(valid) => {
            let client = client(request, Code::TryAgain)?;
            for kept in client.workloads().map_err(|error| failed(&error))? {
                if kept.id.to_string().starts_with(PREFIX) && !valid.contains(&kept.id) {
                    release(&client, &kept.id)?;
                }
            }
            Ok(None)
        }
    }
}

/// Releases a pod; one that is not there is released.
fn delete(request: &Request, id: &WorkloadId, netns: Option<&Path>) -> Result<(), CniError> {
    match Client::find(&request.run, &request.state) {
        Ok(Some(client)) => release(&client, id),
        Ok(None) => agent::release_without_agent(&request.run, &request.state, id, netns)
            .map_err(|error| CniError::new(Code::Failed, format!("{error:#}"))),
        Err(error) => Err(failed(&error)),
    }
}

fn release(client: &Client, id: &WorkloadId) -> Result<(), CniError> {
    match client.release(id) {
        Ok(()) | Err(ClientError::Unknown(_)) => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}

fn check(request: &Request, id: &WorkloadId, netns: &Path) -> Result<(), CniError> {
    let wrong = |why: String| CniError::new(Code::NotInForce, why);
    let kept = client(request, Code::TryAgain)?.workloads().map_err(|error| failed(&error))?;
    let kept = kept.iter().find(|kept| kept.id == *id);
    let kept = kept.ok_or_else(|| wrong(format!("the agent keeps no workload {id}")))?;
    if let Some(fault) = &kept.fault {
        return Err(wrong(format!("{id} is not under interception: {fault}")));
    }
    let cookie =
        Netns::open(netns).and_then(|netns| netns.cookie()).map_err(|error| wrong(error.to_string()))?;
    if kept.cookie == Some(cookie) {
        Ok(())
    } else {
        Err(wrong(format!("{id} is another network namespace than {}", netns.display())))
    }
}

fn client(request: &Request, code: Code) -> Result<Client, CniError> {
    let found =
        Client::find(&request.run, &request.state).map_err(|error| CniError::new(code, error.to_string()))?;
    found.ok_or_else(|| {
        CniError::new(
            code,
            format!("no interceptor agent serves {}: pods wait until one does", request.run.display()),
        )
    })
}

fn failed(error: &ClientError) -> CniError {
    let code = match error {
        ClientError::Broken { .. } => Code::TryAgain,
        ClientError::Unknown(_) | ClientError::Refused(_) => Code::Failed,
    };
    CniError::new(code, error.to_string())
}

/// The previous result, as an answer of this version.
fn at(result: &Value, version: &str) -> Value {
    let mut result = result.clone();
    if let Some(fields) = result.as_object_mut() {
        fields.insert("cniVersion".to_owned(), version.into());
    }
    result
}
