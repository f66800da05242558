//! The CNI plugin as a runtime calls it, chained after real plugins.
//!
//! Needs the bridge, host-local and loopback plugins of Debian's `containernetworking-plugins`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, anyhow, ensure};
use interceptor::parity::{
    actor::Actor,
    plan::Place,
    proxy::ProxyKind,
    scenario::APP,
    world::{Layout, World},
};
use interceptor_tests::{Product, agent::Home, interceptor, skipped};
use serde_json::{Value, json};

/// Where distributions put CNI plugins.
const PLUGIN_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// A runtime: it keeps the list of plugins and calls them as the specification says.
struct Runtime<'w> {
    world: &'w World,
    /// A folder with all plugins.
    plugins: PathBuf,
    list: Vec<Value>,
    container: String,
    netns: PathBuf,
    /// What ADD answered last.
    result: Option<Value>,
}

/// How a plugin ended.
#[derive(Debug)]
struct Ended {
    success: bool,
    answer: Value,
}

impl<'w> Runtime<'w> {
    /// Prepares to give the world's pod one more interface, on a bridge in the peer.
    fn new(
        world: &'w World,
        product: &Product<'_>,
        home: &Home,
        ours: &Value,
    ) -> anyhow::Result<Option<Self>> {
        let Some(real) = PLUGIN_FOLDERS.iter().map(Path::new).find(|folder| folder.join("bridge").exists())
        else {
            skipped(&anyhow!("no CNI plugins here: install containernetworking-plugins"));
            return Ok(None);
        };
        let plugins = home.path().join("plugins");
        fs::create_dir(&plugins)?;
        for name in ["bridge", "host-local", "loopback"] {
            symlink(real.join(name), plugins.join(name))?;
        }
        symlink(interceptor(), plugins.join("interceptor-cni"))?;
        let ipam = json!({
            "type": "host-local", "dataDir": home.path().join("ipam"),
            "ranges": [[{"subnet": "10.99.0.0/24"}]],
        });
        let mut own = json!({
            "type": "interceptor-cni", "stateDir": product.state_dir(), "runDir": home.run(),
        });
        for (name, value) in ours.as_object().context("the plugin's settings are an object")? {
            own[name] = value.clone();
        }
        let list = vec![
            json!({"type": "loopback"}),
            json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": ipam}),
            own,
        ];
        let netns = world.namespace(Place::Pod)?.path();
        Ok(Some(Self { world, plugins, list, container: "c0ffee".to_owned(), netns, result: None }))
    }

    /// Runs the list for a new container; stops at the first plugin that fails.
    fn add(&mut self) -> anyhow::Result<Ended> {
        self.result = None;
        let mut ended = Ended { success: true, answer: Value::Null };
        for plugin in self.list.clone() {
            ended = self.call("ADD", &plugin, true)?;
            if !ended.success {
                break;
            }
            self.result = Some(ended.answer.clone());
        }
        Ok(ended)
    }

    /// Runs the list backwards, as for a container that goes.
    fn delete(&self, has_netns: bool) -> anyhow::Result<()> {
        for plugin in self.list.iter().rev() {
            let ended = self.call("DEL", plugin, has_netns)?;
            ensure!(ended.success, "{plugin}: {ended:?}");
        }
        Ok(())
    }

    /// Runs our plugin alone.
    fn ours(&self, command: &str) -> anyhow::Result<Ended> {
        self.call(command, self.list.last().context("the list is not empty")?, true)
    }

    fn call(&self, command: &str, plugin: &Value, has_netns: bool) -> anyhow::Result<Ended> {
        let mut configuration = plugin.clone();
        configuration["cniVersion"] = json!(if command == "STATUS" { "1.1.0" } else { "1.0.0" });
        configuration["name"] = json!("pods");
        if let Some(result) = &self.result {
            configuration["prevResult"] = result.clone();
        }
        let name = plugin["type"].as_str().context("a plugin has a type")?;
        let mut process = Command::new(self.plugins.join(name));
        let netns = if has_netns { self.netns.to_string_lossy().into_owned() } else { String::new() };
        let environment = BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", self.container.clone()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", if name == "loopback" { "lo" } else { "net1" }.to_owned()),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web".to_owned()),
            ("CNI_PATH", self.plugins.to_string_lossy().into_owned()),
            ("PATH", std::env::var("PATH")?),
        ]);
        process.env_clear().envs(environment);
        // The bridge is made where the runtime is: in the peer, and not on this machine.
        let output = self.world.run(Some(Place::Peer), &mut process, &configuration.to_string())?;
        let answer = match output.stdout.as_slice() {
            b"" => Value::Null,
            answer => serde_json::from_slice(answer)
                .with_context(|| format!("{name} answered {:?}", String::from_utf8_lossy(answer)))?,
        };
        Ok(Ended { success: output.status.success(), answer })
    }
}

fn world() -> anyhow::Result<World> {
    World::build(Layout::default())
}

fn injected() -> Value {
    json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"sidecar.istio.io/status": "{}"}}})
}

/// Whether the pod's very first connection arrives at its proxy.
fn first_connection_is_intercepted(world: &World) -> anyhow::Result<bool> {
    let mut proxy = ProxyKind::Builtin.start(world, &interceptor(), Place::Pod)?;
    let mut service = Actor::start(world, &interceptor(), Place::Peer, APP.owner)?;
    service.serve("service", &[([0; 4], 8080).into()], &[])?;
    let mut app = Actor::start(world, &interceptor(), Place::Pod, APP.owner)?;
    let connected = app.connect(0, ([10, 99, 0, 1], 8080).into(), None)?;
    ensure!(connected.outcome.is_ok(), "{connected:?}");
    app.ask(0, "hello")?.map_err(|errno| anyhow::anyhow!("errno {errno}"))?;
    Ok(!proxy.sightings()?.is_empty())
}

#[test]
fn a_pod_with_a_sidecar_is_intercepted_from_its_first_connection() -> anyhow::Result<()> {
    let world = world()?;
    let (product, home) = (Product::new(&world)?, Home::new()?);
    let Some(mut runtime) = Runtime::new(&world, &product, &home, &injected())? else { return world.close() };
    let agent = home.start(&world, &product)?;
    let ended = runtime.add()?;
    ensure!(ended.success, "{ended:?}; {}", home.log());
    assert_eq!(
        ended.answer["ips"][0]["address"].as_str().map(|address| address.starts_with("10.99.0.")),
        Some(true)
    );
    assert!(first_connection_is_intercepted(&world)?, "{}", home.log());
    let check = runtime.ours("CHECK")?;
    assert!(check.success, "{check:?}");
    assert!(runtime.ours("STATUS")?.success);

    runtime.delete(true)?;
    assert_eq!(product.status()?["workloads"].as_array().map(Vec::len), Some(0));
    let check = runtime.ours("CHECK")?;
    assert_eq!(check.answer["code"], 101, "{check:?}");
    runtime.delete(true)?;
    runtime.delete(false)?;
    agent.stop()?;
    world.close()
}

#[test]
fn a_pod_without_a_sidecar_is_left_alone() -> anyhow::Result<()> {
    let world = world()?;
    let (product, home) = (Product::new(&world)?, Home::new()?);
    let plain = json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {}}});
    let Some(mut runtime) = Runtime::new(&world, &product, &home, &plain)? else { return world.close() };
    let agent = home.start(&world, &product)?;
    let ended = runtime.add()?;
    ensure!(ended.success, "{ended:?}");
    assert!(!first_connection_is_intercepted(&world)?);
    runtime.delete(true)?;
    agent.stop()?;
    world.close()
}

#[test]
fn without_an_agent_nothing_is_added_but_everything_is_deleted() -> anyhow::Result<()> {
    let world = world()?;
    let (product, home) = (Product::new(&world)?, Home::new()?);
    let Some(mut runtime) = Runtime::new(&world, &product, &home, &injected())? else { return world.close() };
    let refused = runtime.add()?;
    assert_eq!((refused.success, &refused.answer["code"]), (false, &json!(11)), "{refused:?}");
    let status = runtime.ours("STATUS")?;
    assert_eq!(status.answer["code"], 50, "{status:?}");
    runtime.delete(true)?;

    let agent = home.start(&world, &product)?;
    ensure!(runtime.add()?.success, "{}", home.log());
    agent.kill()?;
    runtime.delete(true)?;
    assert_eq!(product.status()?["workloads"].as_array().map(Vec::len), Some(0));
    // The next agent does not bring it back.
    let agent = home.start(&world, &product)?;
    assert!(home.client(&product)?.workloads()?.is_empty());
    agent.stop()?;
    world.close()
}

#[test]
fn versions_and_errors_have_the_form_of_the_specification() -> anyhow::Result<()> {
    let world = world()?;
    let (product, home) = (Product::new(&world)?, Home::new()?);
    let Some(runtime) = Runtime::new(&world, &product, &home, &injected())? else { return world.close() };
    let version = runtime.ours("VERSION")?;
    assert!(version.success);
    assert!(
        version.answer["supportedVersions"].as_array().is_some_and(|spoken| spoken.contains(&json!("1.1.0")))
    );
    // Not chained: there is no previous result.
    let alone = runtime.ours("ADD")?;
    assert_eq!((alone.success, &alone.answer["code"]), (false, &json!(7)), "{alone:?}");
    assert_eq!(alone.answer["cniVersion"], "1.0.0");
    assert!(alone.answer["msg"].as_str().is_some_and(|message| message.contains("prevResult")));
    world.close()
}
