//! The page: its prose is written by hand, the numbers between two marks by us.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};

use super::{goals::Judged, plot, select::Series, tables};
use crate::sample::Run;

const BEGIN: &str = "<!-- numbers: written by `cargo xtask bench`, not by hand -->\n";
const END: &str = "<!-- end of numbers -->\n";

/// Measures with a curve, and what grows there.
const CURVES: [(&str, &str); 4] = [
    ("excluded-cidrs", "excluded CIDRs"),
    ("excluded-ports", "excluded ports"),
    ("workloads", "workloads on the node"),
    ("open-connections", "open connections"),
];

/// Writes page, plots and raw data into a folder. The prose is that of the page at `template`.
pub(crate) fn write(folder: &Path, template: &Path, run: &Run, judged: &[Judged]) -> anyhow::Result<()> {
    let samples = &run.samples;
    let prose =
        fs::read_to_string(template).with_context(|| format!("cannot read {}", template.display()))?;
    let marks = (prose.find(BEGIN), prose.find(END));
    let (Some(begin), Some(end)) = marks else {
        anyhow::bail!("{} lacks the lines between which the numbers go: {BEGIN}{END}", template.display());
    };
    ensure!(begin < end, "the marks in {} are in the wrong order", template.display());

    let plots = folder.join("bench");
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    run.write(&plots.join("samples.jsonl"))?;
    let set_up = Series::of(samples, "set-up");
    if !set_up.cases().is_empty() {
        plot::cases(&plots.join("set-up.svg"), &set_up)?;
    }
    for (measure, what) in CURVES {
        let series = Series::of(samples, measure);
        if !series.cases().is_empty() {
            plot::growth(&plots.join(format!("{measure}.svg")), what, &series)?;
        }
    }

    let numbers = format!(
        "{BEGIN}\n## Machine\n\n{}\n## Goals\n\n{}\n## Numbers\n{}\n",
        run.machine,
        tables::goals(judged),
        tables::all(samples)
    );
    let page = [&prose[..begin], &numbers, &prose[end..]].concat();
    let path = folder.join("benchmarks.md");
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}
