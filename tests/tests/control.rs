//! The agent seen from outside: control socket, metrics, and what neither may be made to do.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use interceptor::parity::{
    actor::Actor,
    plan::{Family, Host, Place},
    proxy::ProxyKind,
    scenario::APP,
    world::{Layout, World},
};
use interceptor_tests::{
    Product,
    agent::{Home, workload_text},
    interceptor,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

/// A request that is not answered by then never is.
const DEADLINE: Duration = Duration::from_secs(30);

/// Sends bytes and returns all that is answered. Whoever listens may close before it has read everything.
fn exchange<S: Read + Write>(mut stream: S, request: &[u8]) -> String {
    let _closed_early = stream.write_all(request);
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends one request to the control socket; the status and the body of the answer.
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = exchange(connect(socket)?, request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).with_context(|| format!("no status: {head:?}"))?;
    Ok((status.parse()?, body.to_owned()))
}

fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

#[test]
fn only_the_agents_user_can_open_the_socket() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let (product, home) = (Product::new(&world)?, Home::new()?);
    let agent = home.start(&world, &product)?;
    let mode = |path: &Path| -> anyhow::Result<u32> { Ok(fs::metadata(path)?.permissions().mode() & 0o7777) };
    assert_eq!(mode(&home.run())?, 0o700);
    assert_eq!(mode(&home.run().join("control.sock"))?, 0o600);
    agent.stop()?;
    world.close()
}

#[test]
fn a_folder_that_others_may_write_is_refused() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let (product, home) = (Product::new(&world)?, Home::new()?);
    fs::set_permissions(home.workloads(), fs::Permissions::from_mode(0o777))?;
    let refused = home.start(&world, &product).err().context("it started")?.to_string();
    assert!(refused.contains("could be written by others"), "{refused}");
    world.close()
}

#[test]
fn wrong_requests_are_refused_with_a_sentence() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let (product, home) = (Product::new(&world)?, Home::new()?);
    let agent = home.start(&world, &product)?;
    let socket = home.run().join("control.sock");
    let long = "x".repeat(100_000);
    for (method, path, body, status, says) in [
        ("GET", "/", "", 404, "nothing at this path"),
        ("POST", "/v1/workloads", "", 405, ""),
        ("GET", "/v1/workloads/none", "", 404, "no workload none"),
        ("DELETE", "/v1/workloads/none", "", 404, "no workload none"),
        ("PUT", "/v1/workloads/..%2F..%2Fetc%2Fpasswd", "{\"pid\": 1}", 400, "cannot name a workload"),
        ("PUT", "/v1/workloads/a", "", 400, "the declaration"),
        ("PUT", "/v1/workloads/a", "{\"pid\": -1}", 400, "the declaration"),
        ("PUT", "/v1/workloads/a", "{\"pid\": 1, \"more\": 1}", 400, "more"),
        ("PUT", "/v1/workloads/a", &long, 413, ""),
        ("POST", "/v1/workloads/a/explain", "{}", 400, "dst"),
        ("POST", "/v1/workloads/a/explain", "{\"dst\": \"10.0.0.1:80\"}", 404, "no workload a"),
    ] {
        let (answered, said) = ask(&socket, method, path, body)?;
        assert_eq!(answered, status, "{method} {path}: {said}");
        assert!(said.contains(says), "{method} {path}: {said}");
    }
    assert!(home.client(&product)?.workloads()?.is_empty());
    agent.stop()?;
    world.close()
}

/// Whatever is sent, the agent goes on serving others meanwhile and afterwards.
#[test]
fn hostile_bytes_do_no_harm() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let (product, home) = (Product::new(&world)?, Home::new()?);
    let agent = home.start(&world, &product)?;
    let (socket, at_rest) = (home.run().join("control.sock"), agent.descriptors()?);
    // Requests that are begun and never ended.
    let unfinished = (0..200)
        .map(|number| {
            let mut stream = connect(&socket)?;
            stream.write_all(&b"PUT /v1/workloads/a HTTP/1.1\r\nContent-Length: 9\r\n\r\n"[..number % 50])?;
            Ok(stream)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let bytes = proptest::collection::vec(any::<u8>(), 0..2000);
    let lines = "(GET|PUT|DELETE|POST|[A-Z]{1,9}) /[!-~]{0,60} HTTP/1.[01]\r\n([A-Za-z-]{1,20}: ?[ -~]{0,40}\r\n){0,5}\r\n[ -~]{0,200}";
    let requests = prop_oneof![bytes, lines.prop_map(String::into_bytes)];
    let mut runner = TestRunner::new(Config { failure_persistence: None, cases: 500, ..Config::default() });
    runner.run(&requests, |request| {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(&request).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        exchange(stream, b"");
        Ok(())
    })?;
    assert!(home.client(&product)?.workloads()?.is_empty());
    drop(unfinished);
    agent.wait_for_descriptors(at_rest)?;
    assert!(agent.stop()?.success());
    world.close()
}

#[test]
fn metrics_health_and_readiness_are_served() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let (product, home) = (Product::new(&world)?, Home::new()?);
    let mut service = Actor::start(&world, &interceptor(), Place::Peer, APP.owner)?;
    service.serve("service", &[([0; 4], 80).into()], &[])?;
    let mut proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    home.declare("web.toml", &workload_text(world.namespace(Place::Pod)?, ""))?;
    let agent = home.start(&world, &product)?;
    let mut app = Actor::start(&world, &interceptor(), Place::Pod, APP.owner)?;
    app.connect(0, (Host::Service(1).address(Family::V4), 80).into(), None)?;
    app.ask(0, "hello")?.map_err(|errno| anyhow::anyhow!("errno {errno}"))?;
    assert!(!proxy.sightings()?.is_empty());

    let get = |path: &str| -> anyhow::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
        Ok(exchange(TcpStream::connect(home.metrics()?)?, request.as_bytes()))
    };
    assert!(get("/healthz")?.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz")?.starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics")?;
    let workload = product.status()?["workloads"][0].clone();
    let labels = format!("workload=\"{}\",netns={}", workload["cookie"], workload["netns"]);
    for line in [
        format!("interceptor_decided_connections_total{{{labels},reason=\"outbound\"}} 1"),
        format!("interceptor_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        format!(
            "interceptor_listener_sockets{{workload=\"{}\",listener=\"outbound\"}} 2",
            workload["cookie"]
        ),
        "# UNIT interceptor_decided_connections connections".to_owned(),
        "interceptor_workloads{state=\"in_force\"} 1".to_owned(),
        "interceptor_workloads{state=\"failing\"} 0".to_owned(),
        "interceptor_hook_attached{hook=\"connect4\"} 1".to_owned(),
        "interceptor_map_entries{map=\"WORKLOADS\"} 1".to_owned(),
        "interceptor_map_capacity_entries{map=\"WORKLOADS\"} 65536".to_owned(),
        "interceptor_failed_enrolments_total 0".to_owned(),
        "# EOF".to_owned(),
    ] {
        ensure!(metrics.lines().any(|found| found == line), "{line} is missing from:\n{metrics}");
    }
    agent.stop()?;
    world.close()
}
