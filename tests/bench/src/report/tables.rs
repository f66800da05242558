//! Samples as Markdown tables.

use std::fmt::Write as _;

use super::{
    goals::{Bound, Judged, Verdict},
    select::Series,
};
use nix::errno::Errno;

use crate::{sample::Sample, statistics::Estimate};

/// A measure's table.
struct Table {
    heading: &'static str,
    measure: &'static str,
    /// What `size` counts, if something grows.
    size: Option<&'static str>,
    /// Whether the first column is also given against direct connections; differences may be about nothing.
    compared: bool,
    /// Values with their headings.
    columns: &'static [(&'static str, &'static str)],
    plot: Option<&'static str>,
}

const RATE: (&str, &str) = ("connections_per_second", "connections/s");
const LATENCIES: [(&str, &str); 3] =
    [("p50_us", "p50, µs"), ("p99_us", "p99, µs"), ("cpu_us", "CPU of both ends, µs")];
const CONNECTIONS: &[(&str, &str)] = &[RATE, LATENCIES[0], LATENCIES[1], LATENCIES[2]];

const TABLES: [Table; 13] = [
    Table {
        heading: "Set-up",
        measure: "set-up",
        compared: true,
        size: None,
        columns: CONNECTIONS,
        plot: Some("set-up"),
    },
    Table {
        heading: "Round trips on an established connection",
        measure: "round-trip",
        compared: true,
        size: None,
        columns: &[("round_trips_per_second", "round trips/s"), LATENCIES[0], LATENCIES[1], LATENCIES[2]],
        plot: None,
    },
    Table {
        heading: "Throughput of an established connection",
        measure: "stream",
        compared: true,
        size: None,
        columns: &[("mebibytes_per_second", "MiB/s"), ("cpu_us_per_mebibyte", "CPU of both ends, µs/MiB")],
        plot: None,
    },
    Table {
        heading: "Growth: excluded CIDRs",
        measure: "excluded-cidrs",
        compared: true,
        size: Some("CIDRs"),
        columns: CONNECTIONS,
        plot: Some("excluded-cidrs"),
    },
    Table {
        heading: "Growth: excluded ports",
        measure: "excluded-ports",
        compared: true,
        size: Some("ports"),
        columns: CONNECTIONS,
        plot: Some("excluded-ports"),
    },
    Table {
        heading: "Growth: workloads on the node",
        measure: "workloads",
        compared: true,
        size: Some("workloads"),
        columns: CONNECTIONS,
        plot: Some("workloads"),
    },
    Table {
        heading: "Growth: open connections",
        measure: "open-connections",
        compared: true,
        size: Some("open"),
        columns: CONNECTIONS,
        plot: Some("open-connections"),
    },
    Table {
        heading: "Connections one pod can hold",
        measure: "held",
        compared: true,
        size: None,
        columns: &[("connections", "connections"), ("errno", "the next failed with")],
        plot: None,
    },
    Table {
        heading: "Connections made in a row to one destination",
        measure: "in-a-row",
        compared: true,
        size: None,
        columns: &[
            ("connections", "connections"),
            ("connections_per_second", "connections/s"),
            ("errno", "the next failed with"),
        ],
        plot: None,
    },
    Table {
        heading: "Single calls, in ns: our programs attached (ebpf) and not (direct)",
        measure: "calls",
        compared: true,
        size: None,
        columns: &[
            ("connect_ns", "connect"),
            ("accept_ns", "accept"),
            ("getsockopt_ns", "getsockopt"),
            ("getpeername_ns", "getpeername"),
            ("getsockname_ns", "getsockname"),
        ],
        plot: None,
    },
    Table {
        heading: "Apply and release",
        measure: "apply",
        compared: true,
        size: None,
        columns: &[
            ("apply_ms", "apply, ms"),
            ("release_ms", "release, ms"),
            ("grace_period_ms", "a grace period of RCU, ms"),
        ],
        plot: None,
    },
    Table {
        heading: "Apply, many at the same time",
        measure: "apply-together",
        compared: true,
        size: Some("at a time"),
        columns: &[("median_ms", "median, ms"), ("slowest_ms", "slowest, ms"), ("all_ms", "all, ms")],
        plot: None,
    },
    Table {
        heading: "Kernel memory",
        measure: "memory",
        compared: false,
        size: None,
        columns: &[
            ("workload_bytes", "bytes a workload"),
            ("connection_bytes", "bytes an open connection, both ends"),
            ("socket_option_bytes", "of them ours, in the client's socket"),
        ],
        plot: None,
    },
];

/// Every table that there are samples for.
pub(super) fn all(samples: &[Sample]) -> String {
    TABLES.iter().map(|table| table.render(&Series::of(samples, table.measure))).collect()
}

/// The goals, each with what was measured.
pub(crate) fn goals(judged: &[Judged]) -> String {
    let mut text = "| goal | bound | measured | |\n|---|---|---|---|\n".to_owned();
    for goal in judged {
        let bound = match goal.bound {
            Bound::AtLeast(bound) => format!("≥ {bound}"),
            Bound::AtMost(bound) => format!("≤ {bound}"),
            Bound::Stated => missing(),
        };
        let verdict = match goal.verdict() {
            Verdict::Met => "met",
            Verdict::WithinNoise => "missed, within the noise",
            Verdict::Missed => "**missed**",
            Verdict::Stated => "stated",
        };
        line(&mut text, &[goal.goal.clone(), bound, with_bounds(goal.measured), verdict.to_owned()]);
    }
    text
}

impl Table {
    fn render(&self, all: &Series<'_>) -> String {
        let cases = all.cases();
        if cases.is_empty() {
            return String::new();
        }
        let mut text = format!("\n### {}\n\n", self.heading);
        if let Some(plot) = self.plot {
            let _infallible = writeln!(text, "![{}](bench/{plot}.svg)\n", self.heading);
        }
        for case in cases {
            let _infallible = writeln!(text, "{}\n", capitalised(case));
            self.render_case(&mut text, &all.case(case));
            text.push('\n');
        }
        text
    }

    fn render_case(&self, text: &mut String, series: &Series<'_>) {
        let has_direct = self.compared && series.direct(0).is_some();
        let mut titles = vec![String::new()];
        titles.extend(self.size.map(str::to_owned));
        for (column, (_, title)) in self.columns.iter().enumerate() {
            titles.push((*title).to_owned());
            if column == 0 && has_direct {
                titles.push("against direct".to_owned());
            }
        }
        line(text, &titles);
        line(text, &titles.iter().map(|_| "---".to_owned()).collect::<Vec<_>>());
        for subject in series.subjects() {
            let mut cells = vec![subject.regime.to_string()];
            cells.extend(self.size.map(|_| subject.size.to_string()));
            for (column, (value, _)) in self.columns.iter().enumerate() {
                let median = series.median(subject, value).map(|estimate| estimate.median);
                cells.push(median.map_or_else(missing, |median| cell(value, median)));
                if column == 0 && has_direct {
                    let direct = series.direct(subject.size);
                    let ratio = direct.and_then(|direct| series.ratio(subject, direct, value));
                    cells.push(ratio.map_or_else(missing, with_bounds));
                }
            }
            line(text, &cells);
        }
    }
}

fn line(text: &mut String, cells: &[String]) {
    let _infallible = writeln!(text, "| {} |", cells.join(" | "));
}

fn missing() -> String {
    "–".to_owned()
}

fn with_bounds(estimate: Estimate) -> String {
    let Estimate { median, low, high } = estimate;
    format!("{} ({} … {})", number(median), number(low), number(high))
}

/// A value as a table shows it.
fn cell(value: &str, median: f64) -> String {
    if value != "errno" {
        return number(median);
    }
    // The number of an error, between two of which no median is worth a name.
    match format!("{median}").parse() {
        Ok(0) => "none".to_owned(),
        Ok(errno) => format!("{:?}", Errno::from_raw(errno)),
        Err(_) => "several".to_owned(),
    }
}

/// Three digits that say something.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 3.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
