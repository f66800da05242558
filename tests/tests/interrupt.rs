//! An interrupted `interceptor parity` leaves nothing behind.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use interceptor::{cgroup, datapath::BPFFS};
use interceptor_tests::interceptor;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

#[test]
fn ctrl_c_removes_every_world() -> anyhow::Result<()> {
    interrupt("INT", SIGINT)
}

#[test]
fn termination_removes_every_world() -> anyhow::Result<()> {
    interrupt("TERM", SIGTERM)
}

fn interrupt(name: &str, signal: i32) -> anyhow::Result<()> {
    let mut parity = Command::new(interceptor()).arg("parity").stdout(Stdio::null()).spawn()?;
    wait_for_a_pin(&mut parity)?;

    let sent = Command::new("kill").args(["-s", name, &parity.id().to_string()]).status()?;
    ensure!(sent.success(), "cannot send the signal");
    let status = parity.wait()?;

    // Its own exit, after it had removed everything, and not the signal's doing.
    assert_eq!((status.code(), status.signal()), (Some(128 + signal), None));
    assert_eq!(left(&parity, &cgroup::mount_point()?)?, Vec::<String>::new());
    assert_eq!(left(&parity, Path::new(BPFFS))?, Vec::<String>::new());
    Ok(())
}

/// With a state directory there is a world with everything a world can have. Nobody tells when one is made.
fn wait_for_a_pin(parity: &mut Child) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while left(parity, Path::new(BPFFS))?.is_empty() {
        if let Some(status) = parity.try_wait()? {
            bail!("parity ended before it could be interrupted: {status}");
        }
        ensure!(Instant::now() < deadline, "parity installs nothing");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What a folder holds of a process's worlds.
fn left(parity: &Child, folder: &Path) -> anyhow::Result<Vec<String>> {
    let prefix = format!("interceptor-parity-{}-", parity.id());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            names.push(name);
        }
    }
    Ok(names)
}
