//! Agents that are killed, restarted and replaced while connections go on; namespaces that come and go.
//!
//! `INTERCEPTOR_CHURN_ROUNDS` and `INTERCEPTOR_CHURN_NAMESPACES` make the runs longer.

use std::{
    env, fs,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, ensure};
use interceptor::{
    agent::WorkloadSpec,
    parity::{
        actor::{
            Actor,
            protocol::{Churn, Churned, Tallied},
        },
        plan::Place,
        proxy,
        scenario::APP,
        world::{Layout, Namespace, World},
    },
};
use interceptor_tests::{
    Product,
    agent::{Home, of, workload_file},
    build::other_build,
    interceptor,
};

const PODS: [Place; 2] = [Place::Pod, Place::SecondPod];
/// Connections that a client makes before it looks whether that is enough.
const BATCH: u32 = 200;

#[test]
fn connections_notice_nothing_of_what_happens_to_agents() -> anyhow::Result<()> {
    let rounds = count("INTERCEPTOR_CHURN_ROUNDS", 3)?;
    let world = World::build(Layout { second_pod: true, ..Layout::default() })?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let builds = [other_build(&interceptor(), home.path())?, interceptor()];
    for pod in PODS {
        home.declare(&format!("{pod}.toml"), &workload_file(&world, pod, "")?)?;
    }
    let mut agent = home.start(&world, &product)?;
    let listen = SocketAddr::from(([0; 4], proxy::OUTBOUND_PORT));
    let mut proxies = Vec::new();
    let mut clients = Vec::new();
    for pod in PODS {
        let mut proxy = Actor::start(&world, &interceptor(), pod, proxy::OWNER)?;
        proxy.tally(listen)?;
        proxies.push(proxy);
        clients.push(Actor::start(&world, &interceptor(), pod, APP.owner)?);
    }

    let enough = AtomicBool::new(false);
    let connected = thread::scope(|scope| -> anyhow::Result<Vec<u32>> {
        let enough = &enough;
        let running: Vec<_> = clients
            .iter_mut()
            .zip(1..)
            .map(|(client, number)| {
                let first = SocketAddr::from(([10, 88, number, 1], 1));
                scope.spawn(move || connect_until(client, first, enough))
            })
            .collect();
        let mut disturb = || -> anyhow::Result<()> {
            for round in 0..rounds {
                // A port that no client uses is excluded, another one each time.
                let excluded = (20_000 + round).to_string();
                for pod in PODS {
                    home.declare(&format!("{pod}.toml"), &workload_file(&world, pod, &excluded)?)?;
                }
                // With the file just changed it dies in the middle of something, more often than not.
                if round % 2 == 0 {
                    agent.kill()?;
                } else {
                    agent.stop()?;
                }
                agent = home.start_build(&world, &product, &builds[round % 2])?;
                home.wait_until(&product, |kept| {
                    PODS.iter().all(|pod| {
                        let spec = of(kept, &pod.to_string()).and_then(|kept| kept.spec.as_ref());
                        spec.is_some_and(|spec| {
                            spec.capture.istio_local_outbound_ports_exclude.as_ref() == Some(&excluded)
                        })
                    })
                })?;
            }
            Ok(())
        };
        let disturbed = disturb();
        enough.store(true, Ordering::Relaxed);
        let mut connected = Vec::new();
        for client in running {
            connected.push(client.join().expect("a client's thread panicked")?);
        }
        disturbed.map(|()| connected)
    })?;

    for (proxy, connected) in proxies.iter_mut().zip(connected) {
        assert_eq!(proxy.tallied()?, Tallied { right: connected, ..Tallied::default() });
    }
    assert_eq!(home.log().matches("trying again").count(), 0, "{}", home.log());
    world.close()
}

#[test]
fn short_lived_namespaces_leave_nothing() -> anyhow::Result<()> {
    let namespaces = count("INTERCEPTOR_CHURN_NAMESPACES", 60)?;
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let agent = home.start(&world, &product)?;
    let at_rest = agent.descriptors()?;
    let pass = |namespaces: usize| -> anyhow::Result<()> {
        for number in 0..namespaces {
            let namespace = Namespace::create()?;
            let capture = br#"{"pid": 1, "capture": {"istio-service-cidr": "*", "ipv6": "off"}}"#;
            let spec = WorkloadSpec {
                netns: Some(namespace.path()),
                pid: None,
                ..WorkloadSpec::from_json(capture)?
            };
            home.client(&product)?.enrol(&format!("short-{number}").parse()?, &spec)?;
        }
        home.wait_until(&product, <[_]>::is_empty)?;
        agent.wait_for_descriptors(at_rest)
    };
    pass(5)?;
    pass(namespaces)?;
    let status = product.status()?;
    assert_eq!(status["workloads"].as_array().map(Vec::len), Some(0), "{status:#}");
    assert_eq!(fs::read_dir(product.state_dir().join("v1/workloads"))?.count(), 0);
    assert_eq!(fs::read_dir(home.run().join("kept"))?.count(), 0);
    assert_eq!(fs::read_dir(home.run().join("enrolled"))?.count(), 0);
    world.close()
}

/// Connects until told that it is enough; says how often. A connection that fails is an error.
fn connect_until(client: &mut Actor, first: SocketAddr, enough: &AtomicBool) -> anyhow::Result<u32> {
    let mut connected = 0;
    while !enough.load(Ordering::Relaxed) {
        let churned = client.churn(Churn { first, addresses: 250, count: BATCH })?;
        ensure!(churned == Churned { connected: BATCH, failed: None }, "{churned:?}");
        connected += BATCH;
    }
    Ok(connected)
}

fn count(variable: &str, usual: usize) -> anyhow::Result<usize> {
    match env::var(variable) {
        Ok(count) => count.parse().with_context(|| format!("{variable} is no number")),
        Err(_) => Ok(usual),
    }
}
