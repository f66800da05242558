//! The scenarios under two backends: everything that app, proxy and server see is equal, or different on purpose.

use std::collections::BTreeSet;

use interceptor::parity::{
    backend::Backend,
    catalogue,
    report::{Difference, Report, Row, Verdict},
    scenario::Set,
};
use interceptor_tests::{ebpf_runs_here, runner, skipped, tell};

/// Everything but gigabytes.
const EVERY_SET: [Set; 9] = [
    Set::Injected,
    Set::Families,
    Set::Captures,
    Set::Boundaries,
    Set::Dns,
    Set::Tproxy,
    Set::Streams,
    Set::Changes,
    Set::Programs,
];
/// What every rule decides at least once.
const BY_RULES: [Set; 4] = [Set::Injected, Set::Families, Set::Captures, Set::Dns];

fn report(sets: &[Set], left: Backend, right: Backend) -> Report {
    let mut scenarios = catalogue::all();
    scenarios.retain(|scenario| sets.contains(&scenario.set));
    let backends = [left, right];
    let runs = runner().run_all(&scenarios, &backends, || {});
    let report = Report::new(&scenarios, &backends, &runs);
    let reason = |row: &Row| match &row.verdict {
        Verdict::Skipped(reason) => Some(reason.clone()),
        Verdict::Equal | Verdict::Explained(_) | Verdict::Different(_) | Verdict::Failed => None,
    };
    for reason in report.rows.iter().filter_map(reason).collect::<BTreeSet<_>>() {
        tell(format_args!("skipped: {reason}"));
    }
    report
}

/// Every row that speaks against the right backend, with what differs or why there is nothing to compare.
fn objections(report: &Report) -> Vec<String> {
    let errors = |row: &Row| row.seen.iter().filter_map(|seen| seen.clone().err()).collect::<Vec<_>>();
    report
        .objections()
        .map(|row| format!("{} ({}): {:#?} {:#?}", row.scenario, row.connection, row.verdict, errors(row)))
        .collect()
}

#[test]
fn ebpf_is_like_iptables_for_an_injected_pod() -> anyhow::Result<()> {
    ebpf_is_like_iptables(Set::Injected)
}

#[test]
fn ebpf_is_like_iptables_in_every_address_family() -> anyhow::Result<()> {
    ebpf_is_like_iptables(Set::Families)
}

#[test]
fn ebpf_is_like_iptables_under_every_capture() -> anyhow::Result<()> {
    ebpf_is_like_iptables(Set::Captures)
}

#[test]
fn ebpf_is_like_iptables_at_every_boundary() -> anyhow::Result<()> {
    ebpf_is_like_iptables(Set::Boundaries)
}

#[test]
fn ebpf_is_like_iptables_for_resolvers() -> anyhow::Result<()> {
    ebpf_is_like_iptables(Set::Dns)
}

#[test]
fn ebpf_is_like_iptables_in_tproxy_mode() -> anyhow::Result<()> {
    ebpf_is_like_iptables(Set::Tproxy)
}

#[test]
fn ebpf_is_like_iptables_for_what_travels_over_a_connection() -> anyhow::Result<()> {
    ebpf_is_like_iptables(Set::Streams)
}

#[test]
fn ebpf_is_like_iptables_while_captures_change() -> anyhow::Result<()> {
    ebpf_is_like_iptables(Set::Changes)
}

#[test]
fn ebpf_is_like_iptables_for_programs_of_others() -> anyhow::Result<()> {
    ebpf_is_like_iptables(Set::Programs)
}

fn ebpf_is_like_iptables(set: Set) -> anyhow::Result<()> {
    if !ebpf_runs_here()? {
        return Ok(());
    }
    let report = report(&[set], Backend::IptablesNft, Backend::Ebpf);
    let objections = objections(&report);
    assert!(objections.is_empty(), "{}", objections.join("\n"));
    Ok(())
}

#[test]
fn iptables_legacy_is_like_iptables_nft() {
    // Some kernels come without the legacy tables.
    if let Err(reason) = runner().try_out(Backend::IptablesLegacy) {
        skipped(&reason);
        return;
    }
    let report = report(&EVERY_SET, Backend::IptablesLegacy, Backend::IptablesNft);
    let objections = objections(&report);
    assert!(objections.is_empty(), "{}", objections.join("\n"));
}

/// Real traffic through the tables that `apply --backend nft` loads. They are of family `inet`, as Istio's, so that
/// conntrack follows IPv6 too where it is not captured, and knows those connections' destinations.
#[test]
fn nft_is_like_iptables_nft() {
    let report = report(&BY_RULES, Backend::IptablesNft, Backend::Nft);
    let mut tracked = 0;
    for row in report.objections() {
        let Verdict::Different(differences) = &row.verdict else {
            panic!("{} ({}): {:#?}", row.scenario, row.connection, row.seen);
        };
        for Difference { fact, left, right, .. } in differences {
            let is_tracked = row.scenario.starts_with("IPv6 not captured")
                && fact.ends_with("original_v6")
                && left == "ENOENT";
            assert!(is_tracked, "{} ({}): {fact}: {left}, {right}", row.scenario, row.connection);
        }
        tracked += 1;
    }
    assert_eq!(tracked, 3, "connections over IPv6 that nobody captures");
}

/// A comparison that cannot fail proves nothing. Nobody intercepts on the right here, and that must show.
#[test]
fn the_comparison_sees_that_nobody_intercepts() {
    let report = report(&[Set::Injected], Backend::IptablesNft, Backend::None);
    let proxied = |row: &&Row| {
        row.seen
            .first()
            .is_some_and(|left| left.as_ref().is_ok_and(|left| left.value("proxy.accepted") == "1"))
    };
    let proxied: Vec<_> = report.rows.iter().filter(proxied).collect();
    assert!(proxied.len() >= 20, "only {} connections reach the proxy under iptables", proxied.len());
    for row in proxied {
        assert!(matches!(row.verdict, Verdict::Different(_)), "{row:#?}");
    }
}
