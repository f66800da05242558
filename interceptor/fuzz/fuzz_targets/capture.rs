//! Whatever command line is given: reading it does not panic, and a capture comes back from its own command line.
#![no_main]

use std::collections::BTreeMap;

use clap::Parser;
use interceptor::{
    capture::{CaptureArgs, Detected, InboundMode, Pod, PodReader},
    nat::{Loaded, generate, parse, restore},
};
use libfuzzer_sys::fuzz_target;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    capture: CaptureArgs,
}

fuzz_target!(|text: &str| {
    if let Ok(pod) = Pod::read(text) {
        for reader in [PodReader::Injector, PodReader::Cni] {
            let _settings = pod.settings(reader);
        }
    }
    // A file named on the command line is none of the fuzzer's business.
    let words = text.split('\n').filter(|word| !word.starts_with("--config"));
    let (variables, flags): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with("ISTIO_"));
    let environment = variables.iter().filter_map(|word| word.split_once('='));
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let Ok(cli) = Cli::try_parse_from(["fuzz"].into_iter().chain(flags)) else { return };
    let detected = |environment: BTreeMap<String, String>| Detected {
        environment,
        addresses: vec!["10.1.0.5".parse().expect("an address")],
        resolv_conf: Ok("nameserver 10.0.0.10".to_owned()),
        user_id: |_| None,
        group_id: |_| None,
    };
    let Ok(capture) = cli.capture.capture(&detected(environment)) else { return };
    let line = capture.command_line();
    let environment = line.environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let again = Cli::try_parse_from(["fuzz".to_owned()].into_iter().chain(line.flags)).expect("our own flags");
    let again = again.capture.capture(&detected(environment)).expect("our own capture");
    if capture.inbound_mode == InboundMode::Tproxy {
        assert_eq!(again, capture);
    }
    let rules = generate(&capture);
    assert_eq!(generate(&again), rules);
    let parsed = parse::save(&restore::text(&rules.v4)).expect("our own text");
    assert_eq!(parsed.loaded, Loaded::of(&rules.v4));
});
