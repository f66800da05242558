//! No list is ever cut: all of a long one is in force, and one that is too long is refused with the limit.

use std::{fmt::Write as _, fs, net::IpAddr};

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, Map, MapData, MapInfo, PerCpuHashMap};
use interceptor::{
    datapath::enforced,
    parity::{
        plan::Place,
        world::{Layout, World},
    },
};
use interceptor_ebpf::abi::{Address, Counters, EntryKey, Label, Marks, Subject};
use interceptor_tests::{Product, ebpf_runs_here};

const NETWORKS: u32 = 20_000;
const PORTS: u16 = 10_000;
const IDS: u32 = 2_000;

#[test]
fn everything_in_a_long_list_is_in_force() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    // Longer than a command line may be.
    let file = tempfile::Builder::new().suffix(".toml").tempfile()?;
    fs::write(file.path(), settings()?)?;
    let file = file.path().to_str().context("a temporary path is UTF-8")?;
    product.apply(Place::Pod, &["--config", file])?;

    let status = product.status()?;
    let cookie = status["workloads"][0]["cookie"].as_u64().context("no workload")?;
    let table = enforced(&product.state_dir(), cookie)?.context("no table")?;
    let has =
        |key: EntryKey, mark: Marks| table.entries().any(|(_, other, entry)| other == key && entry.has(mark));
    for number in [0, NETWORKS / 2, NETWORKS - 1] {
        ensure!(has(EntryKey::address(&Address::from(network(number))), Marks::EXCLUDED), "network {number}");
    }
    for number in [0, PORTS / 2, PORTS - 1] {
        ensure!(has(EntryKey::port(Subject::OutboundPort, port(number)), Marks::EXCLUDED), "port {number}");
    }
    // The first one's rules differ from all others', so it has a place of its own.
    assert_eq!(table.workload().proxy_user, id(0));
    for number in [1, IDS / 2, IDS - 1] {
        ensure!(has(EntryKey::id(Subject::User, id(number)), Marks::PROXY), "user {number}");
    }
    let count = |wanted: fn(&EntryKey, Marks) -> bool| {
        table.entries().filter(|(_, key, entry)| wanted(key, entry.marks)).count()
    };
    let networks = count(|key, marks| key.as_address().is_some() && marks.has(Marks::EXCLUDED));
    let ports =
        count(|key, marks| key.as_port(Subject::OutboundPort).is_some() && marks.has(Marks::EXCLUDED));
    let users = count(|key, marks| key.as_id(Subject::User).is_some() && marks.has(Marks::PROXY));
    assert_eq!(
        (networks, ports, users),
        (usize::try_from(NETWORKS)?, usize::from(PORTS), usize::try_from(IDS - 1)?)
    );
    world.close()
}

#[test]
fn a_list_that_is_too_long_is_refused_with_its_limit() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let groups = (1..=65).map(|group| group.to_string()).collect::<Vec<_>>().join(",");
    let mut apply = product.apply_command(Place::Pod, &["-i", "*"])?;
    let output = world.run(None, apply.env("ISTIO_OUTBOUND_OWNER_GROUPS", groups), "")?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success() && error.contains("65") && error.contains("64"), "{error}");
    ensure!(!product.state_dir().exists(), "something was left behind");
    world.close()
}

#[test]
fn one_workload_too_many_is_refused_and_leaves_nothing() -> anyhow::Result<()> {
    if !ebpf_runs_here()? {
        return Ok(());
    }
    let world = World::build(Layout { second_pod: true, ..Layout::default() })?;
    let product = Product::new(&world)?;
    product.apply(Place::Pod, &["-i", "*"])?;
    let pin = product.state_dir().join("v1/maps/LABELS");
    let capacity = MapInfo::from_pin(&pin)?.max_entries();
    let mut labels: HashMap<MapData, u64, [u8; size_of::<Label>()]> =
        Map::HashMap(MapData::from_pin(&pin)?).try_into()?;
    // Cookies that no namespace will have; the pod has the last place.
    for workload in 1..u64::from(capacity) {
        labels.insert(&(u64::MAX - workload), &[0; size_of::<Label>()], 0)?;
    }
    let before = product.status()?;
    let output = world.run(None, &mut product.apply_command(Place::SecondPod, &["-i", "*"])?, "")?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success() && error.contains("65,536 workloads"), "{error}");
    assert_eq!(product.status()?, before);
    let counters: PerCpuHashMap<MapData, u64, [u8; size_of::<Counters>()]> =
        Map::PerCpuHashMap(MapData::from_pin(product.state_dir().join("v1/maps/COUNTERS"))?).try_into()?;
    assert_eq!(counters.keys().count(), 1, "counters were left");
    assert_eq!(fs::read_dir(product.state_dir().join("v1/workloads"))?.count(), 1, "a link was left");
    world.close()
}

/// Lists no two items of which can be told by one entry.
fn settings() -> anyhow::Result<String> {
    let networks = (0..NETWORKS).map(|number| format!("\"{}/32\"", network(number)));
    let ports = (0..PORTS).map(|number| port(number).to_string());
    let ids = (0..IDS).map(|number| id(number).to_string());
    let mut settings = String::from("istio-service-cidr = \"*\"\n");
    let lists = [
        ("istio-service-exclude-cidr", networks.collect::<Vec<_>>()),
        ("istio-local-outbound-ports-exclude", ports.collect()),
        ("proxy-uid", ids.collect()),
    ];
    for (name, items) in lists {
        writeln!(settings, "{name} = [{}]", items.join(", "))?;
    }
    Ok(settings)
}

fn network(number: u32) -> IpAddr {
    let [_, b, c, d] = (2 * number).to_be_bytes();
    IpAddr::from([11, b, c, d])
}

fn port(number: u16) -> u16 {
    2 * number + 1
}

fn id(number: u32) -> u32 {
    100_000 + 2 * number
}
