//! What is seen from outside: metrics as `OpenMetrics` text, and whether the agent is alive and ready.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::get,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::net::TcpListener;

use super::keeper::Keeper;
use crate::datapath::{self, Gauges, Status};

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

/// Everything at one moment.
#[derive(Debug)]
struct Snapshot {
    status: Status,
    gauges: Gauges,
    view: super::keeper::View,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = Families(&mut encoder);
        let build = [([("version", env!("CARGO_PKG_VERSION").to_owned())], 1)];
        family.gauges("build", "This agent's version", &build)?;

        let decisions = self.status.workloads.iter().flat_map(|workload| {
            workload.connections.iter().map(move |of_reason| {
                let labels = [
                    ("workload", workload.cookie.to_string()),
                    ("netns", workload.netns.clone()),
                    ("reason", of_reason.reason.to_owned()),
                ];
                (labels, of_reason.count)
            })
        });
        let decisions = decisions.collect::<Vec<_>>();
        family.counters(
            "decisions",
            "Connections by workload and by what decided; `error-` are failures",
            &decisions,
        )?;

        let steered = self.status.workloads.iter().filter(|workload| workload.steered).count();
        let failing = self.view.workloads.values().filter(|kept| kept.fault.is_some()).count();
        let kept = self.view.workloads.len();
        let workloads = [
            ("in_force", self.status.workloads.len()),
            ("steered", steered),
            ("kept", kept),
            ("failing", failing),
        ];
        let workloads = workloads.map(|(state, count)| ([("state", state.to_owned())], number(count)));
        family.gauges(
            "workloads",
            "Workloads in force, and of these steered; workloads the agent keeps, and of these failing",
            &workloads,
        )?;

        let hooks: Vec<_> = self
            .status
            .hooks
            .iter()
            .map(|hook| ([("hook", hook.name.to_owned())], i64::from(hook.attached)))
            .collect();
        family.gauges("hook_attached", "Whether a hook is attached", &hooks)?;

        let entries: Vec<_> = self
            .gauges
            .maps
            .iter()
            .map(|map| ([("map", map.name.to_owned())], number(map.entries)))
            .collect();
        family.gauges("map_entries", "Entries in a map", &entries)?;
        let room: Vec<_> = self
            .gauges
            .maps
            .iter()
            .map(|map| ([("map", map.name.to_owned())], i64::from(map.capacity)))
            .collect();
        family.gauges("map_capacity_entries", "Entries a map can hold", &room)?;

        let listeners: Vec<_> = self
            .gauges
            .listeners
            .iter()
            .map(|listener| {
                (
                    [("workload", listener.workload.to_string()), ("listener", listener.name.to_owned())],
                    number(listener.sockets),
                )
            })
            .collect();
        family.gauges(
            "listener_sockets",
            "Listening sockets of a workload's proxy that are known",
            &listeners,
        )?;

        let none: [(&str, String); 0] = [];
        family.counters(
            "enrolments",
            "Workloads enrolled or changed",
            &[(none.clone(), self.view.enrolments)],
        )?;
        family.counters(
            "enrolment_failures",
            "Attempts to enrol that failed",
            &[(none.clone(), self.view.failures)],
        )?;
        family.counters(
            "refreshes",
            "Looks at a workload whose network had changed",
            &[(none.clone(), self.view.refreshes)],
        )?;
        family.counters(
            "program_upgrades",
            "Programs replaced in place",
            &[(none.clone(), self.view.upgrades)],
        )?;
        family.counters(
            "collected_workloads",
            "Workloads removed because their namespace was gone",
            &[(none, self.view.collected)],
        )
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Writes metrics whose values were gathered already.
struct Families<'e, 'w>(&'e mut DescriptorEncoder<'w>);

impl Families<'_, '_> {
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: &[([(&'static str, String); N], u64)],
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: &[([(&'static str, String); N], i64)],
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}
