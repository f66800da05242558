//! What is seen from outside: metrics as `OpenMetrics` text, and whether the agent is alive and ready.

mod snapshot;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;

use self::snapshot::Snapshot;
use super::keeper::Keeper;
use crate::datapath;

/// What every metric's name begins with.
const PREFIX: &str = "interceptor";

/// Where metrics come from.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The keeper.
    pub keeper: Keeper,
    /// The state folder.
    pub state: PathBuf,
}

/// Takes the address to be asked at.
pub(super) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot serve metrics on {address}: name another address with --metrics"))
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the agent ends.
pub(super) async fn serve(listener: TcpListener, observed: Observed) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(observed));
    axum::serve(listener, routes).await
}

async fn healthz(State(observed): State<Arc<Observed>>) -> (StatusCode, &'static str) {
    if observed.keeper.is_alive() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the keeper is stuck\n")
    }
}

async fn readyz(State(observed): State<Arc<Observed>>) -> (StatusCode, &'static str) {
    if *observed.keeper.ready().borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not every declared workload was tried yet\n")
    }
}

async fn metrics(State(observed): State<Arc<Observed>>) -> Response {
    let text = tokio::task::spawn_blocking(move || render(&observed)).await.map_err(anyhow::Error::from);
    match text.flatten() {
        Ok(text) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

fn render(observed: &Observed) -> anyhow::Result<String> {
    let snapshot = Snapshot {
        status: datapath::status(&observed.state)?,
        gauges: datapath::gauges(&observed.state)?,
        view: observed.keeper.view(),
    };
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
