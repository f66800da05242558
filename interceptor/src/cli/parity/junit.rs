//! The report as `JUnit`'s XML, which continuous integration systems show.

use std::io::{self, Write};

use interceptor::parity::report::{Difference, Report, Row, Verdict};
use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};

/// Writes one test suite, with a case for each connection.
pub(super) fn write(report: &Report, output: impl Write) -> io::Result<()> {
    let mut writer = Writer::new_with_indent(output, b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let backends: Vec<_> = report.backends.iter().map(ToString::to_string).collect();
    let count = |kind: fn(&Verdict) -> bool| report.count(kind).to_string();
    writer
        .create_element("testsuite")
        .with_attribute(("name", format!("parity: {}", backends.join(", ")).as_str()))
        .with_attribute(("tests", report.rows.len().to_string().as_str()))
        .with_attribute(("failures", count(|verdict| matches!(verdict, Verdict::Different(_))).as_str()))
        .with_attribute(("errors", count(|verdict| matches!(verdict, Verdict::Failed)).as_str()))
        .with_attribute(("skipped", count(|verdict| matches!(verdict, Verdict::Skipped(_))).as_str()))
        .write_inner_content(|writer| report.rows.iter().try_for_each(|row| case(writer, row)))?;
    writer.into_inner().flush()
}

fn case(writer: &mut Writer<impl Write>, row: &Row) -> io::Result<()> {
    let element = writer
        .create_element("testcase")
        .with_attribute(("classname", row.scenario.as_str()))
        .with_attribute(("name", row.connection.as_str()));
    let (kind, message, text) = match &row.verdict {
        Verdict::Equal => return element.write_empty().map(drop),
        Verdict::Explained(differences) => ("system-out", "", lines(differences)),
        Verdict::Different(differences) => ("failure", "the backends differ", lines(differences)),
        Verdict::Failed => {
            let errors = row.seen.iter().filter_map(|seen| seen.as_ref().err().map(String::as_str));
            ("error", "it could not be observed", errors.collect::<Vec<_>>().join("\n"))
        }
        Verdict::Skipped(reason) => ("skipped", reason.as_str(), String::new()),
    };
    element
        .write_inner_content(|writer| {
            let inner = writer.create_element(kind);
            let inner = if message.is_empty() { inner } else { inner.with_attribute(("message", message)) };
            inner.write_text_content(BytesText::new(&text)).map(drop)
        })
        .map(drop)
}

fn lines(differences: &[Difference]) -> String {
    let line = |difference: &Difference| {
        let Difference { fact, left, right, reason } = difference;
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{fact}: {left:?} on the left, {right:?} on the right{reason}")
    };
    differences.iter().map(line).collect::<Vec<_>>().join("\n")
}
