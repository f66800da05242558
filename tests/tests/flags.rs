//! Every flag and variable of istio-iptables: its names, its default, that it does something, and who wins.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, ensure};
use interceptor::parity::{
    actor::Owner,
    plan::Place,
    world::{Layout, World},
};
use interceptor_tests::{interceptor, shell};

/// A flag of istio-iptables (`tools/istio-iptables/pkg/cmd/root.go`), and how to see what it does.
struct Flag {
    short: Option<&'static str>,
    long: &'static str,
    /// The weaker first.
    variables: &'static [&'static str],
    default: &'static str,
    /// Another value, under which the command does something else.
    value: &'static str,
    sight: Sight,
}

/// Where the effect of a setting can be seen.
#[derive(Clone, Copy)]
struct Sight {
    /// Flags without which it has none.
    beside: &'static [&'static str],
    /// A script that comes first; `$0` is the command.
    before: &'static str,
    /// A script whose output belongs to what is seen.
    after: &'static str,
    owner: Owner,
}

const ROOT: Owner = Owner { uid: 0, gid: 0 };
const NOBODY_SPECIAL: Owner = Owner { uid: 1337, gid: 1337 };

const fn rules(beside: &'static [&'static str]) -> Sight {
    Sight { beside, before: "", after: "", owner: ROOT }
}

const fn deed(before: &'static str, beside: &'static [&'static str], after: &'static str) -> Sight {
    Sight { beside, before, after, owner: ROOT }
}

const fn flag(
    short: &'static str,
    long: &'static str,
    variables: &'static [&'static str],
    [default, value]: [&'static str; 2],
    sight: Sight,
) -> Flag {
    Flag { short: if short.is_empty() { None } else { Some(short) }, long, variables, default, value, sight }
}

const PRINT: &[&str] = &["-n", "--ipv6=off"];
const TPROXY: &[&str] = &["-n", "--ipv6=off", "-m", "TPROXY", "-b", "*"];
const LOAD: &[&str] = &["--ipv6=off", "--backend=iptables", "-i", "*"];
const VALIDATE: &[&str] = &["--ipv6=off", "--skip-rule-apply", "--run-validation", "--probe-timeout=100ms"];
const SWITCH: [&str; 2] = ["false", "true"];

const FLAGS: &[Flag] = &[
    flag("p", "envoy-port", &[], ["15001", "12345"], rules(PRINT)),
    flag("z", "inbound-capture-port", &["INBOUND_CAPTURE_PORT"], ["15006", "12346"], rules(PRINT)),
    flag("e", "inbound-tunnel-port", &["INBOUND_TUNNEL_PORT"], ["15008", "12347"], rules(PRINT)),
    flag("u", "proxy-uid", &["PROXY_UID"], ["", "1500"], rules(PRINT)),
    flag("g", "proxy-gid", &["PROXY_GID"], ["", "1500"], rules(PRINT)),
    flag(
        "m",
        "istio-inbound-interception-mode",
        &["ISTIO_INBOUND_INTERCEPTION_MODE"],
        ["", "TPROXY"],
        rules(PRINT),
    ),
    flag("b", "istio-inbound-ports", &["ISTIO_INBOUND_PORTS"], ["", "80,443"], rules(PRINT)),
    flag(
        "d",
        "istio-local-exclude-ports",
        &["ISTIO_LOCAL_EXCLUDE_PORTS"],
        ["", "22"],
        rules(&["-n", "--ipv6=off", "-b", "*"]),
    ),
    flag("i", "istio-service-cidr", &["ISTIO_SERVICE_CIDR"], ["", "10.0.0.0/8"], rules(PRINT)),
    flag(
        "x",
        "istio-service-exclude-cidr",
        &["ISTIO_SERVICE_EXCLUDE_CIDR"],
        ["", "10.9.0.0/16"],
        rules(PRINT),
    ),
    flag("q", "istio-outbound-ports", &["ISTIO_OUTBOUND_PORTS"], ["", "80"], rules(PRINT)),
    flag(
        "o",
        "istio-local-outbound-ports-exclude",
        &["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"],
        ["", "25"],
        rules(PRINT),
    ),
    flag("k", "kube-virt-interfaces", &["KUBE_VIRT_INTERFACES"], ["", "vm0"], rules(PRINT)),
    flag("c", "istio-exclude-interfaces", &["ISTIO_EXCLUDE_INTERFACES"], ["", "net1"], rules(PRINT)),
    flag("t", "istio-inbound-tproxy-mark", &["ISTIO_INBOUND_TPROXY_MARK"], ["1337", "42"], rules(TPROXY)),
    flag(
        "r",
        "istio-inbound-tproxy-route-table",
        &["ISTIO_INBOUND_TPROXY_ROUTE_TABLE"],
        ["133", "77"],
        deed("", &["--ipv6=off", "--backend=iptables", "-m", "TPROXY", "-b", "*"], "ip -N rule"),
    ),
    flag(
        "n",
        "dry-run",
        &["DRY_RUN"],
        SWITCH,
        deed("", LOAD, "iptables-nft-save -t nat | grep ISTIO || true"),
    ),
    flag("", "iptables-probe-port", &["IPTABLES_PROBE_PORT"], ["15002", "15099"], deed("", VALIDATE, "")),
    flag(
        "",
        "probe-timeout",
        &["PROBE_TIMEOUT"],
        ["5s", "50ms"],
        deed("", &["--ipv6=off", "--skip-rule-apply", "--run-validation"], ""),
    ),
    flag(
        "",
        "skip-rule-apply",
        &["SKIP_RULE_APPLY"],
        SWITCH,
        deed("", LOAD, "iptables-nft-save -t nat | grep ISTIO || true"),
    ),
    flag(
        "",
        "run-validation",
        &["RUN_VALIDATION"],
        SWITCH,
        deed("", &["--ipv6=off", "--skip-rule-apply", "--probe-timeout=100ms"], ""),
    ),
    flag(
        "",
        "redirect-dns",
        &["REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"],
        SWITCH,
        rules(&["-n", "--ipv6=off", "--capture-all-dns"]),
    ),
    flag(
        "",
        "capture-all-dns",
        &["CAPTURE_ALL_DNS"],
        SWITCH,
        rules(&["-n", "--ipv6=off", "--redirect-dns", "--dns-servers=10.0.0.10"]),
    ),
    flag("", "drop-invalid", &["DROP_INVALID", "INVALID_DROP"], SWITCH, rules(PRINT)),
    // The pod of a world has an IPv4 address first and an IPv6 address after it.
    flag("", "dual-stack", &["DUAL_STACK", "ISTIO_DUAL_STACK"], SWITCH, rules(&["-n"])),
    flag(
        "",
        "network-namespace",
        &["NETWORK_NAMESPACE"],
        ["/proc/thread-self/ns/net", "/proc/self/ns/net"],
        deed("", &["--ipv6=off", "--skip-rule-apply"], ""),
    ),
    // Without rights, `isolate` tells that it cannot; what it does with them is tested beside it.
    flag(
        "",
        "cni-mode",
        &["CNI_MODE"],
        SWITCH,
        Sight { owner: NOBODY_SPECIAL, ..deed("", &["--ipv6=off", "--cleanup-only"], "") },
    ),
    flag(
        "",
        "reconcile",
        &["RECONCILE"],
        SWITCH,
        deed(
            "\"$0\" apply --ipv6=off --backend=iptables -b 80",
            LOAD,
            "iptables-nft-save -t nat | grep ISTIO",
        ),
    ),
    flag(
        "",
        "cleanup-only",
        &["CLEANUP_ONLY"],
        SWITCH,
        deed(
            "\"$0\" apply --ipv6=off --backend=iptables -i '*'",
            LOAD,
            "iptables-nft-save -t nat | grep ISTIO || true",
        ),
    ),
    // The rules are there already, and restore cannot make a chain twice.
    flag(
        "",
        "force-apply",
        &["FORCE_APPLY"],
        SWITCH,
        deed("\"$0\" apply --ipv6=off --backend=iptables -i '*'", LOAD, ""),
    ),
    flag("", "native-nftables", &["NATIVE_NFTABLES"], SWITCH, rules(PRINT)),
    flag(
        "",
        "force-iptables-binary",
        &["FORCE_IPTABLES_BINARY"],
        ["", "legacy"],
        deed("", LOAD, "iptables-legacy-save -t nat | grep ISTIO || true"),
    ),
];

/// Settings of Istio that have no flag there either, with default and another value.
const VARIABLES: &[(&str, [&str; 2])] = &[
    ("ISTIO_OUTBOUND_OWNER_GROUPS", ["*", "2001,2002"]),
    ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", ["", "2001"]),
    ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", ["127.0.0.1/32", "127.0.0.0/8"]),
    ("ENVOY_USER", ["istio-proxy", "root"]),
];

/// Flags that istio-iptables has not got.
const OURS: &[&str] = &[
    "backend",
    "cgroup",
    "config",
    "dns-servers",
    "help",
    "intercept-inbound-tunnel",
    "intercept-passthrough-source",
    "intercept-self-call-tunnel",
    "ipv6",
    "netns",
    "no-spread",
    "on-error",
    "require",
    "run-dir",
    "self-calls",
    "state-dir",
    "udp-dns-first",
];

#[test]
fn every_flag_has_its_names_its_default_and_an_effect() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    for flag in FLAGS {
        flag.check(&world).with_context(|| format!("--{}", flag.long))?;
    }
    world.close()
}

#[test]
fn every_variable_without_a_flag_has_its_default_and_an_effect() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let seen = |environment: &[(&str, &str)]| rules(&["-n", "--ipv6=off"]).seen(&world, &[], environment);
    let silent = seen(&[])?;
    for (name, [default, value]) in VARIABLES {
        ensure!(seen(&[(name, default)])? == silent, "{name}: {default} is not the default");
        ensure!(seen(&[(name, value)])? != silent, "{name}: {value} does nothing");
    }
    world.close()
}

#[test]
fn help_shows_istios_flags_and_no_others_but_ours() -> anyhow::Result<()> {
    let help = Command::new(interceptor()).args(["apply", "--help"]).env_clear().output()?;
    let help = String::from_utf8(help.stdout)?;
    let names = |line: &str| -> Option<(Option<String>, String)> {
        let line = line.trim_start();
        let (short, rest) = match line.strip_prefix("--") {
            Some(rest) => (None, rest),
            None => (Some(line.strip_prefix('-')?.get(..1)?.to_owned()), line.get(4..)?.strip_prefix("--")?),
        };
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
        Some((short, rest[..end].to_owned()))
    };
    let shown: BTreeSet<_> = help.lines().filter_map(names).collect();
    let istios = FLAGS.iter().filter(|flag| flag.long != "network-namespace");
    let istios = istios.map(|flag| (flag.short.map(str::to_owned), flag.long.to_owned()));
    let ours = OURS.iter().map(|long| ((*long == "help").then(|| "h".to_owned()), (*long).to_owned()));
    assert_eq!(shown, istios.chain(ours).collect::<BTreeSet<_>>());
    // It stands beside --netns, whose other name it is.
    assert!(help.contains("--network-namespace"), "{help}");
    Ok(())
}

#[test]
fn a_dry_run_goes_into_the_named_file_too() -> anyhow::Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(interceptor());
    command.args(["apply", "-i", "*", "--ipv6=off", "-n"]).env_clear().env("DRY_RUN_FILE_PATH", file.path());
    let printed = String::from_utf8(command.output()?.stdout)?;
    assert!(printed.contains("-A ISTIO_OUTPUT -j ISTIO_REDIRECT"), "{printed}");
    assert_eq!(std::fs::read_to_string(file.path())?, printed);

    command.env("DRY_RUN_FILE_PATH", "/no/such/folder/rules");
    let output = command.output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr)?.contains("DRY_RUN_FILE_PATH"));
    Ok(())
}

impl Flag {
    fn check(&self, world: &World) -> anyhow::Result<()> {
        let seen = |flags: &[&str], environment: &[(&str, &str)]| self.sight.seen(world, flags, environment);
        let long = |value: &str| format!("--{}={value}", self.long);
        let silent = seen(&[], &[])?;
        let default = seen(&[&long(self.default)], &[])?;
        ensure!(default == silent, "{} is not the default: {default}, without it {silent}", self.default);
        let changed = seen(&[&long(self.value)], &[])?;
        ensure!(changed != silent, "{} does nothing: {silent}", self.value);
        let is_switch = self.default == "false";
        let without_warnings = |seen: String| {
            let kept = seen.lines().filter(|line| !line.starts_with("warning: "));
            kept.collect::<Vec<_>>().join("\n")
        };
        if let Some(short) = self.short {
            let short = format!("-{short}");
            let words: &[&str] = if is_switch { &[&short] } else { &[&short, self.value] };
            ensure!(seen(words, &[])? == changed, "{short} means something else");
        }
        if is_switch {
            ensure!(seen(&[&format!("--{}", self.long)], &[])? == changed, "it needs a value");
        }
        let mut weaker: Option<&str> = None;
        for variable in self.variables {
            ensure!(seen(&[], &[(variable, self.value)])? == changed, "{variable} means something else");
            let flag = long(self.default);
            ensure!(seen(&[&flag], &[(variable, self.value)])? == silent, "{variable} beats the flag");
            if let Some(weaker) = weaker {
                let both = [(weaker, self.value), (*variable, self.default)];
                ensure!(seen(&[], &both)? == silent, "{weaker} beats {variable}");
            }
            if is_switch {
                let ignored = without_warnings(seen(&[], &[(variable, "maybe")])?);
                ensure!(ignored == without_warnings(silent.clone()), "{variable}=maybe does something");
            }
            weaker = Some(variable);
        }
        // The one flag that Istio binds to no variable.
        let derived = self.long.to_uppercase().replace('-', "_");
        let bound = self.variables.contains(&derived.as_str());
        ensure!(bound != (self.long == "envoy-port"), "{derived} is not its variable");
        ensure!(bound || seen(&[], &[(&derived, self.value)])? == silent, "{derived} does something");
        Ok(())
    }
}

impl Sight {
    /// What is to be seen of `apply` with these flags in this environment: exit code, output, and what it left.
    fn seen(&self, world: &World, flags: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<String> {
        let leaves_rules = !self.after.is_empty() || !self.before.is_empty();
        if leaves_rules {
            shell(world, self.before)?;
        }
        let mut apply = world.command(&interceptor(), Place::Pod, self.owner, interceptor())?;
        apply.arg("apply").args(self.beside).args(flags).env_clear();
        apply.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(environment.iter().copied());
        let output = world.run(None, &mut apply, "")?;
        let mut seen = format!("{:?}\n{}", output.status.code(), String::from_utf8(output.stdout)?);
        if !output.status.success() {
            seen += &String::from_utf8(output.stderr)?;
        }
        if leaves_rules {
            seen += &shell(world, self.after)?;
            shell(world, "\"$0\" apply --cleanup-only")?;
        }
        Ok(seen)
    }
}
