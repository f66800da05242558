//! Twice as many excluded ranges are twice the work, in every form that rules can be printed in.
//!
//! Work is counted in allocations and their bytes, which no load of the machine can change. What scans without
//! allocating is not seen.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its own data has failed")]

use allocation_counter::measure;
use clap::Parser;
use interceptor::{
    capture::{Capture, CaptureArgs, Detected},
    nat::{
        Family, Loaded, RuleSet, Table, generate,
        list::{self, Count, Style},
        nft, restore, save,
    },
};

#[test]
fn input_of_restore_is_linear_work() {
    is_linear(|rules| restore::text(&rules.v4));
}

#[test]
fn a_save_is_linear_work() {
    is_linear(|rules| save::text(&Loaded::of(&rules.v4), Family::V4));
}

#[test]
fn a_listing_is_linear_work() {
    is_linear(|rules| {
        let style = Style { names: true, verbose: true };
        list::text(&Loaded::of(&rules.v4), Table::Nat, Family::V4, style, |_, _| Count::default())
    });
}

#[test]
fn input_of_nft_is_linear_work() {
    is_linear(nft::text);
}

fn is_linear(print: impl Fn(&RuleSet) -> String) {
    let work = [1_000, 2_000, 4_000].map(|count| measure(|| drop(print(&generate(&capture(count))))));
    doubles("allocations", work.each_ref().map(|work| work.count_total));
    doubles("bytes", work.each_ref().map(|work| work.bytes_total));
}

/// The second step has twice the ranges of the first. Linear work doubles with it, quadratic work is four times as much.
fn doubles(what: &str, [one, two, four]: [u64; 3]) {
    assert!((four - two) * 2 < (two - one) * 5, "{what}: {one}, {two}, {four}");
}

fn capture(excluded: u16) -> Capture {
    let ranges = (0..excluded).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256));
    let ranges = ranges.collect::<Vec<_>>().join(",");
    let cli = Cli::try_parse_from(["interceptor", "-i", "*", "--ipv6", "off", "-x", &ranges]).unwrap();
    let detected = Detected {
        environment: [].into(),
        addresses: Vec::new(),
        resolv_conf: Ok(String::new()),
        user_id: |_| None,
        group_id: |_| None,
    };
    cli.capture.capture(&detected).unwrap()
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    capture: CaptureArgs,
}
