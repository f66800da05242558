//! Whatever text is given as rules: reading, evaluating, printing and importing it neither panics nor hangs, and what
//! is printed reads back the same.
#![no_main]

use std::ops::ControlFlow;

use interceptor::nat::{Family, classes::Classes, evaluate, import::import, parse, save};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(parsed) = parse::any(text) else { return };
    let printed = save::text(&parsed.loaded, Family::V4);
    if let Ok(again) = parse::save(&printed) {
        assert_eq!(save::text(&again.loaded, Family::V4), printed);
    }
    let mut left = 200;
    let _all = Classes::distinct(interceptor::nat::classes::tests(&parsed.loaded)).each(|packet| {
        let _outcome = evaluate(&parsed.loaded, packet);
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if text.len() < 2_000 {
        let _capture = import(&parsed.loaded, None);
    }
});
