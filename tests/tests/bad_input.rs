//! What is wrong with a command line is told in a sentence, with the right exit code, and nothing is done by halves.

use interceptor::parity::{
    plan::Place,
    world::{Layout, World},
};
use interceptor_tests::Product;

/// A command line that must fail.
struct Case {
    arguments: &'static [&'static str],
    code: i32,
    /// What the message must name.
    names: &'static [&'static str],
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
    Case { arguments: &["apply", "-i", "*", "--netns", "/proc/self/status"], code: 1, names: &["namespace"] },
    Case { arguments: &["apply", "-i", "*", "--cgroup", "/proc"], code: 1, names: &["cgroup"] },
    Case { arguments: &["release", "--netns", "/no/such/netns"], code: 1, names: &["/no/such/netns"] },
];

#[test]
fn every_mistake_is_told_and_nothing_is_done() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    for Case { arguments, code, names } in CASES {
        // Wherever the case does not name a namespace itself, a slip must not reach beyond this world.
        let output = product.run_in(Place::Pod, arguments)?;
        let message = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {message}");
        for name in *names {
            assert!(message.contains(name), "{arguments:?} does not name {name}: {message}");
        }
        assert_eq!(message.matches("error: ").count(), 1, "{arguments:?}: {message}");
        assert!(!message.contains("panicked"), "{arguments:?}: {message}");
        if *code == 1 {
            assert_eq!(message.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{message}");
        }
        assert!(!product.state_dir().exists(), "{arguments:?} left {}", product.state_dir().display());
    }
    world.close()
}

#[test]
fn a_state_directory_outside_of_bpffs_is_refused() -> anyhow::Result<()> {
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
