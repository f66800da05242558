//! Rules of every era of Istio become captures that decide alike.

use std::{fs, path::Path};

use interceptor::{
    capture::{Capture, Dns, InboundPorts, OutboundCidrs, PortRange, Quirks, SelfCalls},
    nat::{
        Loaded,
        classes::Classes,
        import::{ImportError, import},
        parse, restore,
    },
    parity::random::captures::capture,
};
use proptest::prelude::*;

use crate::{
    agreement::{difference, rules_of, tests_of},
    golden::{Golden, parse_flags},
};

#[test]
fn todays_rules_import_from_every_golden() {
    for golden in Golden::all() {
        let rules = rules_of(&golden.capture().unwrap());
        let [v4, v6] = &rules;
        let v6 = (!v6.tables.is_empty()).then_some(v6);
        let imported = import(v4, v6).unwrap_or_else(|error| panic!("{}: {error}", golden.name));
        // `import` has compared rules with rules; the policy must agree as well.
        let classes = Classes::distinct(&tests_of(&imported, &rules));
        assert_eq!(difference(&imported, &rules, &classes), None, "{}", golden.name);
    }
}

#[test]
fn the_first_releases_redirect_everybodys_self_calls_and_know_one_port() {
    let from_save = imported("istio-0.7.save");
    let expected = Quirks {
        self_calls: SelfCalls::EveryoneToOutbound,
        inbound_tunnel_exempt: false,
        self_call_tunnel_exempt: false,
        passthrough_source_exempt: false,
        udp_dns_first: false,
    };
    assert_eq!(from_save.quirks, expected);
    assert_eq!((from_save.outbound_port, from_save.inbound_port), (15001, 15001));
    assert_eq!(from_save.inbound_ports, InboundPorts::AllExcept(Vec::new()));
    assert_eq!(from_save.outbound_cidrs, OutboundCidrs::Only(vec!["10.0.0.0/8".parse().unwrap()]));
    let from_list = imported("istio-0.7.list");
    assert_eq!(from_list, Capture { outbound_cidrs: OutboundCidrs::All, ..from_save });
}

#[test]
fn release_1_0_intercepts_listed_ports() {
    let capture = imported("istio-1.0.rules");
    assert_eq!(capture.inbound_ports, InboundPorts::Only(vec![9080.into(), 9443.into()]));
    assert_eq!((capture.proxy_uids, capture.proxy_gids), (vec![1337, 0], vec![1337]));
    assert_eq!(capture.quirks.self_calls, SelfCalls::EveryoneToOutbound);
}

#[test]
fn release_1_8_spares_ssh_and_does_not_spare_the_tunnel_in_self_calls() {
    let capture = imported("istio-1.8.list");
    let excluded = [22, 15020, 15021, 15090].map(PortRange::from).to_vec();
    assert!(
        matches!(&capture.inbound_ports, InboundPorts::AllExcept(ports) if merged(ports) == merged(&excluded))
    );
    assert_eq!(capture.proxy_uids, [1337]);
    assert_eq!(capture.quirks, Quirks { self_call_tunnel_exempt: false, ..Quirks::default() });
}

#[test]
fn release_1_15_has_its_dns_rules_in_output() {
    let capture = imported("istio-1.15.save");
    assert_eq!(capture.dns, Dns::Servers(vec!["10.96.0.10".parse().unwrap()]));
    let expected = Quirks { self_call_tunnel_exempt: false, udp_dns_first: true, ..Quirks::default() };
    assert_eq!(capture.quirks, expected);
}

#[test]
fn a_rule_inserted_by_hand_is_an_inbound_exclusion() {
    let golden = Golden::all().into_iter().find(|golden| golden.name == "injected-pod").unwrap();
    let by_hand = "-I PREROUTING -p tcp --dport 8888 -j RETURN\nCOMMIT\n";
    let text = golden.v4.replace("COMMIT\n", by_hand);
    let imported = import(&parse::save(&text).unwrap().loaded, None).unwrap();
    let InboundPorts::AllExcept(ports) = imported.inbound_ports else {
        panic!("{:?}", imported.inbound_ports)
    };
    assert!(ports.contains(&8888.into()), "{ports:?}");
}

#[test]
fn rules_that_no_capture_equals_are_refused_with_a_connection() {
    let golden = Golden::all().into_iter().find(|golden| golden.name == "injected-pod").unwrap();
    let by_hand = "-I ISTIO_OUTPUT 1 -p tcp --dport 80 -d 10.9.9.9/32 -j RETURN\nCOMMIT\n";
    let text = golden.v4.replace("COMMIT\n", by_hand);
    let error = import(&parse::save(&text).unwrap().loaded, None).unwrap_err();
    let ImportError::Differs { packet, rule, .. } = &error else { panic!("{error}") };
    assert_eq!((packet.destination.to_string(), packet.port), ("10.9.9.9".to_owned(), 80));
    assert!(rule.contains("10.9.9.9"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_capture_comes_back_from_its_own_command_line(capture in capture()) {
        let line = capture.command_line();
        let environment = line.environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let mut expected = capture.clone();
        if capture.inbound_mode == interceptor::capture::InboundMode::Redirect {
            // Nothing reads the mark without TPROXY, so the command line does not say it.
            expected.tproxy_mark = 1337;
        }
        prop_assert_eq!(parse_flags(&line.flags, environment.collect()).unwrap(), expected);
    }

    #[test]
    fn what_restore_is_given_reads_back_as_it_was_meant(capture in capture()) {
        let rules = interceptor::nat::generate(&capture);
        for entries in [&rules.v4, &rules.v6] {
            let parsed = parse::save(&restore::text(entries)).unwrap();
            prop_assert_eq!(parsed.loaded, Loaded::of(entries));
        }
    }
}

/// The capture of a file's rules, which has been compared with them; and its own rules, which the policy must equal.
fn imported(file: &str) -> Capture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/import").join(file);
    let parsed = parse::any(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(parsed.assumptions, Vec::<String>::new());
    let capture = import(&parsed.loaded, None).unwrap_or_else(|error| panic!("{file}: {error}"));
    let rules = [parsed.loaded, Loaded::default()];
    let classes = Classes::distinct(&tests_of(&capture, &rules));
    assert_eq!(difference(&capture, &rules, &classes), None, "{file}");
    capture
}

/// Every single port of the ranges.
fn merged(ranges: &[PortRange]) -> Vec<u16> {
    let mut ports: Vec<u16> = ranges.iter().flat_map(|range| range.first..=range.last).collect();
    ports.sort_unstable();
    ports
}
