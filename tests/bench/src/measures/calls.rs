//! Single system calls of processes that nobody intercepts, with our programs attached to their cgroup and without;
//! and of processes inside a workload.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use interceptor::parity::{
    backend::{Backend, state_dir},
    catalogue::INJECTED,
    plan::Place,
    scenario::APP,
    world::{Layout, World},
};

use crate::{
    bench::{Bench, Label},
    regime::Regime,
    worker::{
        Worker,
        protocol::{Calls, Request},
    },
};

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let start =
        |place| Worker::start(&world, &bench.interceptor, place, APP.owner, &bench.processors.clients);
    // Both are in the cgroup our programs are attached to; only the pod is a workload.
    let mut workers = [("bystander", start(Place::Peer)?), ("workload", start(Place::Pod)?)];
    for round in 0..bench.effort.rounds {
        bench.tell(format!("calls, round {round}"));
        Backend::Ebpf.apply(&world, &bench.interceptor, Place::Pod, &INJECTED)?;
        time(bench, &mut workers, Regime::Ebpf, round)?;
        uninstall(bench, &world)?;
        time(bench, &mut workers, Regime::Direct, round)?;
    }
    world.close()
}

fn time(
    bench: &mut Bench,
    workers: &mut [(&str, Worker); 2],
    regime: Regime,
    round: u32,
) -> anyhow::Result<()> {
    for (case, worker) in workers {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let milliseconds = bench.effort.slice_milliseconds;
        let calls: Calls = worker.ask(&Request::Calls { address, milliseconds })?;
        let Calls { connect, accept, getsockopt, getpeername, getsockname } = calls;
        let values = [
            ("connect_ns", connect),
            ("accept_ns", accept),
            ("getsockopt_ns", getsockopt),
            ("getpeername_ns", getpeername),
            ("getsockname_ns", getsockname),
        ];
        bench.record(&Label { measure: "calls", case, size: 0, regime, round }, values);
    }
    Ok(())
}

fn uninstall(bench: &Bench, world: &World) -> anyhow::Result<()> {
    let mut command = std::process::Command::new(&bench.interceptor);
    command.arg("--state-dir").arg(state_dir(world)).arg("uninstall");
    let output = world.run(None, &mut command, "").context("cannot take our programs away again")?;
    ensure!(
        output.status.success(),
        "interceptor uninstall failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
