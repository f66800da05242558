//! Processes that interception cannot hold, or takes for others.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::Context as _;
use interceptor::parity::{
    actor::Actor,
    plan::Place,
    proxy::OWNER,
    scenario::APP,
    world::{Layout, World},
};
use interceptor_tests::{Product, interceptor, skipped};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{enrol, findings, only, remove_group};

#[test]
fn an_application_that_runs_as_the_proxy_is_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _proxy = enrol(&world, &product)?;
    let _impostor = Actor::start(&world, &interceptor(), Place::Pod, OWNER)?;
    only(&findings(&world, &product)?, "as its user 1337");
    world.close()
}

#[test]
fn sandboxes_are_found_by_their_programs() -> anyhow::Result<()> {
    for (program, kind) in [("runsc-sandbox", "gVisor"), ("qemu-system-x86_64", "Kata Containers")] {
        let world = World::build(Layout::default())?;
        let product = Product::new(&world)?;
        let _proxy = enrol(&world, &product)?;
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let named = folder.path().join(program);
        symlink(interceptor(), &named)?;
        let mut sandbox = Actor::start(&world, &named, Place::Pod, APP.owner)?;
        // It has answered, so it is where it should be.
        sandbox.sightings()?;
        only(&findings(&world, &product)?, kind);
        world.close()?;
    }
    Ok(())
}

/// The controllers of cgroup v1 are the whole system's, so this test mounts one where only it sees it.
#[test]
fn a_process_in_a_net_cls_cgroup_is_found() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let _proxy = enrol(&world, &product)?;
    let point = tempfile::tempdir()?;
    let looked = world.namespace(Place::Peer)?.enter(|| {
        if let Err(reason) = mount_net_cls(point.path()) {
            skipped(&reason);
            return Ok(());
        }
        let mut app = Actor::start(&world, &interceptor(), Place::Pod, APP.owner)?;
        app.sightings()?;
        let group = point.path().join(world.name());
        fs::create_dir(&group)?;
        let moved = in_pod(&world, APP.owner.uid)
            .and_then(|process| Ok(fs::write(group.join("cgroup.procs"), process.to_string())?));
        let found = moved.and_then(|()| findings(&world, &product));
        drop(app);
        remove_group(&group)?;
        only(&found?, "net_cls");
        Ok(())
    });
    looked?;
    world.close()
}

fn mount_net_cls(point: &Path) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("none"), point, Some("cgroup"), MsFlags::empty(), Some("net_cls"))
        .context("net_cls cannot be mounted here")
}

/// The process of the pod that belongs to a user.
fn in_pod(world: &World, uid: u32) -> anyhow::Result<i32> {
    let pod = fs::metadata(world.namespace(Place::Pod)?.path())?;
    let is_inside = |process: &procfs::process::Process| {
        let netns = fs::metadata(format!("/proc/{}/ns/net", process.pid));
        let inode = |metadata: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(metadata);
        netns.is_ok_and(|netns| inode(&netns) == inode(&pod)) && process.uid().is_ok_and(|owner| owner == uid)
    };
    let found = procfs::process::all_processes()?.flatten().find(is_inside);
    Ok(found.context("no such process in the pod")?.pid)
}
