//! A machine: qemu, a kernel, an archive, and what it says.

use std::{
    collections::BTreeMap,
    fs,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::ProgressBar;

use super::{debian::Apt, folder, say};

/// Silence longer than this is a hang. Emulated and beside other work, a machine may pause for long.
const PATIENCE: Duration = Duration::from_secs(480);
/// How often the console is looked at.
const PULSE: Duration = Duration::from_millis(500);
/// What a kernel says when it is past help; or will be, in a test of ours.
const PANICS: [&str; 6] =
    ["Kernel panic", "BUG: ", "Oops: ", "general protection fault", "soft lockup", "Unable to mount root"];

/// qemu, unpacked with every library it needs.
pub(super) struct Qemu {
    folder: PathBuf,
}

/// What came of one job.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// What it printed.
    pub(super) output: String,
    /// Its exit code.
    pub(super) code: i32,
}

/// What a machine did.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The kernel's own name for itself.
    pub(super) kernel: String,
    /// Jobs that ended, by name.
    pub(super) jobs: BTreeMap<String, Outcome>,
}

impl Qemu {
    pub(super) fn fetch(progress: &ProgressBar) -> Result<Self> {
        let qemu = Self { folder: folder().join("qemu") };
        if !qemu.folder.exists() {
            let packages = ["qemu-system-x86", "seabios"];
            Apt::open(false, progress)?.unpack_with_dependencies(&packages, &qemu.folder, progress)?;
        }
        Ok(qemu)
    }

    /// Boots, follows the machine until it is through with all jobs, and returns what they said.
    pub(super) fn run(&self, kernel: &Path, archive: &Path, progress: &ProgressBar) -> Result<Run> {
        let console =
            tempfile::NamedTempFile::new_in(folder()).context("cannot make a file for the console")?;
        let mut machine = Running {
            child: self.command(kernel, archive, console.path()).spawn().context("cannot run qemu")?,
        };
        let output = machine.child.stdout.take().context("qemu has no output")?;
        let lines = in_background(BufReader::new(output));
        let outcome = follow(&lines, console.path(), progress);
        drop(machine);
        outcome.with_context(|| format!("the console's last lines:\n{}", tail(console.path())))
    }

    fn command(&self, kernel: &Path, archive: &Path, console: &Path) -> Command {
        // Beside another system's libraries it must not see those.
        let root = &self.folder;
        let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu"));
        command.arg(root.join("usr/bin/qemu-system-x86_64"));
        for part in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.join(part));
        }
        // Emulation needs no right to /dev/kvm, and where that is there it may still not run stock kernels.
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]);
        command.args(["-nographic", "-nodefaults", "-no-reboot", "-monitor", "none"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(archive);
        // Most of a test is waiting for the kernel to be through with readers; expedited, that takes a tenth of the time.
        let speed = "rcupdate.rcu_expedited=1 mitigations=off";
        let kernel_line = format!("console=ttyS0 panic=-1 oops=panic no_timer_check quiet {speed}");
        command.arg("-append").arg(kernel_line);
        command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }
}

/// A machine that does not outlive its owner.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; both calls then say so, which is fine.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn in_background(mut output: impl std::io::BufRead + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// Reads lines until the machine says it is done, ends, panics or falls silent.
fn follow(lines: &Receiver<String>, console: &Path, progress: &ProgressBar) -> Result<Run> {
    let mut run = Run::default();
    let mut current: Option<(String, String)> = None;
    let (mut heard, mut seen, mut begun) = (Instant::now(), 0, Instant::now());
    loop {
        match lines.recv_timeout(PULSE) {
            Ok(line) => {
                heard = Instant::now();
                if line == "@@ done" {
                    return Ok(run);
                }
                progress.set_message(line.clone());
                if let Some((job, outcome)) = take(&mut run, &mut current, &line) {
                    let took = begun.elapsed().as_secs();
                    progress
                        .suspend(|| say(&format!("  {job} ended with {} after {took} s", outcome.code)))?;
                    begun = Instant::now();
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let text = fs::read(console).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                if let Some(panic) =
                    PANICS.iter().find_map(|panic| text.lines().find(|line| line.contains(panic)))
                {
                    bail!("the kernel panicked: {panic}");
                }
                if text.len() > seen {
                    (heard, seen) = (Instant::now(), text.len());
                }
                if heard.elapsed() > PATIENCE {
                    bail!("silent for {} s{}", PATIENCE.as_secs(), where_in(current.as_ref()));
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the machine ended early{}", where_in(current.as_ref()))
            }
        }
    }
}

/// Takes note of a line; returns the job that it ends, if it does.
fn take<'r>(
    run: &'r mut Run,
    current: &mut Option<(String, String)>,
    line: &str,
) -> Option<(String, &'r Outcome)> {
    let Some(mark) = line.strip_prefix("@@ ") else {
        if let Some((_, output)) = current {
            output.push_str(line);
            output.push('\n');
        }
        return None;
    };
    let mut words = mark.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("kernel"), Some(name), _) => name.clone_into(&mut run.kernel),
        (Some("begin"), Some(name), _) => *current = Some((name.to_owned(), String::new())),
        (Some("end"), Some(_), Some(code)) => {
            let (name, output) = current.take()?;
            let outcome = Outcome { output, code: code.parse().unwrap_or(-1) };
            return Some((name.clone(), run.jobs.entry(name).insert_entry(outcome).into_mut()));
        }
        _ => {}
    }
    None
}

fn where_in(current: Option<&(String, String)>) -> String {
    current.map_or_else(String::new, |(name, output)| {
        let last: Vec<_> = output.lines().rev().take(20).collect();
        format!(" in {name}, which had said:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    })
}

fn tail(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last: Vec<_> = text.lines().rev().take(30).collect();
    last.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Result<Run> {
        let (sender, receiver) = mpsc::channel();
        for line in lines {
            sender.send((*line).to_owned()).expect("the receiver is here");
        }
        drop(sender);
        follow(&receiver, Path::new("/nonexistent"), &ProgressBar::hidden())
    }

    #[test]
    fn each_jobs_output_and_code_are_kept_apart() {
        let run = told(&[
            "@@ kernel 6.1.0-56",
            "@@ begin one",
            "a",
            "b",
            "@@ end one 0",
            "noise",
            "@@ begin two",
            "@@ end two 101",
            "@@ done",
        ])
        .expect("it was done");
        assert_eq!(run.kernel, "6.1.0-56");
        assert_eq!((run.jobs["one"].output.as_str(), run.jobs["one"].code), ("a\nb\n", 0));
        assert_eq!((run.jobs["two"].output.as_str(), run.jobs["two"].code), ("", 101));
    }

    #[test]
    fn a_machine_that_ends_early_is_a_failure_that_names_the_job() {
        let error = told(&["@@ begin one", "half a"]).expect_err("it never said done").to_string();
        assert!(error.contains("ended early in one") && error.contains("half a"), "{error}");
    }
}
