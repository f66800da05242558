//! Runs the real iptables in namespaces of its own, which end with it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use interceptor::nat::Family;

/// Both implementations.
pub(crate) const VARIANTS: [&str; 2] = ["nft", "legacy"];

/// The prefix of the family's commands: `iptables-nft`, `ip6tables-legacy`.
pub(crate) fn program(family: Family, variant: &str) -> String {
    match family {
        Family::V4 => format!("iptables-{variant}"),
        Family::V6 => format!("ip6tables-{variant}"),
    }
}

/// Whether namespaces can be made, and iptables run in them; if not, says why a test is skipped.
pub(crate) fn usable() -> bool {
    let usable = nix::unistd::geteuid().is_root();
    if !usable {
        println!("skipped: making a network namespace needs root");
    }
    usable
}

/// Runs a shell script in a fresh network namespace with `input` on its standard input, and gives what it printed.
pub(crate) fn run(script: &str, input: &str) -> String {
    attempt(script, input)
        .unwrap_or_else(|error| panic!("`{script}` failed: {error}\nwith the input:\n{input}"))
}

/// As [`run`], but gives what a failing script wrote to its standard error.
pub(crate) fn attempt(script: &str, input: &str) -> Result<String, String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "sh", "-e", "-c", script]);
    finish(unshare, input)
}

/// Runs a shell script in the namespace of the calling thread.
pub(crate) fn here(script: &str, input: &str) -> String {
    finish(shell(script), input)
        .unwrap_or_else(|error| panic!("`{script}` failed: {error}\nwith the input:\n{input}"))
}

/// As [`here`], but gives what a failing script wrote to its standard error.
pub(crate) fn attempt_here(script: &str) -> Result<String, String> {
    finish(shell(script), "")
}

fn shell(script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", script]);
    shell
}

fn finish(mut command: Command, input: &str) -> Result<String, String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A script that does not read its input may have ended already.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}
