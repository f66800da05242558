//! What is wrong with a command line is told in a sentence, with the right exit code, and nothing is done by halves.

use interceptor::parity::{
    plan::Place,
    world::{Layout, World},
};
use interceptor_tests::{Product, ebpf_runs_here};

/// A command line that must fail.
struct Case {
    arguments: &'static [&'static str],
    code: i32,
    /// What the message must name.
    names: &'static [&'static str],
}

impl Case {
    /// What is wrong with how the product takes it.
    fn fault(&self, product: &Product<'_>) -> anyhow::Result<Option<String>> {
        // From inside the pod, so that a command line that should fail and does not reaches no further.
        let output = product.run_in(Place::Pod, self.arguments)?;
        let message = String::from_utf8(output.stderr)?;
        let errors = message.lines().filter(|line| line.starts_with("error: ")).count();
        let unnamed = self.names.iter().find(|name| !message.contains(**name));
        let fault = if output.status.code() != Some(self.code) {
            format!("{}, not exit code {}", output.status, self.code)
        } else if let Some(name) = unnamed {
            format!("{name} is not named")
        } else if errors != 1 || message.contains("panicked") {
            "it is not one error".to_owned()
        } else if product.state_dir().exists() {
            "something was left behind".to_owned()
        } else {
            return Ok(None);
        };
        Ok(Some(format!("{:?}: {fault}: {}", self.arguments, message.trim())))
    }
}

const CASES: &[Case] = &[
    Case {
        arguments: &["apply", "-i", "10.0.0.0/33"],
        code: 2,
        names: &["istio-service-cidr", "10.0.0.0/33"],
    },
    Case { arguments: &["apply", "-i", "10.0.0.1"], code: 2, names: &["10.0.0.1", "prefix"] },
    Case { arguments: &["apply", "-i", "*", "-x", "*"], code: 1, names: &["exclude"] },
    Case { arguments: &["apply", "-b", "99999"], code: 2, names: &["99999"] },
    Case { arguments: &["apply", "-b", "http"], code: 2, names: &["http"] },
    Case { arguments: &["apply", "-p", "0"], code: 2, names: &["envoy-port"] },
    Case { arguments: &["apply", "-p", "65536"], code: 2, names: &["65536"] },
    Case { arguments: &["apply", "-u", "nobody-has-this-name"], code: 2, names: &["nobody-has-this-name"] },
    Case { arguments: &["apply", "-o", "80-90"], code: 2, names: &["80-90"] },
    Case { arguments: &["apply", "--no-such-flag"], code: 2, names: &["--no-such-flag"] },
    Case { arguments: &["aply"], code: 2, names: &["aply", "apply"] },
    Case {
        arguments: &["apply", "-i", "*", "--netns", "/no/such/netns"],
        code: 1,
        names: &["/no/such/netns"],
    },
    Case { arguments: &["apply", "-i", "*", "--netns", "/proc/self/status"], code: 2, names: &["namespace"] },
    Case { arguments: &["apply", "-i", "*", "--cgroup", "/proc"], code: 2, names: &["cgroup"] },
    Case { arguments: &["release", "--netns", "/no/such/netns"], code: 1, names: &["/no/such/netns"] },
];

#[test]
fn every_mistake_is_told_and_nothing_is_done() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let mut faults = Vec::new();
    // Where eBPF does not run, that is what is said first of anything that only concerns it.
    let has_ebpf = ebpf_runs_here()?;
    for case in CASES.iter().filter(|case| has_ebpf || !case.arguments.contains(&"--cgroup")) {
        faults.extend(case.fault(&product)?);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    world.close()
}

#[test]
fn a_state_directory_outside_of_bpffs_is_refused() -> anyhow::Result<()> {
    if !ebpf_runs_here()? {
        return Ok(());
    }
    let world = World::build(Layout::default())?;
    let folder = format!("/proc/{}", world.name());
    let mut command = std::process::Command::new(interceptor_tests::interceptor());
    command.args(["--state-dir", &folder, "apply", "-i", "*"]).arg("--cgroup").arg(world.cgroup());
    let output = world.run(Some(Place::Pod), &mut command, "")?;
    let message = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("bpffs") && message.contains(&folder), "{message}");
    world.close()
}
