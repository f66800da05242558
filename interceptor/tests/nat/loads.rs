//! What the real iptables makes of every golden text, and whether we print it as iptables does.

use std::{collections::BTreeMap, fmt::Write as _};

use interceptor::nat::{
    Family, Loaded, Table,
    list::{self, Count, Style},
    nft, parse, restore, save,
};

use crate::{
    golden::Golden,
    iptables::{VARIANTS, attempt, program, run, usable},
};

#[test]
fn every_golden_loads_and_is_saved_as_we_say() {
    each_loaded(|case, family, loaded, printed| {
        let (printed, _) = printed.split_once("LIST\n").unwrap();
        assert_eq!(by_table(&save::text(loaded, family)), by_table(printed), "{case}");
    });
}

#[test]
fn a_save_read_back_means_what_was_loaded() {
    each_loaded(|case, family, loaded, printed| {
        let (printed, _) = printed.split_once("LIST\n").unwrap();
        let parsed = parse::save(printed).unwrap_or_else(|error| panic!("{case}: {error}"));
        // iptables-save has one order of matches, Istio another: compare what both give when saved.
        for table in loaded.tables.keys() {
            let only = |loaded: &Loaded| {
                let mut loaded = loaded.clone();
                loaded.tables.retain(|name, _| name == table);
                save::text(&loaded, family)
            };
            assert_eq!(only(&parsed.loaded), only(loaded), "{case}");
        }
    });
}

#[test]
fn listings_are_printed_and_read_as_iptables_does() {
    each_loaded(|case, family, loaded, printed| {
        let (_, printed) = printed.split_once("LIST\n").unwrap();
        let (numeric, rest) = printed.split_once("VERBOSE\n").unwrap();
        let (verbose, names) = rest.split_once("NAMES\n").unwrap();
        let style = |names, verbose| Style { names, verbose };
        for (text, style) in
            [(numeric, style(false, false)), (verbose, style(false, true)), (names, style(true, true))]
        {
            let ours = list::text(loaded, Table::Nat, family, style, |_, _| Count::default());
            assert_eq!(ours.lines().count(), text.lines().count(), "{case}");
            for (ours, theirs) in ours.lines().zip(text.lines()) {
                assert_eq!(protocols_as_names(ours), protocols_as_names(theirs), "{case}");
            }
        }
        let parsed = parse::list(names).unwrap_or_else(|error| panic!("{case}: {error}"));
        let nat = Loaded { tables: [(Table::Nat, loaded.tables[&Table::Nat].clone())].into() };
        assert_eq!(save::text(&parsed.loaded, family), save::text(&nat, family), "{case}");
    });
}

/// Counters can be loaded, so that no traffic is needed to see how large ones are printed.
#[test]
fn counters_are_listed_as_iptables_does() {
    if !usable() {
        return;
    }
    let numbers = [
        0,
        99_999,
        100_000,
        9_999_499,
        9_999_500,
        123_456_789,
        9_999_499_999,
        9_999_500_000,
        99_999_500_000,
        9_999_499_999_999,
        9_999_500_000_000,
        123_456_789_012_345,
    ];
    let count = |place: usize| Count { packets: numbers[place], bytes: numbers[numbers.len() - 1 - place] };
    let mut text = format!("*nat\n:OUTPUT ACCEPT [{}:{}]\n", count(0).packets, count(0).bytes);
    for place in 1..numbers.len() {
        let Count { packets, bytes } = count(place);
        writeln!(text, "[{packets}:{bytes}] -A OUTPUT -p tcp -m tcp --dport {place} -j RETURN").unwrap();
    }
    text += "COMMIT\n";
    for variant in VARIANTS {
        let iptables = program(Family::V4, variant);
        let script = format!(
            "{iptables}-restore --counters; {iptables} -t nat -L OUTPUT -nv; echo SAVED; {iptables}-save"
        );
        let printed = run(&script, &text);
        let (listed, saved) = printed.split_once("SAVED\n").unwrap();
        let loaded = parse::save(saved).unwrap().loaded;
        let style = Style { names: false, verbose: true };
        let ours = list::text(&loaded, Table::Nat, Family::V4, style, |chain, place| {
            if chain.name() == "OUTPUT" { count(place) } else { Count::default() }
        });
        let ours = ours.split("\n\n").find(|chain| chain.starts_with("Chain OUTPUT")).unwrap();
        assert_eq!(protocols_as_names(ours.trim_end()), protocols_as_names(listed.trim_end()), "{iptables}");
    }
}

#[test]
fn restore_text_passes_iptables_own_check() {
    if !usable() {
        return;
    }
    for golden in Golden::all() {
        for (family, text) in [(Family::V4, &golden.v4), (Family::V6, &golden.v6)] {
            for variant in VARIANTS {
                let script = format!("{}-restore --test --noflush", program(family, variant));
                match (attempt(&script, text), &golden.refused) {
                    (Ok(_), None) => {}
                    (Err(error), Some(refused)) if error.contains(refused) => {}
                    (Ok(_), Some(_)) if text.is_empty() => {}
                    (outcome, _) => panic!("{} by {script}: {outcome:?}", golden.name),
                }
            }
        }
    }
}

/// Loads every golden text by both variants, and gives what save and the listings of nat then print.
fn each_loaded(check: impl Fn(&str, Family, &Loaded, &str)) {
    if !usable() {
        return;
    }
    for golden in Golden::all() {
        for (family, text) in [(Family::V4, &golden.v4), (Family::V6, &golden.v6)] {
            if text.is_empty() || golden.refused.is_some() {
                continue;
            }
            let rules = interceptor::nat::generate(&golden.capture().unwrap());
            let loaded = Loaded::of(rules.family(family));
            assert_eq!(&restore::text(rules.family(family)), text);
            for variant in VARIANTS {
                let iptables = program(family, variant);
                let script = format!(
                    "{iptables}-restore --noflush; {iptables}-save; echo LIST; {iptables} -t nat -nL; echo VERBOSE; \
                     {iptables} -t nat -nvL; echo NAMES; {iptables} -t nat -vL"
                );
                check(&format!("{} by {iptables}", golden.name), family, &loaded, &run(&script, text));
            }
        }
    }
}

/// The lines of each table, without comments: the variants print tables in different orders.
fn by_table(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with('*') {
            line.clone_into(&mut table);
        }
        tables.entry(table.clone()).or_default().push(line.to_owned());
    }
    tables
}

/// iptables 1.8.9 and 1.8.10 print protocols as numbers in numeric listings, no other release does; and a host may or
/// may not know names for the IPv6 loopback address and the IPv4 loopback network.
fn protocols_as_names(text: &str) -> String {
    text.replace(" 0    --", " all  --")
        .replace(" 6    --", " tcp  --")
        .replace(" 17   --", " udp  --")
        .replace("loopback/8 ", "127.0.0.0/8")
        .replace("::1            ", "localhost      ")
        .replace("localhost            ", "::1                  ")
}

#[test]
fn nft_takes_every_golden_in_one_transaction_again_and_again() {
    if !usable() {
        return;
    }
    for golden in Golden::all() {
        let text = nft::text(&interceptor::nat::generate(&golden.capture().unwrap()));
        let script = "cat > /dev/shm/nft.$$; trap 'rm /dev/shm/nft.$$' EXIT; \
                      nft -c -f /dev/shm/nft.$$; nft -f /dev/shm/nft.$$; nft list ruleset; echo AGAIN; \
                      nft -f /dev/shm/nft.$$; nft list ruleset";
        let printed = run(script, &text);
        let (first, second) = printed.split_once("AGAIN\n").unwrap();
        assert_eq!(first, second, "{}", golden.name);
        assert_eq!(
            first.matches("counter packets 0").count(),
            text.lines().filter(|line| line.starts_with("add rule")).count(),
            "{}: {first}",
            golden.name
        );
    }
}
