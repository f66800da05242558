//! What came of a kernel, and the table of it in docs/kernels.md.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Series, machine::Outcome};
use crate::workspace;

/// What came of one kernel.
pub(super) struct Entry {
    series: String,
    kernel: String,
    grade: String,
    auto: String,
    passed: usize,
    failures: Vec<String>,
    scenarios: usize,
    differences: usize,
}

impl Entry {
    /// What the probe says of the kernel.
    pub(super) fn new(series: &Series, kernel: &str, probe: &Value) -> Result<Self> {
        let grades = probe["grades"].as_array().context("the probe gives no grades")?;
        let grade = grades
            .iter()
            .find(|grade| grade["backend"] == "ebpf")
            .context("the probe gives no grade of ebpf")?;
        let auto = probe["auto"]["takes"]["backend"].as_str().unwrap_or("nothing").to_owned();
        let (series, kernel) = (series.to_string(), kernel.to_owned());
        let grade = grade_text(&grade["grade"]);
        Ok(Self {
            series,
            kernel,
            grade,
            auto,
            passed: 0,
            failures: Vec::new(),
            scenarios: 0,
            differences: 0,
        })
    }

    /// The backend that `auto` takes.
    pub(super) fn auto(&self) -> &str {
        &self.auto
    }

    /// Counts what a test program said.
    pub(super) fn add_tests(&mut self, program: &str, outcome: &Outcome) {
        let results = || outcome.output.lines().filter_map(|line| line.strip_prefix("test "));
        self.passed += results().filter(|line| line.ends_with(" ... ok")).count();
        let failed: Vec<_> = results().filter_map(|line| line.strip_suffix(" ... FAILED")).collect();
        if outcome.code != 0 || !failed.is_empty() {
            let names = if failed.is_empty() { String::new() } else { format!(" in {}", failed.join(", ")) };
            self.failures.push(format!("{program} ended with {}{names}:\n{}", outcome.code, outcome.output));
        }
    }

    /// Counts what `parity --json` said.
    pub(super) fn add_scenarios(&mut self, outcome: &Outcome) {
        let report: Option<Value> = serde_json::from_str(&outcome.output).ok();
        let Some(rows) = report.as_ref().and_then(|report| report["rows"].as_array()) else {
            self.failures.push(format!("parity gives no report:\n{}", outcome.output));
            return;
        };
        self.scenarios += rows.len();
        let objections: Vec<_> = rows
            .iter()
            .filter(|row| row["verdict"] == "failed" || row["verdict"]["different"].is_array())
            .collect();
        self.differences += objections.len();
        if outcome.code != 0 || !objections.is_empty() {
            self.failures.push(format!("parity ended with {}, objecting to:\n{objections:#?}", outcome.code));
        }
    }

    pub(super) fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    pub(super) fn sentence(&self) -> String {
        let Self { kernel, grade, auto, passed, scenarios, differences, .. } = self;
        let mut text = format!(
            "{kernel}: ebpf {grade}, auto takes {auto}; {passed} tests passed, {scenarios} connections compared, \
             {differences} differences"
        );
        for failure in &self.failures {
            text = format!("{text}\n{failure}");
        }
        text
    }

    fn row(&self, date: &str) -> String {
        let result = if self.is_good() { "all passed" } else { "FAILED" };
        format!(
            "| {} | {} | {} | {} | {} ({result}) | {} | {} | {date} |",
            self.series, self.kernel, self.grade, self.auto, self.passed, self.scenarios, self.differences
        )
    }
}

fn grade_text(grade: &Value) -> String {
    let list = |key: &str| {
        let names = grade[key].as_array().map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    match grade["is"].as_str() {
        Some("full") => "full".to_owned(),
        Some("partial") => format!("without {}", list("lost")),
        _ => format!("unavailable: {}", list("missing")),
    }
}

const HEAD: &str = "# Kernels

What `cargo xtask vm` found on real kernels of Debian, in emulated machines. The command rewrites the rows of the kernels
it ran; nothing here is written by hand.

The grade is that of the eBPF backend. Where it is unavailable, `auto` takes nat rules, and the connections are compared
under those. A difference is one that no scenario gives a reason for.

| series | kernel | grade of ebpf | auto takes | tests | connections compared | differences | date |
|---|---|---|---|---|---|---|---|
";

/// Puts the entry into the table, in place of an older one of its series.
pub(super) fn write(entry: &Entry) -> Result<()> {
    let path = path();
    let old = fs::read_to_string(&path).unwrap_or_default();
    let text = replaced(&old, &entry.series, &entry.row(&today()?));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn path() -> PathBuf {
    workspace::root().join("docs/kernels.md")
}

fn today() -> Result<String> {
    let output = Command::new("date").args(["--utc", "+%Y-%m-%d"]).output().context("cannot run date")?;
    ensure!(output.status.success(), "date failed");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn replaced(old: &str, series: &str, row: &str) -> String {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| series");
    let other = |line: &&str| !line.starts_with(&format!("| {series} |"));
    let mut rows: Vec<&str> = old.lines().filter(is_row).filter(other).chain([row]).collect();
    // The newest comes last; it has no number.
    rows.sort_by_key(|row| {
        let series = row.trim_start_matches("| ").split(' ').next().unwrap_or_default();
        let numbers: Vec<u32> = series.split('.').filter_map(|number| number.parse().ok()).collect();
        (numbers.is_empty(), numbers)
    });
    format!("{HEAD}{}\n", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_replaces_that_of_its_series_alone() {
        let first = replaced("", "6.12", "| 6.12 | a |");
        let second = replaced(&first, "6.1", "| 6.1 | b |");
        let third = replaced(&second, "newest", "| newest | c |");
        let fourth = replaced(&third, "6.12", "| 6.12 | d |");
        let rows: Vec<_> = fourth.lines().skip(HEAD.lines().count()).collect();
        assert_eq!(rows, ["| 6.1 | b |", "| 6.12 | d |", "| newest | c |"]);
    }

    #[test]
    fn scenarios_that_differ_or_were_not_run_are_failures() {
        let probe = serde_json::json!({
            "grades": [{"backend": "ebpf", "grade": {"is": "full"}}],
            "auto": {"takes": {"backend": "ebpf"}},
        });
        let of = |output: &str, code| {
            let mut entry = Entry::new(&Series::Newest, "7.3.4", &probe).expect("a whole report");
            entry.add_scenarios(&Outcome { output: output.to_owned(), code });
            (entry.scenarios, entry.differences, entry.is_good())
        };
        assert_eq!(of(r#"{"rows": [{"verdict": "same"}, {"verdict": "expected"}]}"#, 0), (2, 0, true));
        assert_eq!(of(r#"{"rows": [{"verdict": {"different": ["x"]}}]}"#, 1), (1, 1, false));
        assert_eq!(of(r#"{"rows": [{"verdict": "failed"}]}"#, 1), (1, 1, false));
        assert_eq!(of("error: no tool", 1), (0, 0, false));
    }

    #[test]
    fn failures_of_a_test_program_are_counted_by_its_lines() {
        let probe = serde_json::json!({
            "grades": [{"backend": "ebpf", "grade": {"is": "partial", "lost": ["trace"]}}],
            "auto": {"takes": {"backend": "ebpf"}},
        });
        let mut entry = Entry::new(&Series::Newest, "7.3.4", &probe).expect("a whole report");
        assert_eq!(entry.grade, "without trace");
        let output = "test a ... ok\ntest b ... FAILED\ntest result: FAILED. 1 passed; 1 failed\n".to_owned();
        entry.add_tests("lifecycle", &Outcome { output, code: 101 });
        assert_eq!(entry.passed, 1);
        assert!(!entry.is_good() && entry.failures[0].contains("in b"), "{:?}", entry.failures);
    }
}
