//! The control socket: HTTP/1.1 with JSON over a Unix socket that only the agent's user may open.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/agent` | who runs: [`About`] |
//! | `GET /v1/workloads` | every workload the agent keeps: a list of [`Kept`] |
//! | `GET /v1/workloads/ID` | one of them |
//! | `PUT /v1/workloads/ID` with a [`WorkloadSpec`] | enrols or changes it; answers when it is in force: [`Kept`] |
//! | `DELETE /v1/workloads/ID` | releases it: 204 |
//! | `POST /v1/workloads/ID/explain` with a [`Question`] | what becomes of that connection there: [`Explanation`] |
//! | `GET /v1/status` | everything in force, with counters, also what `apply` enrolled: [`Status`](crate::datapath::Status) |
//!
//! An error is answered by `{"error": SENTENCE}` with status 400 (the request is wrong), 404 (no such workload), 409
//! (declared elsewhere), 413 (too long), 500 (could not be done) or 503 (the agent is ending).

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path as UrlPath, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

use super::{
    keeper::{Keeper, Kept, Refusal},
    spec::{MOST_BYTES, WorkloadId, WorkloadSpec},
};
use crate::{
    datapath,
    explain::{Explanation, Question},
    netns::Netns,
};

/// Who serves a control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The state folder it keeps.
    pub state: PathBuf,
}

struct Control {
    keeper: Keeper,
    about: About,
}

/// The body of every answer that is an error.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) error: String,
}

/// Takes the socket's path. The caller holds the agent's lock, so that a socket found there is nobody's any more.
pub(super) fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let bound = UnixListener::bind(path).and_then(|listener| {
        // Its folder is closed to others already.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    bound.with_context(|| format!("cannot listen on {}", path.display()))
}

/// Serves the socket until the agent ends.
pub(super) async fn serve(listener: UnixListener, keeper: Keeper, state: PathBuf) -> io::Result<()> {
    let about = About { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id(), state };
    axum::serve(listener, routes(keeper, about)).await
}

fn routes(keeper: Keeper, about: About) -> Router {
    Router::new()
        .route("/v1/agent", get(agent))
        .route("/v1/workloads", get(list))
        .route("/v1/workloads/{id}", get(show).put(enrol).delete(release))
        .route("/v1/workloads/{id}/explain", post(explain))
        .route("/v1/status", get(status))
        .fallback(async || fault(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(Arc::new(Control { keeper, about }))
}

async fn agent(State(control): State<Arc<Control>>) -> Json<About> {
    Json(control.about.clone())
}

async fn list(State(control): State<Arc<Control>>) -> Json<Vec<Kept>> {
    Json(control.keeper.view().workloads.into_values().collect())
}

async fn show(State(control): State<Arc<Control>>, UrlPath(id): UrlPath<String>) -> Response {
    let id = match parse(&id) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    match control.keeper.view().workloads.remove(&id) {
        Some(kept) => Json(kept).into_response(),
        None => refused(&Refusal::Unknown(id)),
    }
}

async fn enrol(State(control): State<Arc<Control>>, UrlPath(id): UrlPath<String>, body: Bytes) -> Response {
    let id = match parse(&id) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    match WorkloadSpec::from_json(&body) {
        Err(error) => fault(StatusCode::BAD_REQUEST, error),
        Ok(spec) => match control.keeper.enrol(id, spec).await {
            Ok(kept) => Json(kept).into_response(),
            Err(refusal) => refused(&refusal),
        },
    }
}

async fn release(State(control): State<Arc<Control>>, UrlPath(id): UrlPath<String>) -> Response {
    let id = match parse(&id) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    match control.keeper.release(id).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn explain(State(control): State<Arc<Control>>, UrlPath(id): UrlPath<String>, body: Bytes) -> Response {
    let id = match parse(&id) {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let question: Question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(error) => return fault(StatusCode::BAD_REQUEST, format!("the question: {error}")),
    };
    let Some(kept) = control.keeper.view().workloads.remove(&id) else {
        return refused(&Refusal::Unknown(id));
    };
    let answer = move || -> anyhow::Result<Explanation> {
        let (spec, netns) = kept.spec.zip(kept.netns).context("it is not under interception yet")?;
        Explanation::of(&spec.capture(&Netns::open(&netns)?)?, &question)
    };
    match tokio::task::spawn_blocking(answer).await {
        Ok(Ok(explanation)) => Json(explanation).into_response(),
        Ok(Err(error)) => fault(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
        Err(error) => fault(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn status(State(control): State<Arc<Control>>) -> Response {
    let folder = control.about.state.clone();
    match tokio::task::spawn_blocking(move || datapath::status(&folder)).await {
        Ok(Ok(status)) => Json(status).into_response(),
        Ok(Err(error)) => fault(StatusCode::INTERNAL_SERVER_ERROR, error),
        Err(error) => fault(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

fn parse(id: &str) -> Result<WorkloadId, Box<Response>> {
    id.parse().map_err(|error| Box::new(fault(StatusCode::BAD_REQUEST, error)))
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Unknown(_) => StatusCode::NOT_FOUND,
        Refusal::Elsewhere(..) => StatusCode::CONFLICT,
        Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::Ending => StatusCode::SERVICE_UNAVAILABLE,
    };
    fault(status, refusal)
}

fn fault(status: StatusCode, error: impl std::fmt::Display) -> Response {
    (status, Json(Fault { error: error.to_string() })).into_response()
}

/// Whether somebody serves a socket.
pub(super) async fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Some(stream)),
        // No file, or one whose agent is gone.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
