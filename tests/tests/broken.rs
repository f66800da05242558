//! Environments that lack something: one clear sentence each, and nothing left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, bail, ensure};
use interceptor::{
    cgroup,
    datapath::BPFFS,
    parity::{
        catalogue::INJECTED,
        plan::Place,
        world::{Layout, World},
    },
};
use interceptor_tests::{Product, ebpf_runs_here, foreign::Program, interceptor, skipped};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

/// Runs `apply` for the world's pod where `spoil` has taken something away. What a thread takes away from itself (mounts,
/// capabilities) is gone for the commands it starts, and comes back with the end of the thread.
fn apply(
    world: &World,
    backend: &str,
    spoil: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<Output> {
    let product = Product::new(world)?;
    // Inside of the pod, since entering it would take a right of its own.
    world.namespace(Place::Pod)?.enter(|| {
        spoil()?;
        let mut command = Command::new(interceptor());
        command.arg("--state-dir").arg(product.state_dir()).arg("apply").args(INJECTED);
        command.args(["--backend", backend]).arg("--cgroup").arg(world.cgroup());
        command.output().context("cannot run the command")
    })
}

/// Requires a refusal of one line with all these words, and no trace of an installation.
fn is_refusal(world: &World, output: &Output, words: &[&str]) -> anyhow::Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
    ensure!(output.status.code() == Some(1), "{}: {stderr}", output.status);
    let [line] = lines.as_slice() else { bail!("not one sentence: {stderr}") };
    ensure!(line.starts_with("error: "), "no error: {line}");
    for word in words {
        ensure!(line.contains(word), "{word} is not named: {line}");
    }
    ensure!(!interceptor::parity::backend::state_dir(world).exists(), "the state folder was left behind");
    let rules = rules(world)?;
    ensure!(!rules.contains("ISTIO"), "rules were left behind: {rules}");
    Ok(())
}

fn rules(world: &World) -> anyhow::Result<String> {
    let output = world.run(Some(Place::Pod), &mut Command::new("iptables-nft-save"), "")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn refused(
    backend: &str,
    words: &[&str],
    spoil: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let output = apply(&world, backend, spoil)?;
    is_refusal(&world, &output, words)?;
    world.close()
}

/// Gives the calling thread mounts of its own.
fn own_mounts() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
}

fn unmount(point: &Path) -> anyhow::Result<()> {
    umount2(point, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", point.display()))
}

fn without(capability: CapabilitySet) -> anyhow::Result<()> {
    remove_capability_from_bounding_set(capability).context("cannot give up a capability")
}

/// The mount points of cgroup2, which other tests go on using meanwhile.
fn unmount_cgroup2() -> anyhow::Result<()> {
    own_mounts()?;
    while let Ok(point) = cgroup::mount_point() {
        unmount(&point)?;
    }
    Ok(())
}

#[test]
fn without_cgroup2_ebpf_says_so() -> anyhow::Result<()> {
    refused("ebpf", &["cgroup v2"], unmount_cgroup2)
}

#[test]
fn with_cgroup_v1_alone_ebpf_says_so() -> anyhow::Result<()> {
    refused("ebpf", &["cgroup v2", "only cgroup v1"], || {
        unmount_cgroup2()?;
        let folder = Path::new("/sys/fs/cgroup");
        mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let named = format!("none,name=interceptor-test-{}", std::process::id());
        fs::create_dir(folder.join("v1"))?;
        Ok(mount(Some("cgroup"), &folder.join("v1"), Some("cgroup"), MsFlags::empty(), Some(named.as_str()))?)
    })
}

#[test]
fn without_bpffs_and_the_right_to_mount_it_ebpf_says_so() -> anyhow::Result<()> {
    refused("ebpf", &["CAP_SYS_ADMIN"], || {
        own_mounts()?;
        unmount(Path::new(BPFFS))?;
        without(CapabilitySet::SYS_ADMIN)
    })
}

#[test]
fn with_state_outside_of_bpffs_ebpf_says_so() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let folder = PathBuf::from(format!("/proc/{}", world.name()));
    let mut command = Command::new(interceptor());
    command.arg("--state-dir").arg(&folder).args(["apply", "--backend", "ebpf"]).args(INJECTED);
    command.arg("--netns").arg(world.namespace(Place::Pod)?.path()).arg("--cgroup").arg(world.cgroup());
    let output = world.run(None, &mut command, "")?;
    is_refusal(&world, &output, &["bpffs", "another filesystem"])?;
    world.close()
}

#[test]
fn without_cap_bpf_ebpf_says_so() -> anyhow::Result<()> {
    refused("ebpf", &["CAP_BPF"], || {
        without(CapabilitySet::BPF)?;
        without(CapabilitySet::SYS_ADMIN)
    })
}

#[test]
fn without_cap_net_admin_no_backend_works() -> anyhow::Result<()> {
    refused("auto", &["ebpf", "iptables", "nft", "CAP_NET_ADMIN"], || without(CapabilitySet::NET_ADMIN))
}

#[test]
fn with_everything_below_sys_read_only_ebpf_says_so() -> anyhow::Result<()> {
    refused("ebpf", &["bpffs", "read-only"], || {
        own_mounts()?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        ["/sys", BPFFS].iter().try_for_each(|point| {
            mount(None::<&str>, *point, None::<&str>, flags, None::<&str>)
                .with_context(|| format!("cannot make {point} read-only"))
        })
    })
}

#[test]
fn without_the_tools_iptables_says_so() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let mut command = Command::new(interceptor());
    command.args(["apply", "--backend", "iptables"]).args(INJECTED).env("PATH", "/nonexistent");
    command.arg("--netns").arg(world.namespace(Place::Pod)?.path());
    let output = world.run(None, &mut command, "")?;
    is_refusal(&world, &output, &["iptables"])?;
    world.close()
}

#[test]
fn where_ipv6_is_off_ipv4_is_intercepted_all_the_same() -> anyhow::Result<()> {
    if !ebpf_runs_here()? {
        return Ok(());
    }
    let world = World::build(Layout::default())?;
    world.namespace(Place::Pod)?.enter(|| Ok(fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")?))?;
    let product = Product::new(&world)?;
    product.apply(Place::Pod, &INJECTED)?;
    assert_eq!(product.status()?["workloads"].as_array().map(Vec::len), Some(1));

    let insisting: Vec<_> = INJECTED.into_iter().chain(["--ipv6", "on"]).collect();
    let output = world.run(None, &mut product.apply_command(Place::Pod, &insisting)?, "")?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.lines().count() == 1, "{said}");
    assert!(said.contains("IPv6 switched off"), "{said}");
    product.uninstall()?;
    assert!(!product.state_dir().exists());
    world.close()
}

/// Inside one, root has every capability, over nothing that was there before.
#[test]
fn in_an_unprivileged_user_namespace_no_backend_works() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let mut command = Command::new("unshare");
    command.args(["-U", "-r", "-n"]).arg(interceptor());
    command.arg("--state-dir").arg(interceptor::parity::backend::state_dir(&world));
    command
        .args(["apply", "--backend", "auto", "--ipv6", "off"])
        .args(INJECTED)
        .arg("--cgroup")
        .arg(world.cgroup());
    match world.run(None, &mut command, "") {
        Err(error) if error.root_cause().to_string().contains("No such file") => {
            skipped(&error.context("there is no `unshare` here"));
        }
        output => is_refusal(&world, &output?, &["CAP_BPF", "CAP_NET_ADMIN"])?,
    }
    world.close()
}

#[test]
fn beside_an_exclusive_program_ebpf_says_so() -> anyhow::Result<()> {
    if !ebpf_runs_here()? {
        return Ok(());
    }
    let world = World::build(Layout::default())?;
    let exclusive = Program { name: "exclusive", allows: true, shares: false };
    let _attached = exclusive.attach(world.cgroup())?;
    let output = apply(&world, "ebpf", || Ok(()))?;
    is_refusal(&world, &output, &["connect4", "another program"])?;
    world.close()
}
