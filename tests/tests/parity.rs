//! The scenarios under two backends: everything that app, proxy and server see is equal, or different on purpose.

use interceptor::parity::{
    backend::Backend,
    catalogue,
    plan::Place,
    report::{Report, Row, Verdict},
    world::{Layout, World},
};
use interceptor_tests::{runner, skipped};

fn report(left: Backend, right: Backend) -> Report {
    let (scenarios, backends) = (catalogue::all(), [left, right]);
    let runs = runner().run_all(&scenarios, &backends, || {});
    Report::new(&scenarios, &backends, &runs)
}

fn objections(report: &Report) -> Vec<&Row> {
    report.objections().collect()
}

#[test]
fn ebpf_is_like_iptables_nft() {
    let report = report(Backend::IptablesNft, Backend::Ebpf);
    let objections = objections(&report);
    assert!(objections.is_empty(), "{objections:#?}");
}

#[test]
fn iptables_legacy_is_like_iptables_nft() {
    if let Err(reason) = legacy_works() {
        skipped(&reason);
        return;
    }
    let report = report(Backend::IptablesLegacy, Backend::IptablesNft);
    let objections = objections(&report);
    assert!(objections.is_empty(), "{objections:#?}");
}

/// Some kernels come without the legacy tables.
fn legacy_works() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let runner = runner();
    Backend::IptablesLegacy.apply(&world, &runner.interceptor, Place::Pod, &catalogue::INJECTED)
}

/// A comparison that cannot fail proves nothing. Nobody intercepts on the right here, and that must show.
#[test]
fn the_comparison_sees_that_nobody_intercepts() {
    let report = report(Backend::IptablesNft, Backend::None);
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
