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
    table.set_header([bold("connection")].into_iter().chain(backends).chain([bold("result")]));
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
        Backend::IptablesNft | Backend::IptablesLegacy | Backend::Ebpf => backend.to_string(),
    }
}

fn cells(row: &Row) -> Vec<Cell> {
    let title = Cell::new(format!("{}\n{}", row.scenario, row.connection));
    let seen = row.seen.iter().map(|seen| match seen {
        Ok(observation) => Cell::new(short(observation)),
        Err(error) => Cell::new(error).fg(Color::Red),
    });
    let result = match &row.verdict {
        Verdict::Equal => Cell::new("equal").fg(Color::Green),
        Verdict::Explained(_) => Cell::new("as expected").fg(Color::Yellow),
        Verdict::Different(_) => Cell::new("DIFFERENT").fg(Color::Red),
        Verdict::Failed => Cell::new("FAILED").fg(Color::Red),
    };
    [title].into_iter().chain(seen).chain([result]).collect()
}

/// Three lines: what the app, the proxy and the server saw.
fn short(observation: &Observation) -> String {
    let fact = |name| observation.value(name);
    let app = match (fact("app.connect"), fact("app.answer")) {
        ("ok", "closed") => format!("{} → {}, closed", fact("app.local"), fact("app.peer")),
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
    format!("app    {app}\nproxy  {proxy}\nserver {server}")
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
        Verdict::Equal | Verdict::Failed => None,
        Verdict::Explained(differences) | Verdict::Different(differences) => {
            let lines = differences.iter().map(|difference| line(difference, &sides));
            let title = format!("{} ({})", row.scenario, row.connection);
            Some([title].into_iter().chain(lines).collect::<Vec<_>>().join("\n"))
        }
    };
    report.rows.iter().filter_map(note).collect()
}

fn line(difference: &Difference, (left, right): &(String, String)) -> String {
    let shown = |value: &str| if value.is_empty() { "nothing".to_owned() } else { value.to_owned() };
    let reason = difference.reason.map_or_else(String::new, |reason| format!("\n    {reason}"));
    let (on_left, on_right) = (shown(&difference.left), shown(&difference.right));
    format!("  {}: {on_left} under {left}, {on_right} under {right}{reason}", difference.fact)
}

fn summary(report: &Report) -> String {
    let count = |is: fn(&Verdict) -> bool| report.rows.iter().filter(|row| is(&row.verdict)).count();
    format!(
        "{} connections: {} equal, {} different as expected, {} different, {} failed.",
        report.rows.len(),
        count(|verdict| matches!(verdict, Verdict::Equal)),
        count(|verdict| matches!(verdict, Verdict::Explained(_))),
        count(|verdict| matches!(verdict, Verdict::Different(_))),
        count(|verdict| matches!(verdict, Verdict::Failed)),
    )
}

fn bold(text: &str) -> Cell {
    Cell::new(text).add_attribute(Attribute::Bold)
}
