//! `interceptor probe`: what this machine offers, and which backend that leaves.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    process::ExitCode,
};

use comfy_table::{Attribute, Cell, Color, Table, presets::NOTHING};
use interceptor::probe::{self, Auto, Group, Presence, Report, Row};

use super::output;

/// Show what this machine offers, what is missing, and which backend `auto` takes.
///
/// Every feature is tried, asked for or read; no version is compared. Nothing is changed and no module is loaded. Without
/// rights, what could not be found out is told. Exit code 1 means that no backend works here.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, state: &Path) -> anyhow::Result<ExitCode> {
    let report = probe::probe(state);
    if args.json {
        output::json(&report)?;
    } else {
        show(&report)?;
    }
    Ok(if matches!(report.auto, Auto::Takes(_)) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(report: &Report) -> anyhow::Result<()> {
    for (group, title) in [(Group::System, "SYSTEM"), (Group::Bpf, "BPF"), (Group::Netfilter, "NETFILTER")] {
        output::line(format_args!(
            "{}\n",
            table(title, report.rows.iter().filter(|row| row.feature.group == group))
        ))?;
    }
    for graded in &report.grades {
        output::line(format_args!("{}: {}", graded.backend, graded.grade))?;
    }
    match &report.auto {
        Auto::Takes(choice) => output::line(format_args!("auto takes {choice}")),
        Auto::TakesNothing(none) => output::line(format_args!("auto takes nothing: {none}")),
    }
}

fn table<'r>(title: &str, rows: impl Iterator<Item = &'r Row>) -> Table {
    let color = io::stdout().is_terminal();
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([title, "HERE", "SINCE", "FOUND OUT", "WHAT FOR"]);
    for row in rows {
        let (feature, finding) = (row.feature, &row.finding);
        let (here, tone) = match finding.present {
            Presence::Yes => ("yes", Color::Green),
            Presence::No => ("NO", Color::Red),
            Presence::Unknown => ("?", Color::Yellow),
        };
        let here =
            if color { Cell::new(here).fg(tone).add_attribute(Attribute::Bold) } else { Cell::new(here) };
        let found = if finding.detail.is_empty() {
            finding.how.to_string()
        } else {
            format!("{}: {}", finding.how, finding.detail)
        };
        let purpose = match finding.present {
            Presence::Yes => feature.purpose.to_owned(),
            Presence::No | Presence::Unknown => {
                format!("{}; without it: {}", feature.purpose, feature.without)
            }
        };
        table.add_row([
            Cell::new(feature.name),
            here,
            Cell::new(feature.since.unwrap_or("")),
            Cell::new(found),
            Cell::new(purpose),
        ]);
    }
    table
}
