//! The report as a table for people.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use interceptor::parity::{
    backend::Backend,
    observation::Observation,
    report::{Difference, Report, Row, Verdict},
};

const LEGEND: &str = "\
pod and pod2 are the intercepted workloads; peer, service1 and so on are the rest of the world.
Ports: src is the caller's own source port, new the proxy's towards the destination, other one that nat made up.";

/// The table, every difference in words, and a summary. Colour only on a terminal.
pub(super) fn render(report: &Report, on_terminal: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !on_terminal {
        table.force_no_tty();
    }
    let backends = report.backends.iter().map(|backend| bold(&heading(*backend)));
    table.set_header([bold("connection")].into_iter().chain(backends));
    for row in &report.rows {
        table.add_row(cells(row));
    }

    let mut parts = vec![table.trim_fmt(), LEGEND.to_owned()];
    parts.extend(notes(report));
    parts.push(summary(report));
    parts.join("\n\n") + "\n"
}

fn heading(backend: Backend) -> String {
    match backend {
        Backend::None => "no interception".to_owned(),
        Backend::IptablesNft | Backend::IptablesLegacy | Backend::Ebpf | Backend::Iptables | Backend::Nft => {
            backend.to_string()
        }
    }
}

/// The right backend's cell says what is not as on the left.
fn cells(row: &Row) -> Vec<Cell> {
    let title = Cell::new(format!("{}\n{}", row.scenario, row.connection));
    let (right, others) = row.seen.split_last().map_or((None, row.seen.as_slice()), |(r, o)| (Some(r), o));
    let seen = others.iter().map(|seen| match seen {
        Ok(observation) => Cell::new(lines(observation).join("\n")),
        Err(error) => Cell::new(error).fg(Color::Red),
    });
    let left = others.last().and_then(|left| left.as_ref().ok());
    let right = match (&row.verdict, right) {
        (Verdict::Equal, _) => Cell::new("same").fg(Color::Green),
        (Verdict::Skipped(reason), _) => Cell::new(format!("skipped: {reason}")),
        (Verdict::Explained(_), Some(Err(refusal))) => Cell::new(refusal).fg(Color::Yellow),
        (Verdict::Explained(_), Some(Ok(right))) => changed(left, right, "as expected").fg(Color::Yellow),
        (_, Some(Ok(right))) => changed(left, right, "DIFFERENT").fg(Color::Red),
        (_, Some(Err(error))) => Cell::new(error).fg(Color::Red),
        (_, None) => Cell::new(""),
    };
    [title].into_iter().chain(seen).chain([right]).collect()
}

/// The lines in which right differs from left, below a word on it. There may be none: not every fact is in them.
fn changed(left: Option<&Observation>, right: &Observation, word: &str) -> Cell {
    let left = left.map(lines);
    let changed = lines(right).into_iter().filter(|line| left.iter().flatten().all(|other| other != line));
    Cell::new([word.to_owned()].into_iter().chain(changed).collect::<Vec<_>>().join("\n"))
}

/// What the app, the proxy and the server saw, a line each.
fn lines(observation: &Observation) -> [String; 3] {
    let fact = |name| observation.value(name);
    let app = match (fact("app.connect"), fact("app.answer")) {
        ("ok", answer) => format!("{} → {}, {}", fact("app.local"), fact("app.peer"), answered(answer)),
        ("", answer) => format!("{}, from {}", answered(answer), fact("app.from")),
        (error, _) => error.to_owned(),
    };
    let nobody = || "–".to_owned();
    let proxy = if fact("proxy.accepted") == "0" {
        nobody()
    } else {
        let v4 = fact("proxy.original_v4");
        let original = if v4.starts_with('E') { fact("proxy.original_v6") } else { v4 };
        format!("{} ← {}, for {original}", fact("proxy.local"), fact("proxy.peer"))
    };
    let server = if fact("server.accepted") == "0" {
        nobody()
    } else {
        let at = if fact("server.local").is_empty() { fact("server.listener") } else { fact("server.local") };
        format!("{at} ← {}", fact("server.from"))
    };
    [format!("app    {app}"), format!("proxy  {proxy}"), format!("server {server}")]
}

/// The servers answer with their name and the text they got.
fn answered(answer: &str) -> String {
    answer.split_once(' ').map_or_else(|| answer.to_owned(), |(name, _)| format!("{name} answers"))
}

fn notes(report: &Report) -> Vec<String> {
    let sides = match report.backends.as_slice() {
        [.., left, right] => (left.to_string(), right.to_string()),
        _ => (String::new(), String::new()),
    };
    let note = |row: &Row| match &row.verdict {
        Verdict::Equal | Verdict::Failed | Verdict::Skipped(_) => None,
        Verdict::Explained(differences) | Verdict::Different(differences) => {
            let title = format!("{} ({})", row.scenario, row.connection);
            let facts = differences.iter().map(|difference| line(difference, &sides));
            let mut reasons: Vec<_> = differences.iter().filter_map(|difference| difference.reason).collect();
            reasons.dedup();
            let reasons = reasons.into_iter().map(|reason| format!("  meant to be: {reason}"));
            Some([title].into_iter().chain(facts).chain(reasons).collect::<Vec<_>>().join("\n"))
        }
    };
    report.rows.iter().filter_map(note).collect()
}

fn line(difference: &Difference, (left, right): &(String, String)) -> String {
    let shown = |value: &str| if value.is_empty() { "nothing".to_owned() } else { value.to_owned() };
    let (on_left, on_right) = (shown(&difference.left), shown(&difference.right));
    format!("  {}: {on_left} under {left}, {on_right} under {right}", difference.fact)
}

fn summary(report: &Report) -> String {
    let mut scenarios: Vec<_> = report.rows.iter().map(|row| row.scenario.as_str()).collect();
    scenarios.dedup();
    format!(
        "{} connections of {} scenarios: {} equal, {} different as expected, {} different, {} failed, {} skipped.",
        report.rows.len(),
        scenarios.len(),
        report.count(|verdict| matches!(verdict, Verdict::Equal)),
        report.count(|verdict| matches!(verdict, Verdict::Explained(_))),
        report.count(|verdict| matches!(verdict, Verdict::Different(_))),
        report.count(|verdict| matches!(verdict, Verdict::Failed)),
        report.count(|verdict| matches!(verdict, Verdict::Skipped(_))),
    )
}

fn bold(text: &str) -> Cell {
    Cell::new(text).add_attribute(Attribute::Bold)
}
