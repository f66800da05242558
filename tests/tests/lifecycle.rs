//! Putting pods under interception and taking them out again.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::{
    maps::{MapInfo, loaded_maps},
    programs::{links::LinkInfo, loaded_links, loaded_programs},
};
use interceptor::parity::{
    actor::{Actor, Owner},
    catalogue::{INJECTED, SERVICE_PORTS},
    plan::{Family, Host, Place},
    proxy::{Proxy, ProxyKind},
    scenario::APP,
    world::{Layout, World},
};
use interceptor_tests::{Product, interceptor};
use serde_json::Value;

/// A service of the peer, and what it takes to see whether a pod's connections to it are intercepted.
struct Probe<'w> {
    world: &'w World,
    _service: Actor,
}

impl<'w> Probe<'w> {
    fn start(world: &'w World) -> anyhow::Result<Self> {
        let mut service = Actor::start(world, &interceptor(), Place::Peer, APP.owner)?;
        service.serve("service", &SERVICE_PORTS.map(|port| ([0; 4], port).into()), &[])?;
        Ok(Self { world, _service: service })
    }

    fn proxy(&self, pod: Place) -> anyhow::Result<Box<dyn Proxy>> {
        ProxyKind::Builtin.start(self.world, &interceptor(), pod)
    }

    /// Whether a new connection of the pod's arrives at its proxy.
    fn is_intercepted(&self, pod: Place, proxy: &mut dyn Proxy) -> anyhow::Result<bool> {
        let mut app = Actor::start(self.world, &interceptor(), pod, APP.owner)?;
        let connected = app.connect(0, (Host::Service(1).address(Family::V4), 80).into(), None)?;
        ensure!(connected.outcome.is_ok(), "cannot connect: {connected:?}");
        app.ask(0, "hello")?.map_err(|errno| anyhow::anyhow!("no answer: errno {errno}"))?;
        Ok(!proxy.sightings()?.is_empty())
    }
}

#[test]
fn applying_twice_changes_nothing() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    product.apply(Place::Pod, &INJECTED)?;
    let before = product.status()?;
    product.apply(Place::Pod, &INJECTED)?;
    assert_eq!(product.status()?, before);
    world.close()
}

#[test]
fn releasing_one_pod_leaves_the_other_intercepted() -> anyhow::Result<()> {
    let world = World::build(Layout { second_pod: true, ..Layout::default() })?;
    let product = Product::new(&world)?;
    let probe = Probe::start(&world)?;
    product.apply(Place::Pod, &INJECTED)?;
    product.apply(Place::SecondPod, &INJECTED)?;
    let mut proxies =
        [(Place::Pod, probe.proxy(Place::Pod)?), (Place::SecondPod, probe.proxy(Place::SecondPod)?)];
    let mut seen = |step: &str, expected: [bool; 2]| -> anyhow::Result<()> {
        for ((pod, proxy), is_intercepted) in proxies.iter_mut().zip(expected) {
            assert_eq!(probe.is_intercepted(*pod, proxy.as_mut())?, is_intercepted, "{pod} after {step}");
        }
        Ok(())
    };

    seen("enrolling both", [true, true])?;
    product.release(Place::Pod)?;
    seen("releasing one", [false, true])?;
    product.apply(Place::Pod, &INJECTED)?;
    seen("enrolling it again", [true, true])?;
    product.uninstall()?;
    seen("uninstalling", [false, false])?;
    world.close()
}

/// A proxy that listened before interception began gets the connections too.
#[test]
fn a_proxy_older_than_the_interception_is_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let probe = Probe::start(&world)?;
    let mut proxy = probe.proxy(Place::Pod)?;
    assert!(!probe.is_intercepted(Place::Pod, proxy.as_mut())?);
    product.apply(Place::Pod, &INJECTED)?;
    assert!(probe.is_intercepted(Place::Pod, proxy.as_mut())?);

    let mut client = Actor::start(&world, &interceptor(), Place::Peer, APP.owner)?;
    let connected = client.connect(0, (Host::Pod.address(Family::V4), 8080).into(), None)?;
    assert_eq!(connected.outcome, Ok(()));
    client.ask(0, "hello")?.map_err(|errno| anyhow::anyhow!("no end: errno {errno}"))?;
    assert_eq!(proxy.sightings()?.len(), 1);
    world.close()
}

#[test]
fn uninstalling_leaves_nothing() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let (routes, cgroups) = (routes(&world)?, folders(world.cgroup())?);
    product.apply(Place::Pod, &INJECTED)?;
    let ids = Ids::of(&product)?;
    assert!(!ids.links.is_empty() && !ids.programs.is_empty() && !ids.maps.is_empty(), "{ids:?}");

    product.uninstall()?;

    assert!(!product.state_dir().exists());
    ids.wait_until_gone()?;
    assert_eq!(self::routes(&world)?, routes);
    assert_eq!(folders(world.cgroup())?, cgroups);
    assert!(product.status()?["hooks"].as_array().is_some_and(Vec::is_empty));
    // A second time there is nothing to do, which is no failure.
    product.uninstall()?;
    world.close()
}

#[test]
fn a_namespace_that_was_never_enrolled_cannot_be_released() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let error = product.release(Place::Pod).expect_err("nothing was applied").to_string();
    assert!(error.contains("not under interception"), "{error}");
    assert!(!product.state_dir().exists());
    world.close()
}

#[test]
fn without_rights_apply_says_which_and_leaves_nothing() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let apply = product.apply_command(Place::Pod, &INJECTED)?;
    let mut unprivileged =
        world.command(&interceptor(), Place::Peer, Owner { uid: 1000, gid: 1000 }, apply.get_program())?;
    let output = world.run(None, unprivileged.args(apply.get_args()), "")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(!stderr.trim().is_empty() && stderr.lines().count() == 1, "{stderr}");
    assert!(!product.state_dir().exists());
    world.close()
}

/// The kernel's numbers for what the product has installed.
#[derive(Debug)]
struct Ids {
    links: BTreeSet<u32>,
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Ids {
    /// Links and maps are those pinned in the state directory, programs those the links hold.
    fn of(product: &Product<'_>) -> anyhow::Result<Self> {
        let mut ids = Self { links: BTreeSet::new(), programs: BTreeSet::new(), maps: BTreeSet::new() };
        for pin in files(&product.state_dir())? {
            if let Ok(map) = MapInfo::from_pin(&pin) {
                ids.maps.insert(map.id());
            }
        }
        let status = product.status()?;
        for hook in status["hooks"].as_array().context("status lists hooks")? {
            ids.links.extend(number(&hook["link"]));
            ids.programs.extend(number(&hook["program"]));
        }
        Ok(ids)
    }

    /// The kernel frees BPF objects some time after their last user is gone, and tells nobody.
    fn wait_until_gone(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.left();
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "still there: {left:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn left(&self) -> Vec<String> {
        let links = loaded_links().filter_map(Result::ok).map(|link| LinkInfo::id(&link));
        let programs = loaded_programs().filter_map(Result::ok).map(|program| program.id());
        let maps = loaded_maps().filter_map(Result::ok).map(|map| map.id());
        let links = links.filter(|id| self.links.contains(id)).map(|id| format!("link {id}"));
        let programs = programs.filter(|id| self.programs.contains(id)).map(|id| format!("program {id}"));
        let maps = maps.filter(|id| self.maps.contains(id)).map(|id| format!("map {id}"));
        links.chain(programs).chain(maps).collect()
    }
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| number.try_into().ok())
}

/// Every route of the pod in every table, both families.
fn routes(world: &World) -> anyhow::Result<String> {
    let mut all = String::new();
    for family in ["-4", "-6"] {
        let mut ip = Command::new("ip");
        let output = world.run(Some(Place::Pod), ip.args([family, "route", "show", "table", "all"]), "")?;
        ensure!(output.status.success(), "ip route failed");
        all += &String::from_utf8(output.stdout)?;
    }
    Ok(all)
}

/// Names of the folders in a cgroup.
fn folders(cgroup: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Every file below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(self::files(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}
