//! The metrics: names, units and values of one moment.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::Unit,
};

use crate::{
    agent::keeper::View,
    datapath::{Gauges, Status},
};

/// What the name of every reason begins with that is a failure.
const FAILURE: &str = "error-";

/// Everything at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) status: Status,
    pub(super) gauges: Gauges,
    pub(super) view: View,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        Info::new(version).encode(encoder.encode_descriptor(
            "build",
            "This agent",
            None,
            MetricType::Info,
        )?)?;
        let mut families = Families(encoder);
        self.connections(&mut families)?;
        self.workloads(&mut families)?;
        self.kernel(&mut families)?;
        self.agent(&mut families)
    }
}

impl Snapshot {
    fn connections(&self, families: &mut Families<'_>) -> fmt::Result {
        let by_reason = self.status.workloads.iter().flat_map(|workload| {
            workload.connections.iter().map(move |of_reason| {
                let labels = [
                    ("workload", workload.cookie.to_string()),
                    ("netns", workload.netns.clone()),
                    ("reason", of_reason.reason.to_owned()),
                ];
                (labels, of_reason.count)
            })
        });
        let (failed, decided): (Vec<_>, Vec<_>) =
            by_reason.partition(|([.., (_, reason)], _)| reason.starts_with(FAILURE));
        families.counters("decided", "connections", "Connections by what decided about them", &decided)?;
        families.counters(
            "failed",
            "connections",
            "Connections for which something could not be done",
            &failed,
        )
    }

    fn workloads(&self, families: &mut Families<'_>) -> fmt::Result {
        let steered = self.status.workloads.iter().filter(|workload| workload.steered).count();
        let failing = self.view.workloads.values().filter(|kept| kept.fault.is_some()).count();
        let states = [
            ("in_force", self.status.workloads.len()),
            ("steered", steered),
            ("kept", self.view.workloads.len()),
            ("failing", failing),
        ];
        let states = states.map(|(state, count)| ([("state", state.to_owned())], number(count)));
        families.gauges(
            "workloads",
            None,
            "Workloads in force, and of these steered; workloads the agent keeps, and of these failing",
            &states,
        )?;
        let listeners = self.gauges.listeners.iter().map(|listener| {
            let labels =
                [("workload", listener.workload.to_string()), ("listener", listener.name.to_owned())];
            (labels, number(listener.sockets))
        });
        families.gauges(
            "listener",
            Some("sockets"),
            "Listening sockets of a workload's proxy that are known; 0 means that connections for it are refused",
            &listeners.collect::<Vec<_>>(),
        )
    }

    fn kernel(&self, families: &mut Families<'_>) -> fmt::Result {
        let hooks = self.status.hooks.iter();
        let hooks = hooks.map(|hook| ([("hook", hook.name.to_owned())], i64::from(hook.attached)));
        families.gauges("hook_attached", None, "Whether a hook is attached", &hooks.collect::<Vec<_>>())?;
        let maps = &self.gauges.maps;
        let entries = maps.iter().map(|map| ([("map", map.name.to_owned())], number(map.entries)));
        families.gauges("map", Some("entries"), "Entries in a map", &entries.collect::<Vec<_>>())?;
        let room = maps.iter().map(|map| ([("map", map.name.to_owned())], i64::from(map.capacity)));
        families.gauges(
            "map_capacity",
            Some("entries"),
            "Entries a map has room for",
            &room.collect::<Vec<_>>(),
        )
    }

    fn agent(&self, families: &mut Families<'_>) -> fmt::Result {
        let counters = [
            ("enrolled", "workloads", "Workloads enrolled or changed by this agent", self.view.enrolments),
            ("failed", "enrolments", "Attempts to enrol that failed", self.view.failures),
            ("refreshed", "workloads", "Looks at a workload whose network had changed", self.view.refreshes),
            ("upgraded", "programs", "Programs of another build replaced in place", self.view.upgrades),
            ("collected", "workloads", "Workloads removed as their namespace was gone", self.view.collected),
        ];
        for (name, unit, help, value) in counters {
            families.counter(name, unit, help, value)?;
        }
        Ok(())
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Writes metrics whose values were gathered already. The unit becomes the end of the name.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn counter(&mut self, name: &str, unit: &str, help: &str, value: u64) -> fmt::Result {
        let unit = Unit::Other(unit.to_owned());
        let encoder = self.0.encode_descriptor(name, help, Some(&unit), MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        unit: &str,
        help: &str,
        values: &[([(&'static str, String); N], u64)],
    ) -> fmt::Result {
        let unit = Unit::Other(unit.to_owned());
        let mut family = self.0.encode_descriptor(name, help, Some(&unit), MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        unit: Option<&str>,
        help: &str,
        values: &[([(&'static str, String); N], i64)],
    ) -> fmt::Result {
        let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}
