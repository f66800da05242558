//! Twice as many excluded ranges are twice the work, in every form that rules can be printed in.
//!
//! Work is counted in allocations and their bytes, which no load of the machine can change. What scans without
//! allocating is not seen.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its own data has failed")]

use allocation_counter::{AllocationInfo, measure};
use clap::Parser;
use interceptor::{
    capture::{Capture, CaptureArgs, Detected},
    nat::{
        Family, Loaded, RuleSet, Table, generate,
        list::{self, Count, Style},
        nft, restore, save,
    },
};

/// A way to print rules.
type Form = fn(&RuleSet) -> String;

#[test]
fn the_work_grows_as_the_list_of_excluded_ranges_does() {
    let forms: [(&str, Form); 4] = [
        ("restore", |rules| restore::text(&rules.v4)),
        ("save", |rules| save::text(&Loaded::of(&rules.v4), Family::V4)),
        ("list", |rules| {
            let style = Style { names: true, verbose: true };
            list::text(&Loaded::of(&rules.v4), Table::Nat, Family::V4, style, |_, _| Count::default())
        }),
        ("nft", nft::text),
    ];
    for (name, form) in forms {
        let work = [1_000, 2_000, 4_000].map(|count| measure(|| drop(form(&generate(&capture(count))))));
        for (what, of) in [
            ("allocations", (|work| work.count_total) as fn(&AllocationInfo) -> u64),
            ("bytes", |work| work.bytes_total),
        ] {
            let [one, two, four] = work.each_ref().map(of);
            let (step, next) = (two - one, four - two);
            // The next step has twice the ranges. Linear work doubles, quadratic work is four times as much.
            assert!(next * 2 < step * 5, "{name}: {what} {one}, {two}, {four}");
        }
    }
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
