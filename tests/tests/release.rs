//! `release` leaves nothing of nat rules, whichever configuration they are from, and everything of others.

use anyhow::ensure;
use interceptor::parity::world::{Layout, World};
use interceptor_tests::shell;

/// Every kind of rule, and a mark and a table that nothing but these flags tells.
const FIRST: &str = "--ipv6=on -i 10.0.0.0/8 -b '*' -k vm0 -c net1 -m TPROXY -t 42 -r 77 \
                     --redirect-dns --capture-all-dns --drop-invalid";
const SECOND: &str = "--ipv6=off -i '*' -b 80";

/// Rules, tables, routing rules, routes and addresses of a namespace, without counters and empty tables.
const EVERYTHING: &str = "for v in legacy nft; do for f in iptables ip6tables; do
        $f-$v-save 2>/dev/null | sed -n \"s/\\[.*//; s/^\\(-A\\|:ISTIO\\)/$f-$v &/p\"
    done; done
    nft list tables inet; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip address show dev lo";

#[test]
fn of_iptables_nft_nothing_is_left() -> anyhow::Result<()> {
    nothing_is_left("--backend=iptables --force-iptables-binary=nft --reconcile", "iptables-nft")
}

#[test]
fn of_iptables_legacy_nothing_is_left() -> anyhow::Result<()> {
    nothing_is_left("--backend=iptables --force-iptables-binary=legacy --reconcile", "iptables-legacy")
}

#[test]
fn of_nft_nothing_is_left() -> anyhow::Result<()> {
    nothing_is_left("--backend=nft", "iptables-nft")
}

fn nothing_is_left(backend: &str, foreign: &str) -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    shell(&world, &format!("{foreign} -t nat -A PREROUTING -p tcp --dport 9999 -j RETURN"))?;
    let before = shell(&world, EVERYTHING)?;
    for flags in [FIRST, SECOND] {
        shell(&world, &format!("\"$0\" apply {backend} {flags}"))?;
        let loaded = shell(&world, EVERYTHING)?;
        ensure!(loaded != before, "{flags}: nothing is loaded");
    }
    // The second configuration names neither mark nor table of the first.
    shell(&world, "\"$0\" release")?;
    let after = shell(&world, EVERYTHING)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    world.close()
}
