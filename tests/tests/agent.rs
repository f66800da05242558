//! The node agent: workloads by file and by control socket, changes of networks, restarts, two at once.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use interceptor::{
    agent::{Kept, WorkloadId, WorkloadSpec},
    parity::{
        actor::Actor,
        plan::{Family, Host, Place},
        proxy::ProxyKind,
        scenario::APP,
        world::{Layout, World},
    },
};
use interceptor_tests::{
    Product,
    agent::{Home, of, workload_file},
    interceptor,
};

/// What the pod's proxy saw of a new connection of the pod's to a service's port 80.
fn intercepted(world: &World, proxy: &mut dyn interceptor::parity::proxy::Proxy) -> anyhow::Result<bool> {
    let mut app = Actor::start(world, &interceptor(), Place::Pod, APP.owner)?;
    let connected = app.connect(0, (Host::Service(1).address(Family::V4), 80).into(), None)?;
    anyhow::ensure!(connected.outcome.is_ok(), "cannot connect: {connected:?}");
    app.ask(0, "hello")?.map_err(|errno| anyhow::anyhow!("no answer: errno {errno}"))?;
    Ok(!proxy.sightings()?.is_empty())
}

/// The outbound ports excluded by the declaration in force.
fn excluded(kept: &[Kept]) -> Option<&str> {
    kept.first()?.spec.as_ref()?.capture.istio_local_outbound_ports_exclude.as_deref()
}

fn serve(world: &World) -> anyhow::Result<Actor> {
    let mut service = Actor::start(world, &interceptor(), Place::Peer, APP.owner)?;
    service.serve("service", &[([0; 4], 80).into()], &[])?;
    Ok(service)
}

#[test]
fn a_file_enrols_changes_and_releases_its_workload() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let _service = serve(&world)?;
    let mut proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    home.declare("web.toml", &workload_file(&world, Place::Pod, "")?)?;
    let agent = home.start(&world, &product)?;
    assert!(intercepted(&world, proxy.as_mut())?, "{}", home.log());

    home.declare("web.toml", &workload_file(&world, Place::Pod, "80")?)?;
    let before = home.wait_until(&product, |kept| excluded(kept) == Some("80"))?;
    assert!(!intercepted(&world, proxy.as_mut())?);

    // A file that is broken changes nothing.
    home.declare("web.toml", "netns = ")?;
    home.wait_until(&product, |kept| {
        assert_eq!(kept, before);
        home.log().contains("stays as it is")
    })?;

    home.withdraw("web.toml")?;
    home.wait_until(&product, <[_]>::is_empty)?;
    assert_eq!(product.status()?["workloads"].as_array().map(Vec::len), Some(0));
    assert!(agent.stop()?.success(), "{}", home.log());
    world.close()
}

#[test]
fn what_the_control_socket_enrols_outlives_the_agent() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let agent = home.start(&world, &product)?;
    let id: WorkloadId = "pod".parse()?;
    let spec = WorkloadSpec {
        netns: Some(world.namespace(Place::Pod)?.path()),
        ..WorkloadSpec::from_json(br#"{"pid": 1, "capture": {"istio-service-cidr": "*"}}"#)?
    };
    let both = home.client(&product)?.enrol(&id, &spec).expect_err("it is declared to be in two places");
    assert!(both.to_string().contains("exactly one"), "{both}");
    let spec = WorkloadSpec { pid: None, ..spec };
    let kept = home.client(&product)?.enrol(&id, &spec)?;
    assert_eq!(product.status()?["workloads"][0]["cookie"].as_u64(), kept.cookie);

    agent.kill()?;
    let status = product.status()?;
    let agent = home.start(&world, &product)?;
    assert_eq!(home.client(&product)?.workloads()?, [kept]);
    assert_eq!(product.status()?, status, "the new agent found everything as it should be");

    home.client(&product)?.release(&id)?;
    assert_eq!(product.status()?["workloads"].as_array().map(Vec::len), Some(0));
    let unknown = home.client(&product)?.release(&id).expect_err("it was released");
    assert!(unknown.to_string().contains("no workload pod"), "{unknown}");
    agent.stop()?;
    world.close()
}

#[test]
fn a_request_that_fails_leaves_nothing() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let agent = home.start(&world, &product)?;
    let spec = WorkloadSpec { netns: Some("/no/such/netns".into()), ..WorkloadSpec::default() };
    let error = home.client(&product)?.enrol(&"pod".parse()?, &spec).expect_err("there is no such namespace");
    assert!(error.to_string().contains("/no/such/netns"), "{error}");
    assert!(home.client(&product)?.workloads()?.is_empty());
    assert_eq!(std::fs::read_dir(home.run().join("enrolled"))?.count(), 0);
    assert_eq!(std::fs::read_dir(home.run().join("kept"))?.count(), 0);
    agent.stop()?;
    world.close()
}

/// A default route that appears later is mirrored, so that connections that had no route are intercepted from then on.
#[test]
fn a_new_route_is_followed() -> anyhow::Result<()> {
    let world = World::build(Layout { default_route: false, ..Layout::default() })?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let _service = serve(&world)?;
    let mut proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    home.declare("pod.toml", &workload_file(&world, Place::Pod, "")?)?;
    let _agent = home.start(&world, &product)?;

    let gateway = Host::Peer.address(Family::V4).to_string();
    let mut ip = Command::new("ip");
    let output = world.run(Some(Place::Pod), ip.args(["route", "add", "default", "via", &gateway]), "")?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The kernel tells the agent at once, but nobody tells the test when the agent has done its part.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !intercepted(&world, proxy.as_mut())? {
        assert!(Instant::now() < deadline, "{}", home.log());
    }
    world.close()
}

#[test]
fn a_namespace_that_goes_is_collected() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let _agent = home.start(&world, &product)?;
    let short_lived = interceptor::parity::world::Namespace::create()?;
    let capture = br#"{"pid": 1, "capture": {"istio-service-cidr": "*", "ipv6": "off"}}"#;
    let spec =
        WorkloadSpec { netns: Some(short_lived.path()), pid: None, ..WorkloadSpec::from_json(capture)? };
    home.client(&product)?.enrol(&"short".parse()?, &spec)?;
    assert_eq!(product.status()?["workloads"].as_array().map(Vec::len), Some(1));
    drop(short_lived);
    home.wait_until(&product, <[_]>::is_empty)?;
    assert_eq!(product.status()?["workloads"].as_array().map(Vec::len), Some(0));
    world.close()
}

#[test]
fn the_second_agent_says_who_is_the_first() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let first = home.start(&world, &product)?;
    let other_home = Home::new()?;
    let second = other_home.spawn(&world, &product, &interceptor())?;
    assert_eq!(second.wait()?.code(), Some(1));
    let log = other_home.log();
    assert!(log.contains(&format!("process {}", first.pid())), "{log}");

    let refused = product.uninstall().expect_err("an agent keeps it").to_string();
    assert!(refused.contains(&format!("process {}", first.pid())), "{refused}");
    assert!(first.stop()?.success());
    assert!(!product.state_dir().exists(), "an agent that kept nothing leaves nothing");
    world.close()
}

#[test]
fn apply_and_release_go_through_the_running_agent() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let agent = home.start(&world, &product)?;
    let path = world.namespace(Place::Pod)?.path();
    let run = home.run();
    let command = |arguments: &[&str]| -> anyhow::Result<std::process::Output> {
        let mut command = product.command(&["--run-dir"]);
        command.arg(&run).args(arguments).arg("--netns").arg(&path);
        world.run(None, &mut command, "")
    };
    let applied = command(&["apply", "-i", "*", "-o", "9999"])?;
    assert!(applied.status.success(), "{applied:?}");
    let kept = home.client(&product)?.workloads()?;
    let id = kept.first().map(|kept| kept.id.to_string()).unwrap_or_default();
    assert!(of(&kept, &id).is_some_and(|kept| kept.fault.is_none()), "{kept:?}");
    let released = command(&["release"])?;
    assert!(released.status.success(), "{released:?}");
    assert!(home.client(&product)?.workloads()?.is_empty());
    agent.stop()?;
    world.close()
}
