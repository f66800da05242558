//! The other end of the control socket, for the command line and the CNI plugin.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{
    control::{self, About, Fault},
    keeper::Kept,
    spec::{WorkloadId, WorkloadSpec},
    store::Store,
};
use crate::explain::{Explanation, Question};

/// How long an answer may take. Enrolling takes milliseconds; an agent that starts with a thousand workloads has to
/// bring them up first.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 << 20;

/// An agent that serves a control socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why the agent did not do what it was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no such workload.
    #[error("{0}")]
    Unknown(String),
    /// The agent refused.
    #[error("{0}")]
    Refused(String),
    /// It could not be asked.
    #[error("cannot talk to the agent at {socket}: {why}")]
    Broken {
        /// The control socket.
        socket: PathBuf,
        /// What went wrong.
        why: String,
    },
}

impl Client {
    /// The agent of a run folder. None if none runs, or one that keeps another state folder.
    pub fn find(run: &Path, state: &Path) -> Result<Option<Self>, ClientError> {
        let client = Self { socket: Store::socket(run) };
        let Some(about) = client.about()? else { return Ok(None) };
        Ok((about.state == state).then_some(client))
    }

    /// Who serves the socket; none if nobody does.
    pub fn about(&self) -> Result<Option<About>, ClientError> {
        self.request(Method::GET, "/v1/agent", Vec::new())?.map(|answer| self.decode(&answer)).transpose()
    }

    /// Every workload the agent keeps.
    pub fn workloads(&self) -> Result<Vec<Kept>, ClientError> {
        self.decode(&self.expect(Method::GET, "/v1/workloads", Vec::new())?)
    }

    /// Enrols or changes a workload; returns when it is in force.
    pub fn enrol(&self, id: &WorkloadId, spec: &WorkloadSpec) -> Result<Kept, ClientError> {
        let body = spec.to_json().map_err(|error| self.broken(error))?;
        self.decode(&self.expect(Method::PUT, &format!("/v1/workloads/{id}"), body)?)
    }

    /// Releases a workload.
    pub fn release(&self, id: &WorkloadId) -> Result<(), ClientError> {
        self.expect(Method::DELETE, &format!("/v1/workloads/{id}"), Vec::new()).map(drop)
    }

    /// What becomes of a connection under a workload's capture.
    pub fn explain(&self, id: &WorkloadId, question: &Question) -> Result<Explanation, ClientError> {
        let body = serde_json::to_vec(question).map_err(|error| self.broken(error))?;
        self.decode(&self.expect(Method::POST, &format!("/v1/workloads/{id}/explain"), body)?)
    }

    fn expect(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ClientError> {
        self.request(method, path, body)?.ok_or_else(|| self.broken("it is not running"))
    }

    /// One request; none if nobody serves the socket.
    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Option<Bytes>, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| self.broken(error))?;
        runtime.block_on(async {
            let exchange = tokio::time::timeout(PATIENCE, self.exchange(method, path, body));
            exchange.await.unwrap_or_else(|_late| Err(self.broken("it does not answer")))
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Option<Bytes>, ClientError> {
        let Some(stream) = control::connect(&self.socket).await.map_err(|error| self.broken(error))? else {
            return Ok(None);
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| self.broken(error))?.to_bytes();
        connection.abort();
        if status.is_success() {
            return Ok(Some(body));
        }
        let fault: Fault = self.decode(&body)?;
        Err(match status {
            StatusCode::NOT_FOUND => ClientError::Unknown(fault.error),
            _ => ClientError::Refused(fault.error),
        })
    }

    fn decode<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer).map_err(|error| self.broken(format!("it answered nonsense: {error}")))
    }

    fn broken(&self, why: impl std::fmt::Display) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), why: why.to_string() }
    }
}
