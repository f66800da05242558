//! Agents that are killed, restarted and replaced, and captures that change, while connections go on.
//!
//! `INTERCEPTOR_CHURN_MINUTES` and `INTERCEPTOR_CHURN_PODS` make the run longer and wider.

use std::{
    thread,
    time::{Duration, Instant},
};

use interceptor::{
    agent::Kept,
    parity::world::{Layout, Namespace, World},
};
use interceptor_tests::{
    Product,
    agent::{Home, workload_text},
    build::other_build,
    count, interceptor, tell,
    traffic::{INBOUND_PORTS, OUTBOUND_PORTS, Traffic},
};

/// Number of the first pod; smaller ones belong to the world itself.
const FIRST_POD: u8 = 3;
/// Ways to end an agent, and builds to start in its place, come in every combination within so many rounds.
const ROUNDS: usize = 10;
/// One agent in so many may finish what it has to do.
const SETTLE_EVERY: usize = 5;

#[test]
fn connections_notice_nothing_of_what_happens_to_agents() -> anyhow::Result<()> {
    let minutes: u64 = count("INTERCEPTOR_CHURN_MINUTES", 0)?;
    let pods: u8 = count("INTERCEPTOR_CHURN_PODS", 3)?;
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let builds = [other_build(&interceptor(), home.path())?, interceptor()];
    let pods = (FIRST_POD..FIRST_POD + pods)
        .map(|number| Ok((number, world.add_pod(number)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    declare(&home, &pods, 0)?;
    let mut agent = home.start(&world, &product)?;
    let mut traffic = Traffic::prepare(&world, &pods)?;

    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let mut rounds = 0;
    let connected = traffic.flow_during(|| {
        while rounds < ROUNDS || Instant::now() < end {
            rounds += 1;
            declare(&home, &pods, rounds)?;
            let build = &builds[rounds % 2];
            // The files have just changed: it dies in the middle of something, a little later each time.
            thread::sleep(Duration::from_millis((rounds as u64 * 37) % 500));
            if rounds % 3 == 0 {
                agent.stop()?;
            } else {
                agent.kill()?;
            }
            home.forget_reports()?;
            if rounds % SETTLE_EVERY != 0 {
                // It dies before it is ready, it may be while it replaces programs.
                agent = home.spawn(&world, &product, build)?;
                thread::sleep(Duration::from_millis((rounds as u64 * 531) % 3000));
                continue;
            }
            agent = home.start_build(&world, &product, build)?;
            home.wait_until(&product, |kept| {
                kept.len() == pods.len() && kept.iter().all(|kept| is(kept, rounds))
            })?;
        }
        Ok(())
    })?;
    tell(format_args!(
        "{rounds} rounds, {connected} connections: 0 failed, 0 bypassed, 0 wrong original destinations"
    ));
    assert_eq!(home.log().matches("trying again").count(), 0, "{}", home.log());
    agent.stop()?;
    world.close()
}

/// Declares another capture for each pod: another port excluded that no client uses, and the proxy's other ports.
fn declare(home: &Home, pods: &[(u8, Namespace)], round: usize) -> anyhow::Result<()> {
    for (number, pod) in pods {
        let settings = format!(
            "istio-local-outbound-ports-exclude = \"{}\"\nenvoy-port = \"{}\"\ninbound-capture-port = \"{}\"\n",
            excluded(round),
            OUTBOUND_PORTS[round % 2],
            INBOUND_PORTS[round % 2]
        );
        home.declare(&format!("pod{number}.toml"), &workload_text(pod, &settings))?;
    }
    Ok(())
}

/// Whether the capture of a round is in force.
fn is(kept: &Kept, round: usize) -> bool {
    let spec = kept.spec.as_ref();
    kept.fault.is_none()
        && spec.is_some_and(|spec| spec.capture.istio_local_outbound_ports_exclude == Some(excluded(round)))
}

fn excluded(round: usize) -> String {
    (20_000 + round % 10_000).to_string()
}
