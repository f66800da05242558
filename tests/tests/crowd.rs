//! Two hundred workloads at once, alike to the last address and port: none hears of another.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, ensure};
use interceptor::{
    agent::{Client, WorkloadSpec},
    parity::{
        plan::Place,
        scenario::ROOT,
        world::{Layout, Namespace, World},
    },
};
use interceptor_tests::{Product, agent::Home, inside};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

const WORKLOADS: u16 = 200;
/// A pod's network, but that its eth0 leads nowhere: the same in every workload.
const NETWORK: &str = "link set lo up
link add eth0 type veth peer name gate
link set gate up
addr add 10.77.1.2/24 dev eth0
link set eth0 up
route add default via 10.77.1.1
";
const CLIENT: ([u8; 4], u16) = ([10, 77, 1, 2], 20_001);
const SERVICE: ([u8; 4], u16) = ([10, 88, 0, 1], 80);
/// Only workloads of even number leave this one alone.
const SOMETIMES: ([u8; 4], u16) = ([10, 88, 9, 1], 80);

#[test]
fn workloads_with_the_same_addresses_do_not_hear_of_each_other() -> anyhow::Result<()> {
    if inside::is_inside() {
        return inside::leave(&connect_everywhere()?);
    }
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let agent = home.start(&world, &product)?;
    let client = home.client(&product)?;
    let pods = (0..WORKLOADS).map(|_| pod(&world)).collect::<anyhow::Result<Vec<_>>>()?;
    for (number, pod) in (0..).zip(&pods) {
        enrol(&client, number, pod)?;
    }

    let mut paths = tempfile::tempfile()?;
    let all = pods.iter().map(Namespace::path).collect::<Vec<_>>();
    serde_json::to_writer(&paths, &all)?;
    io::Seek::rewind(&mut paths)?;
    let connected: u16 = inside::run(&world, Place::Pod, ROOT.owner, Stdio::from(paths))?;
    ensure!(connected == WORKLOADS, "only {connected} workloads connected");

    let status = product.status()?;
    let workloads = status["workloads"].as_array().context("no workloads")?;
    ensure!(workloads.len() == usize::from(WORKLOADS), "{} workloads", workloads.len());
    for workload in workloads {
        let port = workload["outbound_port"].as_u64().context("no port")?;
        let leaves_alone = port.is_multiple_of(2);
        let count = |reason: &str| {
            let counts = workload["connections"].as_array().into_iter().flatten();
            counts.filter(|count| count["reason"] == reason).find_map(|count| count["count"].as_u64())
        };
        assert_eq!(count("outbound"), Some(if leaves_alone { 1 } else { 2 }), "{workload}");
        assert_eq!(count("excluded-address"), leaves_alone.then_some(1), "{workload}");
    }
    agent.stop()?;
    world.close()
}

/// The port of a workload's own proxy.
fn proxy_port(number: u16) -> u16 {
    16_000 + number
}

fn pod(world: &World) -> anyhow::Result<Namespace> {
    let namespace = Namespace::create()?;
    namespace.enter(|| {
        let output = world.run(None, Command::new("ip").args(["-batch", "-"]), NETWORK)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })?;
    Ok(namespace)
}

/// Enrols a workload under a capture of its own.
fn enrol(client: &Client, number: u16, pod: &Namespace) -> anyhow::Result<()> {
    let alone = if number.is_multiple_of(2) { "10.88.9.0/24" } else { "10.88.8.0/24" };
    let capture = serde_json::json!({"pid": 1, "capture": {
        "istio-service-cidr": "*",
        "istio-service-exclude-cidr": alone,
        "envoy-port": proxy_port(number).to_string(),
    }});
    let spec = WorkloadSpec::from_json(capture.to_string().as_bytes())?;
    let spec = WorkloadSpec { netns: Some(pod.path()), pid: None, ..spec };
    client.enrol(&format!("pod-{number}").parse()?, &spec)?;
    Ok(())
}

/// Connects in every namespace from the same port to the same service; all connections are there before the first is
/// accepted. Says in how many of them the proxy heard its own client.
fn connect_everywhere() -> anyhow::Result<u16> {
    let paths: Vec<PathBuf> = serde_json::from_reader(io::stdin())?;
    let mut ends = Vec::new();
    for (number, path) in (0..).zip(&paths) {
        let connect = move || connect_in(number, path);
        let both = thread::scope(|scope| scope.spawn(connect).join());
        ends.push(both.map_err(|_panic| anyhow!("a thread panicked"))??);
    }
    let mut right = 0;
    for (number, (proxy, mut client)) in (0_u16..).zip(ends) {
        client.write_all(&number.to_be_bytes())?;
        let (mut accepted, from) = proxy.accept().with_context(|| format!("workload {number}"))?;
        let original = SockRef::from(&accepted).original_dst_v4()?.as_socket();
        let mut told = [0; 2];
        accepted.read_exact(&mut told)?;
        ensure!(u16::from_be_bytes(told) == number, "{number} hears {}", u16::from_be_bytes(told));
        ensure!(from == CLIENT.into() && original == Some(SERVICE.into()), "{number}: {from} {original:?}");
        right += 1;
    }
    Ok(right)
}

/// The proxy of one namespace, and a client of it; and another that is let go at once.
fn connect_in(number: u16, namespace: &PathBuf) -> anyhow::Result<(TcpListener, TcpStream)> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let proxy = TcpListener::bind((Ipv4Addr::UNSPECIFIED, proxy_port(number)))?;
    SockRef::from(&proxy).set_read_timeout(Some(Duration::from_secs(10)))?;
    let client = tcp()?;
    client.set_reuse_address(true)?;
    client.bind(&SocketAddr::from(CLIENT).into())?;
    client.connect(&SocketAddr::from(SERVICE).into())?;
    let other = tcp()?;
    other.set_nonblocking(true)?;
    let _in_progress = other.connect(&SocketAddr::from(SOMETIMES).into());
    Ok((proxy, client.into()))
}

fn tcp() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
}
