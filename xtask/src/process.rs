//! Running other programs.

use std::{
    env,
    ffi::OsString,
    io::{self, BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use indicatif::ProgressBar;

/// The cargo that runs us, so that every step uses one toolchain.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs `command` to its end. Its latest line is the message of `progress`; if it fails, the error holds all it said.
pub(crate) fn run_quietly(mut command: Command, progress: &ProgressBar) -> Result<()> {
    let name = describe(&command);
    let (output, writer) = io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("cannot share a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    // The command still owns the writing ends; reading would never end while it lives.
    drop(command);

    let mut said = String::new();
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).with_context(|| format!("cannot read what {name} says"))? > 0 {
        let text = String::from_utf8_lossy(&line);
        progress.set_message(text.trim_end().to_owned());
        said.push_str(&text);
        line.clear();
    }
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    ensure!(status.success(), "{name} failed ({status}); it said:\n{said}");
    Ok(())
}

/// What `program` prints for `--version`; `None` if it cannot be run.
pub(crate) fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Becomes `command`: its output, the signals meant for it and its exit code need no relay. Returns only if that fails.
pub(crate) fn become_command(command: &mut Command) -> Result<()> {
    let name = describe(command);
    command.env("PATH", search_path());
    Err(anyhow!(command.exec()).context(format!("cannot run {name}")))
}

/// The path of `program` among the folders of [`search_path`].
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// `PATH` and the folders of system tools: `su` without a login shell leaves those out on Debian.
fn search_path() -> OsString {
    let given = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&given).collect();
    for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    // Only a folder with a colon in its name cannot be joined, and none came out of splitting one.
    env::join_paths(folders).unwrap_or(given)
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|word| word.to_string_lossy()));
    format!("`{}`", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_tells_all_that_was_said() {
        let progress = ProgressBar::hidden();
        let error = run_quietly(shell("echo one; echo two >&2; exit 3"), &progress).expect_err("exit code 3");
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("one\ntwo\n"), "{text}");
    }

    #[test]
    fn a_success_leaves_its_last_line_as_message() {
        let progress = ProgressBar::hidden();
        run_quietly(shell("echo one; echo two"), &progress).expect("exit code 0");
        assert_eq!(progress.message(), "two");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error =
            run_quietly(Command::new("/nonexistent/tool"), &ProgressBar::hidden()).expect_err("no such file");
        assert!(error.to_string().contains("/nonexistent/tool"), "{error}");
    }
}
