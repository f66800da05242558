//! Whatever text is given as rules: reading, evaluating, printing and importing it neither panics nor hangs, and what
//! is printed reads back as rules that decide alike.
#![no_main]

use std::ops::ControlFlow;

use interceptor::nat::{Family, classes, classes::Classes, evaluate, import::import, parse, save};
use libfuzzer_sys::fuzz_target;

/// Connections to try, of the many that dozens of rules tell apart.
const MOST_PACKETS: u32 = 200;

fuzz_target!(|text: &str| {
    let Ok(parsed) = parse::any(text) else { return };
    let again = parse::save(&save::text(&parsed.loaded, Family::V4)).ok();
    let mut left = MOST_PACKETS;
    let _all = Classes::distinct(classes::tests(&parsed.loaded)).each(|packet| {
        let outcome = |loaded| evaluate(loaded, packet).ok().map(|evaluation| evaluation.outcome);
        // What a module unknown here asks for cannot be told, nor which of the following words are its own.
        if let (Some(decided), Some(again)) = (outcome(&parsed.loaded), &again)
            && let Some(decided_again) = outcome(&again.loaded)
        {
            assert_eq!(decided_again, decided, "{packet}");
        }
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if text.len() < 2_000 {
        let _capture = import(&parsed.loaded, None);
    }
});
