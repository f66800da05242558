//! Mistakes that istio-iptables refuses: told here too, with its exit code under its name and ours under ours.

use std::{os::unix::fs::symlink, process::Command};

use anyhow::ensure;
use interceptor_tests::interceptor;

/// A command line, with its environment, that must fail.
struct Case {
    environment: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    /// The exit code under our name; under Istio's it is 1.
    code: i32,
    /// What the message must name.
    names: &'static [&'static str],
}

const fn case(arguments: &'static [&'static str], code: i32, names: &'static [&'static str]) -> Case {
    Case { environment: &[], arguments, code, names }
}

const fn variable(
    environment: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    names: &'static [&'static str],
) -> Case {
    Case { environment, arguments, code: 1, names }
}

const LOOPBACK: &str = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR";

const CASES: &[Case] = &[
    variable(&[("FORCE_IPTABLES_BINARY", "nftables")], &[], &["nftables", "legacy or nft"]),
    case(&["--force-iptables-binary=plain"], 1, &["plain", "legacy or nft"]),
    variable(&[(LOOPBACK, "127.0.0.1")], &[], &[LOOPBACK, "127.0.0.1"]),
    variable(&[(LOOPBACK, "10.0.0.0/8")], &[], &[LOOPBACK, "10.0.0.0/8"]),
    variable(&[(LOOPBACK, "::1/128")], &[], &[LOOPBACK, "::1/128"]),
    variable(&[(LOOPBACK, "127.0.0.0/7")], &[], &[LOOPBACK, "from 8 to 32"]),
    case(&["-x", "*"], 1, &["--istio-service-exclude-cidr", "`*`"]),
    case(&["-x", "10.0.0.1"], 2, &["--istio-service-exclude-cidr", "10.0.0.1", "prefix length"]),
    case(&["-i", "10.0.0.0/8, 10.0.0.0/16"], 2, &["--istio-service-cidr", "` 10.0.0.0/16`"]),
    case(&["-i", "10.0.0.0/33"], 2, &["--istio-service-cidr", "10.0.0.0/33"]),
    case(&["-m", "TPROXY", "-b", "*", "-t", "0x539"], 1, &["--istio-inbound-tproxy-mark", "0x539"]),
    case(&["-m", "TPROXY", "-b", "*", "-r", "main"], 1, &["--istio-inbound-tproxy-route-table", "main"]),
    case(&["--redirect-dns=maybe"], 2, &["--redirect-dns", "maybe"]),
    case(&["--iptables-probe-port=65536"], 2, &["--iptables-probe-port", "65536"]),
    case(&["--probe-timeout=5"], 2, &["--probe-timeout", "5s"]),
    case(&["--no-such-flag"], 2, &["--no-such-flag"]),
];

#[test]
fn what_istio_refuses_is_refused_with_its_exit_code() -> anyhow::Result<()> {
    for Case { environment, arguments, code, names } in CASES {
        let arguments = [&["-n", "--ipv6=off"], *arguments].concat();
        refused(environment, &arguments, *code, names)?;
    }
    Ok(())
}

#[test]
fn the_65th_group_is_one_too_many() -> anyhow::Result<()> {
    let groups = |count: u32| (0..count).map(|n| (2001 + n).to_string()).collect::<Vec<_>>().join(",");
    let name = "ISTIO_OUTBOUND_OWNER_GROUPS";
    refused(&[(name, &groups(65))], &["-n", "--ipv6=off"], 1, &["65 groups", "64"])?;
    let mut command = Command::new(interceptor());
    command.args(["apply", "-n", "--ipv6=off"]).env_clear().env(name, groups(64));
    ensure!(command.output()?.status.success());
    Ok(())
}

/// A namespace has no address at first, and a resolv.conf that cannot be read is made there.
#[test]
fn surroundings_that_do_not_tell_what_is_needed_are_refused() -> anyhow::Result<()> {
    let inside = |script: &str| -> anyhow::Result<String> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "sh", "-c", script]).arg(interceptor());
        let output = unshare.output()?;
        ensure!(output.status.code() == Some(1), "{script}: {output:?}");
        Ok(String::from_utf8(output.stderr)?)
    };
    let message = inside("\"$0\" apply -n -i '*'")?;
    ensure!(message.contains("no interface has an address"), "{message}");
    // Nobody can read what stands at a process's address 0.
    let message =
        inside("mount --bind /proc/$$/mem /etc/resolv.conf; \"$0\" apply -n --ipv6=off --redirect-dns")?;
    ensure!(message.contains("/etc/resolv.conf"), "{message}");
    Ok(())
}

#[test]
fn without_a_dns_server_capture_goes_on_without_dns() -> anyhow::Result<()> {
    let mut command = Command::new(interceptor());
    command.args(["apply", "-n", "--ipv6=off", "--redirect-dns", "--dns-servers="]).env_clear();
    let output = command.output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(String::from_utf8(output.stderr)?.contains("warning: DNS is not intercepted"));
    ensure!(!String::from_utf8(output.stdout)?.contains("DNS"));
    Ok(())
}

fn refused(
    environment: &[(&str, &str)],
    arguments: &[&str],
    code: i32,
    names: &[&str],
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let istio = folder.path().join("istio-iptables");
    symlink(interceptor(), &istio)?;
    let mut ours = Command::new(interceptor());
    for (command, code) in [(ours.arg("apply"), code), (&mut Command::new(istio), 1)] {
        let output = command.args(arguments).env_clear().envs(environment.iter().copied()).output()?;
        let message = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(code), "{command:?}: {} {message}", output.status);
        ensure!(output.stdout.is_empty(), "{command:?} does something by halves");
        let unnamed = names.iter().find(|name| !message.contains(**name));
        ensure!(unnamed.is_none(), "{command:?}: {unnamed:?} is not named: {message}");
    }
    Ok(())
}
