//! What a world leaves in the kernel outside its own descriptors, and its removal, whichever way the process ends.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    mem,
    path::PathBuf,
    process::{self, Child, Command, Output},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
};

use anyhow::{Context as _, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::cgroup::Cgroup;

/// Every world of this process that may still have something to remove.
static LIVE: Mutex<Vec<Weak<Residue>>> = Mutex::new(Vec::new());

/// Undoes one thing that was done to the system.
pub type Undo = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;

/// The removable part of one world.
pub(super) struct Residue(Mutex<State>);

struct State {
    closed: bool,
    undo: Vec<Undo>,
    children: Vec<Arc<Mutex<Child>>>,
    cgroup: Cgroup,
}

impl Residue {
    /// Makes a world's cgroup and from now on removes it, on a signal too.
    pub(super) fn create(name: &str) -> anyhow::Result<(Arc<Self>, PathBuf)> {
        watch_signals()?;
        // Once a signal came, the lock is never free again: nothing is made that would not be removed.
        let mut live = lock(&LIVE);
        let cgroup = Cgroup::create(name)?;
        let path = cgroup.path().to_owned();
        let state = State { closed: false, undo: Vec::new(), children: Vec::new(), cgroup };
        let residue = Arc::new(Self(Mutex::new(state)));
        live.retain(|other| other.strong_count() > 0);
        live.push(Arc::downgrade(&residue));
        Ok((residue, path))
    }

    /// Runs a tool to its end. Removal waits for it, so a tool never finishes in a world that is gone.
    pub(super) fn run(&self, command: &mut Command, input: &str) -> anyhow::Result<Output> {
        let _state = self.open()?;
        let name = command.get_program().to_string_lossy().into_owned();
        // A file, and no pipe: whoever does not read it all does no harm, and it can be read more than once.
        let input = in_memory(input).with_context(|| format!("cannot feed {name}"))?;
        command.stdin(input).output().with_context(|| format!("cannot run {name}"))
    }

    /// Starts a process that lives no longer than the world.
    pub(super) fn spawn(&self, command: &mut Command) -> anyhow::Result<Arc<Mutex<Child>>> {
        let mut state = self.open()?;
        let child = Arc::new(Mutex::new(command.spawn().context("cannot start a process")?));
        state.children.push(Arc::clone(&child));
        Ok(child)
    }

    /// Has `undo` run at the end, before what was registered earlier.
    pub(super) fn on_close(&self, undo: Undo) -> anyhow::Result<()> {
        self.open()?.undo.push(undo);
        Ok(())
    }

    /// Removes everything; a second call has nothing to do. Every step is tried, the first error is reported.
    pub(super) fn close(&self) -> anyhow::Result<()> {
        let mut state = lock(&self.0);
        if mem::replace(&mut state.closed, true) {
            return Ok(());
        }
        let mut outcome = Ok(());
        while let Some(undo) = state.undo.pop() {
            outcome = outcome.and(undo());
        }
        for child in state.children.drain(..) {
            let mut child = lock(&child);
            let killed =
                child.kill().and_then(|()| child.wait()).context("cannot end a process of the world");
            outcome = outcome.and(killed.map(drop));
        }
        outcome.and(state.cgroup.remove())
    }

    fn open(&self) -> anyhow::Result<MutexGuard<'_, State>> {
        let state = lock(&self.0);
        if state.closed {
            bail!("the world is being removed");
        }
        Ok(state)
    }
}

/// On SIGINT, SIGTERM and SIGHUP every living world is removed before the process ends with `128 + signal`.
fn watch_signals() -> anyhow::Result<()> {
    static WATCHING: Mutex<bool> = Mutex::new(false);
    let mut watching = lock(&WATCHING);
    if mem::replace(&mut *watching, true) {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // The lock is kept to the end, so that no new world appears meanwhile.
            let live = lock(&LIVE);
            let failed = live.iter().filter_map(Weak::upgrade).filter_map(|world| world.close().err());
            process::exit(if failed.inspect(complain).count() == 0 { 128 + signal } else { 1 });
        }
    });
    Ok(())
}

/// Tells that something was left behind, where no caller is left to tell.
#[expect(clippy::print_stderr, reason = "neither drop nor a signal handler can return an error")]
pub(super) fn complain(error: &anyhow::Error) {
    eprintln!("error: cannot remove a test world: {error:#}");
}

/// A panic elsewhere must not keep us from removing what is left.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_memory(content: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content.as_bytes())?;
    file.rewind()?;
    Ok(file)
}
