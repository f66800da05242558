//! A test's own program once more, inside a world: for what a process must do itself, with system calls of its own.
//!
//! A socket belongs to the namespace, the cgroup and the owner of the process that makes it, and a test has those of
//! whoever runs it. So it starts its own program again where its world is, asking for itself alone; there it sees that
//! it is inside, acts, and leaves what it saw in a file.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::PoisonError,
    thread,
};

use anyhow::{Context as _, ensure};
use interceptor::parity::{actor::Owner, plan::Place, world::World};
use serde::{Serialize, de::DeserializeOwned};
use tempfile::NamedTempFile;

use crate::interceptor;

/// The file that the program inside leaves its account in.
const ACCOUNT: &str = "INTERCEPTOR_TEST_ACCOUNT";
/// What a program started from inside is to be there.
const PART: &str = "INTERCEPTOR_TEST_PART";

/// Whether this is the program inside.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(ACCOUNT).is_some()
}

/// Inside, leaves an account of what was seen there.
pub fn leave<T: Serialize>(account: &T) -> anyhow::Result<()> {
    let file = PathBuf::from(env::var_os(ACCOUNT).context("nobody asked for an account")?);
    Ok(fs::write(file, serde_json::to_vec(account)?)?)
}

/// Runs the calling test once more in `place`, and returns its account.
///
/// `input` becomes its standard input, by which it can be given a socket.
pub fn run<T: DeserializeOwned>(
    world: &World,
    place: Place,
    owner: Owner,
    input: Stdio,
) -> anyhow::Result<T> {
    let account = NamedTempFile::new()?;
    let program = env::current_exe()?;
    let mut command = world.command(&interceptor(), place, owner, program)?;
    command.args(arguments()?).env(ACCOUNT, account.path());
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = world.spawn(&mut command)?;
    let (stdout, stderr) = {
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        (child.stdout.take(), child.stderr.take())
    };
    // Both end with the process; what a failing test says is on the first one.
    let said = std::io::read_to_string(stdout.context("standard output is a pipe")?)?;
    let errors = std::io::read_to_string(stderr.context("standard error is a pipe")?)?;
    let status = child.lock().unwrap_or_else(PoisonError::into_inner).wait()?;
    ensure!(status.success(), "inside ({status}): {said}{errors}");
    let account = fs::read(account.path())?;
    serde_json::from_slice(&account).with_context(|| format!("no account was left: {said}{errors}"))
}

/// From inside, the command line of one more process beside this one, to be `part`.
pub fn beside(part: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments()?).env(PART, part);
    Ok(command)
}

/// What this process is to be, if it was started from inside.
#[must_use]
pub fn part() -> Option<String> {
    env::var(PART).ok()
}

/// What the test harness is told to run the calling test alone, which is known by the thread's name.
fn arguments() -> anyhow::Result<Vec<String>> {
    let thread = thread::current();
    let test = thread.name().context("the thread of a test has its name")?;
    Ok(["--exact", test, "--nocapture"].map(str::to_owned).to_vec())
}
