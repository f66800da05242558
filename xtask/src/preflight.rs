//! What cannot be installed: rights and kernel features. Looked at before minutes go into a build.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;
use serde_json::Value;

/// Bit numbers of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Refuses with one sentence if `command` ("cargo xtask test") cannot run here.
pub(crate) fn check(command: &str) -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "`{command}` makes network namespaces, cgroups and BPF programs: run it as root"
    );
    check_capabilities(command, &read("/proc/self/status")?)?;
    ensure!(
        has_cgroup2(&read("/proc/self/mountinfo")?),
        "`{command}` attaches BPF programs to a cgroup v2 folder and none is mounted: \
         mount one with `mount -t cgroup2 none <folder>`"
    );
    // A kernel that lists no symbols proves nothing; there the built command itself gives the answer.
    fs::read_to_string("/proc/kallsyms").map_or(Ok(()), |symbols| check_kernel(command, &symbols))
}

/// Refuses with one sentence if the command, now that it is built, finds that its eBPF backend cannot run here.
pub(crate) fn check_ebpf(command: &str, interceptor: &Path) -> Result<()> {
    let output = Command::new(interceptor)
        .args(["probe", "--json"])
        .output()
        .with_context(|| format!("cannot run {}", interceptor.display()))?;
    let report: Value =
        serde_json::from_slice(&output.stdout).context("`interceptor probe` printed no JSON")?;
    check_grades(command, &report)
}

fn check_grades(command: &str, report: &Value) -> Result<()> {
    let grades = report["grades"].as_array().context("`interceptor probe` printed no grades")?;
    let ebpf = grades.iter().find(|grade| grade["backend"] == "ebpf").context("eBPF has no grade")?;
    let missing = ebpf["grade"]["missing"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<_> = missing.iter().filter_map(Value::as_str).collect();
    ensure!(
        names.is_empty(),
        "`{command}` compares eBPF with iptables, and for eBPF this machine lacks: {} (`interceptor probe` tells more)",
        names.join(", ")
    );
    Ok(())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// Root inside a container may lack what root has outside.
fn check_capabilities(command: &str, status: &str) -> Result<()> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let effective = effective.context("/proc/self/status names no capabilities")?;
    for (bit, name) in [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN")] {
        if effective & (1 << bit) == 0 {
            bail!(
                "`{command}` needs the capability {name}: run it where root has it, not in a restricted container"
            );
        }
    }
    Ok(())
}

/// The file system type follows the lone `-` of a mountinfo line, see proc(5).
fn has_cgroup2(mountinfo: &str) -> bool {
    mountinfo.lines().any(|line| line.split_once(" - ").is_some_and(|(_, rest)| rest.starts_with("cgroup2 ")))
}

/// The youngest helpers the data path needs are the netns cookies for `sock_ops` and sockopt programs (Linux 5.15).
/// Their symbols tell more than a version does, since distributions carry features back.
fn check_kernel(command: &str, symbols: &str) -> Result<()> {
    for helper in ["bpf_get_netns_cookie_sock_ops", "bpf_get_netns_cookie_sockopt"] {
        ensure!(
            symbols.is_empty() || symbols.lines().any(|line| line.split(' ').nth(2) == Some(helper)),
            "`{command}` needs a newer kernel: this one lacks the BPF helper {helper} (in Linux since 5.15)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "ffffffff81e84600 T bpf_get_netns_cookie_sock_addr
ffffffff81e84640 T bpf_get_netns_cookie_sock_ops
ffffffff81553140 T bpf_get_netns_cookie_sockopt
";
    const OLD: &str = "ffffffff81e84600 T bpf_get_netns_cookie_sock_addr\n";

    #[test]
    fn an_older_kernel_is_refused_by_the_helper_it_lacks() {
        assert!(check_kernel("cargo xtask demo", NEW).is_ok());
        let refusal = check_kernel("cargo xtask demo", OLD).expect_err("the helper is missing").to_string();
        assert_eq!(
            refusal,
            "`cargo xtask demo` needs a newer kernel: this one lacks the BPF helper bpf_get_netns_cookie_sock_ops \
             (in Linux since 5.15)"
        );
        assert!(check_kernel("cargo xtask demo", "").is_ok(), "no symbols, no judgement");
    }

    #[test]
    fn what_the_built_command_misses_is_named() {
        let report = |grade: &str| serde_json::from_str::<Value>(grade).expect("JSON");
        let full = report(r#"{"grades": [{"backend": "ebpf", "grade": {"is": "full"}}]}"#);
        assert!(check_grades("cargo xtask demo", &full).is_ok());
        let partial =
            report(r#"{"grades": [{"backend": "ebpf", "grade": {"is": "partial", "lost": ["trace"]}}]}"#);
        assert!(check_grades("cargo xtask demo", &partial).is_ok());
        let missing =
            r#"{"grades": [{"backend": "ebpf", "grade": {"is": "unavailable", "missing": ["bpffs"]}}]}"#;
        let refusal = check_grades("cargo xtask demo", &report(missing)).expect_err("no bpffs").to_string();
        assert!(refusal.contains("bpffs"), "{refusal}");
    }

    #[test]
    fn a_missing_capability_is_named() {
        assert!(check_capabilities("cargo xtask test", "Name:\tx\nCapEff:\t000001ffffffffff\n").is_ok());
        let refusal =
            check_capabilities("cargo xtask test", "CapEff:\t0000000000001000\n").expect_err("no SYS_ADMIN");
        assert!(refusal.to_string().contains("CAP_SYS_ADMIN"), "{refusal}");
    }

    #[test]
    fn cgroup2_is_told_from_cgroup() {
        let v1 = "35 24 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        let v2 = "42 24 0:31 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw";
        assert!(!has_cgroup2(v1));
        assert!(has_cgroup2(v2));
    }
}
