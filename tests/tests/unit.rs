//! The systemd unit: with exactly the capabilities it leaves the agent, everything works, and none is left without need.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use interceptor::{
    agent::WorkloadSpec,
    parity::{
        actor::Actor,
        plan::{Family, Host, Place},
        proxy::{Proxy, ProxyKind},
        scenario::APP,
        world::{Layout, Namespace, World},
    },
};
use interceptor_tests::{
    Product,
    agent::{Agent, Home, of, workload_text},
    build::other_build,
    interceptor, tell,
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs};

/// What nobody tells the end of is looked at again for so long.
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn with_the_units_capabilities_everything_works() -> anyhow::Result<()> {
    everything_works(capabilities()?)
}

#[test]
fn without_any_one_of_them_something_does_not_work() -> anyhow::Result<()> {
    for (name, one) in capabilities()?.iter_names() {
        let outcome = everything_works(capabilities()?.difference(one));
        let reason = outcome.err().with_context(|| format!("CAP_{name} is not needed"))?;
        tell(format_args!("without CAP_{name}: {reason:#}"));
    }
    Ok(())
}

/// What the unit's `CapabilityBoundingSet=` names.
fn capabilities() -> anyhow::Result<CapabilitySet> {
    let unit = include_str!("../../packaging/interceptor-agent.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit bounds no capabilities")?.split_whitespace();
    names
        .map(|name| {
            let capability = name.strip_prefix("CAP_").and_then(CapabilitySet::from_name);
            capability.with_context(|| format!("the unit names {name}"))
        })
        .collect()
}

/// Everything an agent does, done by one that is left these capabilities.
fn everything_works(capabilities: CapabilitySet) -> anyhow::Result<()> {
    let world = World::build(Layout { default_route: false, ..Layout::default() })?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let mut service = Actor::start(&world, &interceptor(), Place::Peer, APP.owner)?;
    service.serve("service", &[([0; 4], 80).into()], &[])?;
    // Its listeners are older than the interception, and another user's.
    let mut proxy = ProxyKind::Builtin.start(&world, &interceptor(), Place::Pod)?;
    let pod = world.namespace(Place::Pod)?;
    home.declare("pod.toml", &workload_text(pod, ""))?;
    let start = |build: &Path| with(capabilities, || home.start_build(&world, &product, build));

    let agent = start(&interceptor())?;
    let kept = home.client(&product)?.workloads()?;
    let fault = of(&kept, "pod").context("the file was not read")?.fault.as_ref();
    ensure!(fault.is_none(), "{fault:?}");
    route(&world)?;
    wait_until_intercepted(&world, proxy.as_mut()).context("a new route is not followed")?;

    let other = other_build(&interceptor(), home.path())?;
    agent.kill()?;
    let agent = start(&other)?;
    ensure!(home.log().contains("in place"), "no program was replaced: {}", home.log());
    wait_until_intercepted(&world, proxy.as_mut()).context("the other build does not intercept")?;

    let short_lived = Namespace::create()?;
    let place = format!(r#"{{"netns": "{}", "capture": {{"ipv6": "off"}}}}"#, short_lived.path().display());
    let spec = WorkloadSpec::from_json(place.as_bytes())?;
    home.client(&product)?.enrol(&"short".parse()?, &spec)?;
    drop(short_lived);
    home.withdraw("pod.toml")?;
    home.wait_until(&product, |kept| of(kept, "pod").is_none())?;
    let deadline = Instant::now() + DEADLINE;
    while product.status()?["workloads"].as_array().map(Vec::len) != Some(0) {
        ensure!(Instant::now() < deadline, "not released or collected: {}", home.log());
    }
    ensure!(agent.stop()?.success(), "{}", home.log());
    world.close()
}

/// Starts an agent that has these capabilities and can get no others, as systemd would.
fn with(
    capabilities: CapabilitySet,
    start: impl FnOnce() -> anyhow::Result<Agent> + Send,
) -> anyhow::Result<Agent> {
    let start = || {
        // They are the thread's, and of the commands it starts.
        for (name, other) in CapabilitySet::all().difference(capabilities).iter_names() {
            remove_capability_from_bounding_set(other).with_context(|| format!("cannot give up {name}"))?;
        }
        set_no_new_privs(true)?;
        start()
    };
    std::thread::scope(|scope| scope.spawn(start).join()).map_err(|_panic| anyhow!("it panicked"))?
}

fn route(world: &World) -> anyhow::Result<()> {
    let gateway = Host::Peer.address(Family::V4).to_string();
    let mut ip = Command::new("ip");
    let output = world.run(Some(Place::Pod), ip.args(["route", "add", "default", "via", &gateway]), "")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The kernel tells the agent of a change at once, but nobody tells us when the agent has done its part.
fn wait_until_intercepted(world: &World, proxy: &mut dyn Proxy) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut app = Actor::start(world, &interceptor(), Place::Pod, APP.owner)?;
    for id in 0.. {
        let connected = app.connect(id, (Host::Service(1).address(Family::V4), 80).into(), None)?;
        ensure!(connected.outcome.is_ok(), "{connected:?}");
        app.ask(id, "hello")?.map_err(|errno| anyhow!("no answer: errno {errno}"))?;
        if !proxy.sightings()?.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "not intercepted");
    }
    Ok(())
}
