//! Loading, replacing and removing rules in namespaces of their own, by each of the host's tools.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, thread};

use interceptor::{
    capture::{Capture, InboundPorts},
    nat::load::{self, Force, LoadError, Loaded, Options, Variant},
};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    golden::Golden,
    iptables::{attempt_here, here, usable},
};

#[test]
fn loading_twice_changes_nothing_and_removing_leaves_nothing() {
    each_variant(|force| {
        let before = everything();
        let options = Options { force, ..Options::default() };
        for name in
            ["injected-pod", "everything", "tproxy-ports-ipv6", "dns-servers", "excluded-interfaces-ipv6"]
        {
            let capture = capture(name);
            assert_eq!(load::iptables(&capture, options).unwrap(), Loaded::New, "{name}");
            let loaded = everything();
            assert_eq!(load::iptables(&capture, options).unwrap(), Loaded::Same, "{name}");
            assert_eq!(everything(), loaded, "{name}");
            assert!(load::remove().unwrap(), "{name}");
            assert_eq!(everything(), before, "{name}");
            assert!(!load::remove().unwrap(), "{name}");
        }
    });
}

#[test]
fn other_rules_of_istio_are_replaced_only_when_asked() {
    each_variant(|force| {
        let options = Options { force, ..Options::default() };
        let reconcile = Options { reconcile: true, ..options };
        load::iptables(&capture("everything"), options).unwrap();
        let before = everything();
        let refused = load::iptables(&capture("injected-pod"), options).unwrap_err();
        assert!(matches!(refused, LoadError::OtherRules), "{refused}");
        assert_eq!(everything(), before);
        assert_eq!(load::iptables(&capture("injected-pod"), reconcile).unwrap(), Loaded::Replaced);
        let replaced = everything();
        assert!(!replaced.contains("-p tcp -j DROP"), "guard rules are left: {replaced}");
        assert!(!replaced.contains("ISTIO_TPROXY"), "{replaced}");
        assert!(load::remove().unwrap());
        load::iptables(&capture("injected-pod"), options).unwrap();
        assert_eq!(rules_only(&everything()), rules_only(&replaced));
    });
}

#[test]
fn two_rules_in_another_order_are_other_rules() {
    each_variant(|force| {
        let mut capture = capture("injected-pod");
        let options = Options { force, ..Options::default() };
        capture.inbound_ports = InboundPorts::Only(vec![80.into(), 81.into()]);
        load::iptables(&capture, options).unwrap();
        capture.inbound_ports = InboundPorts::Only(vec![81.into(), 80.into()]);
        assert!(matches!(load::iptables(&capture, options), Err(LoadError::OtherRules)));
    });
}

#[test]
fn a_failed_replacement_leaves_no_guard_rules() {
    each_variant(|force| {
        let options = Options { force, reconcile: true, ..Options::default() };
        load::iptables(&capture("injected-pod"), options).unwrap();
        let failed = load::iptables(&capture("owner-groups-64"), options).unwrap_err();
        assert!(matches!(failed, LoadError::Failed { .. }), "{failed}");
        assert!(!everything().contains("-j DROP"));
    });
}

#[test]
fn rules_of_others_stay_and_leftovers_of_other_releases_go() {
    each_variant(|force| {
        let Force::Only(variant) = force else { return };
        let iptables = match variant {
            Variant::Legacy => "iptables-legacy",
            Variant::Nft | Variant::Plain => "iptables-nft",
        };
        let foreign = "*nat\n-A PREROUTING -p tcp -m tcp --dport 9999 -j RETURN\n-A POSTROUTING -o eth9 -j MASQUERADE\nCOMMIT\n\
                       *filter\n-A INPUT -p tcp -m tcp --dport 23 -j DROP\nCOMMIT\n";
        here(&format!("{iptables}-restore --noflush"), foreign);
        let before = rules_only(&everything());
        // A release before 1.25, with its DNS rules directly in OUTPUT.
        let old = "*nat\n-N ISTIO_REDIRECT\n-N ISTIO_OUTPUT\n-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n\
                   -A PREROUTING -p tcp -j ISTIO_REDIRECT\n-A OUTPUT -p tcp -j ISTIO_OUTPUT\n\
                   -A OUTPUT -p udp --dport 53 -m owner --uid-owner 1337 -j RETURN\n\
                   -A OUTPUT -p udp --dport 53 -d 10.0.0.10/32 -j REDIRECT --to-port 15053\n\
                   -I PREROUTING 1 -i vm0 -j RETURN\nCOMMIT\n\
                   *raw\n-A OUTPUT -p udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1\nCOMMIT\n";
        here(&format!("{iptables}-restore --noflush"), old);
        assert!(load::remove().unwrap());
        // The raw rules stand without a chain of Istio's in their own table, but beside those of nat.
        assert_eq!(rules_only(&everything()), before);
    });
}

#[test]
fn nft_replaces_its_tables_and_drops_those_it_no_longer_needs() {
    if !usable() {
        return;
    }
    in_a_namespace(|| {
        load::nftables(&capture("tproxy-all")).unwrap();
        assert!(here("nft list tables", "").contains("istio-proxy-mangle"));
        load::nftables(&capture("injected-pod")).unwrap();
        assert_eq!(here("nft list tables", "").trim(), "table inet istio-proxy-nat");
        assert!(load::remove().unwrap());
        assert_eq!(here("nft list tables", "").trim(), "");
    });
}

#[test]
fn the_variant_that_has_rules_already_is_chosen() {
    if !usable() {
        return;
    }
    in_a_namespace(|| {
        here("iptables-legacy -t nat -A OUTPUT -j ACCEPT", "");
        load::iptables(&capture("injected-pod"), Options::default()).unwrap();
        assert!(here("iptables-legacy-save", "").contains("ISTIO_OUTPUT"));
        assert!(!here("nft list ruleset", "").contains("ISTIO_OUTPUT"));
    });
}

#[test]
fn in_isolation_the_hosts_lock_and_name_services_do_not_count() {
    if !usable() {
        return;
    }
    in_a_namespace(|| {
        let lock = Path::new("/run/xtables.lock");
        let ours = tempfile::NamedTempFile::new().unwrap();
        let held = hold_in_place_of(lock, &ours);
        let refused = attempt_here("iptables-legacy -w 1 -t nat -S").unwrap_err();
        assert!(refused.contains("xtables lock"), "{refused}");

        load::isolate().unwrap();
        let namespace = fs::metadata("/proc/thread-self/ns/net").unwrap();
        assert_eq!(fs::metadata(lock).unwrap().ino(), namespace.ino());
        let name_services = Path::new("/etc/nsswitch.conf");
        assert!(!name_services.exists() || fs::read(name_services).unwrap().is_empty());
        let options = Options { force: Force::Only(Variant::Legacy), ..Options::default() };
        assert_eq!(load::iptables(&capture("injected-pod"), options).unwrap(), Loaded::New);
        drop(held);
    });
}

/// Puts a file of our own where the host has its lock, for the calling thread alone, and locks it.
fn hold_in_place_of(lock: &Path, ours: &tempfile::NamedTempFile) -> Flock<fs::File> {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
    fs::OpenOptions::new().create(true).append(true).open(lock).unwrap();
    mount(Some(ours.path()), lock, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    Flock::lock(ours.reopen().unwrap(), FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error).unwrap()
}

fn each_variant(test: impl Fn(Force) + Sync) {
    if !usable() {
        return;
    }
    for variant in [Variant::Nft, Variant::Legacy] {
        in_a_namespace(|| test(Force::Only(variant)));
    }
}

/// Runs a test on a thread in a network namespace of its own, which ends with the thread.
fn in_a_namespace(test: impl FnOnce() + Send) {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                here("ip link set lo up", "");
                test();
            })
            .join()
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn capture(name: &str) -> Capture {
    let golden = Golden::all().into_iter().find(|golden| golden.name == name).unwrap();
    golden.capture().unwrap()
}

/// Everything that loading can touch, without counters and dates.
fn everything() -> String {
    let script = "for v in legacy nft; do for t in iptables ip6tables; do echo \"== $t-$v\"; $t-$v-save; done; done; \
                  nft list tables inet; ip rule; ip -6 rule; ip route show table all; ip -6 address show dev lo";
    let text = here(script, "");
    let kept = |line: &&str| !line.starts_with('#') && !is_empty_table(line);
    text.lines().filter(kept).map(|line| line.split(" [").next().unwrap().to_owned() + "\n").collect()
}

/// Once used, a table stays with its empty built-in chains.
fn is_empty_table(line: &str) -> bool {
    line.starts_with('*')
        || line.starts_with("COMMIT")
        || line.starts_with(':') && !line.starts_with(":ISTIO")
}

fn rules_only(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with("-A") || line.starts_with(":ISTIO"))
        .map(str::to_owned)
        .collect()
}
