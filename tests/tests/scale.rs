//! Many workloads: what one more costs, in time and in memory.
//!
//! `INTERCEPTOR_SCALE_WORKLOADS` sets how many. What is seen is printed, and judged by whoever reads it: time on a busy
//! machine proves nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use interceptor::{
    agent::{Client, WorkloadSpec},
    parity::world::{Layout, Namespace, World},
};
use interceptor_tests::{Product, agent::Home, alike::pod, count, kept::Kept, tell};

#[test]
fn one_more_workload_costs_what_the_first_did() -> anyhow::Result<()> {
    let workloads = count("INTERCEPTOR_SCALE_WORKLOADS", 60)?;
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let agent = home.start(&world, &product)?;
    let client = home.client(&product)?;
    let pods = (0..workloads).map(|_| pod(&world)).collect::<anyhow::Result<Vec<_>>>()?;
    // The first brings programs and maps along.
    let first = enrol(&client, 0, &pods[0])?;
    let (before, resident) = (Kept::of(&product)?, agent.resident_kib()?);
    tell(format_args!("the first took {first:?}; {before:?}, agent {resident} KiB"));

    let times = (1..workloads)
        .map(|number| enrol(&client, number, &pods[number]))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let tenth = times.len().div_ceil(10);
    tell(format_args!(
        "the next {tenth} took {:?} each, the last {tenth} {:?}",
        median(&times[..tenth]),
        median(&times[times.len() - tenth..])
    ));
    let all: Duration = times.iter().sum();
    tell(format_args!("{} took {all:?}", times.len()));
    let (after, grown) = (Kept::of(&product)?, agent.resident_kib()?);
    tell(format_args!("{workloads} workloads: {after:?}, agent {grown} KiB"));
    tell(format_args!(
        "one more: {} bytes in the kernel, {} of the agent's",
        (after.bytes - before.bytes) / times.len(),
        (grown - resident) * 1024 / times.len()
    ));
    let (used, pause) = (agent.cpu_time()?, Duration::from_secs(if workloads >= 1000 { 60 } else { 1 }));
    thread::sleep(pause);
    tell(format_args!(
        "the agent at rest used {:?} of CPU in {pause:?}",
        agent.cpu_time()?.saturating_sub(used)
    ));

    // All of them are what they should be, also for an agent that starts with them.
    agent.kill()?;
    let start = Instant::now();
    let agent = home.start(&world, &product)?;
    tell(format_args!("restart: ready after {:?}", start.elapsed()));
    let kept = home.client(&product)?.workloads()?;
    ensure!(kept.len() == workloads && kept.iter().all(|kept| kept.fault.is_none()), "{}", home.log());
    ensure!(product.status()?["workloads"].as_array().map(Vec::len) == Some(workloads));
    let client = home.client(&product)?;
    let mut times = Vec::new();
    for kept in kept {
        let start = Instant::now();
        client.release(&kept.id)?;
        times.push(start.elapsed());
    }
    tell(format_args!(
        "released: the first tenth took {:?} each, the last {:?}",
        median(&times[..tenth]),
        median(&times[times.len() - tenth..])
    ));
    agent.stop()?;
    world.close()
}

fn enrol(client: &Client, number: usize, pod: &Namespace) -> anyhow::Result<Duration> {
    let capture = br#"{"pid": 1, "capture": {"istio-service-cidr": "*", "istio-inbound-ports": "*"}}"#;
    let spec = WorkloadSpec { netns: Some(pod.path()), pid: None, ..WorkloadSpec::from_json(capture)? };
    let start = Instant::now();
    client.enrol(&format!("pod-{number}").parse()?, &spec)?;
    Ok(start.elapsed())
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}
