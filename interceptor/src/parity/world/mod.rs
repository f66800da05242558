//! A small network of our own: pods and a peer in fresh namespaces, a cgroup for their processes, and the way to remove it.

mod cgroup;
mod identity;
mod namespace;
mod network;
mod residue;

use std::{
    ffi::OsStr,
    fs,
    net::IpAddr,
    ops::Range,
    path::{Path, PathBuf},
    process::{self, Child, Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Context as _;

use self::residue::{Residue, complain};
pub use self::{identity::Identity, namespace::Namespace, residue::Undo};
use super::{
    actor::Owner,
    plan::{Family, Host, Link, Place, SERVICES},
};

/// What a world is to consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whether there is a second pod.
    pub second_pod: bool,
    /// Whether the pods have a default route; without one they reach only their own link.
    pub default_route: bool,
    /// Whether the peer has every address that nobody else has.
    pub peer_is_everywhere: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { second_pod: false, default_route: true, peer_is_everywhere: false }
    }
}

/// Fresh namespaces, joined by veth, and a cgroup. Removed on drop, on a panic, and on SIGINT, SIGTERM and SIGHUP.
pub struct World {
    name: String,
    residue: Arc<Residue>,
    cgroup: PathBuf,
    pod: Namespace,
    second_pod: Option<Namespace>,
    peer: Namespace,
}

impl World {
    /// Builds a world beside any number of others.
    pub fn build(layout: Layout) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("interceptor-parity-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (residue, cgroup) = Residue::create(&name)?;
        let world = Self {
            name,
            residue,
            cgroup,
            pod: Namespace::create()?,
            second_pod: layout.second_pod.then(Namespace::create).transpose()?,
            peer: Namespace::create()?,
        };
        world.wire(layout)?;
        Ok(world)
    }

    /// A name that no other world has: for a state directory, for instance.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cgroup that every process of this world is in.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The namespace of a place.
    pub fn namespace(&self, place: Place) -> anyhow::Result<&Namespace> {
        match place {
            Place::Pod => Ok(&self.pod),
            Place::SecondPod => self.second_pod.as_ref().context("this world has no second pod"),
            Place::Peer => Ok(&self.peer),
        }
    }

    /// Adds one more pod, joined to the peer and routed through it as the others are. Its addresses are those of the
    /// plan's pod, but with `number` in the place of 1: a number of its own, from 3 on.
    pub fn add_pod(&self, number: u8) -> anyhow::Result<Namespace> {
        let pod = Namespace::create()?;
        network::prepare(&pod)?;
        let link = Link::numbered(number, format!("pod{number}"));
        network::join(&pod, &self.peer, &link, true)
            .with_context(|| format!("cannot join pod{number} and peer"))?;
        Ok(pod)
    }

    /// Runs a tool to its end, feeding it `input`, in the namespace of `place` if one is given.
    pub fn run(&self, place: Option<Place>, command: &mut Command, input: &str) -> anyhow::Result<Output> {
        match place {
            None => self.residue.run(command, input),
            Some(place) => self.namespace(place)?.enter(|| self.residue.run(command, input)),
        }
    }

    /// Has the kernel choose ports of a place's sockets from a range.
    pub(super) fn choose_ports_from(&self, place: Place, ports: Range<u32>) -> anyhow::Result<()> {
        const SETTING: &str = "/proc/sys/net/ipv4/ip_local_port_range";
        let range = format!("{} {}", ports.start, ports.end - 1);
        self.namespace(place)?
            .enter(|| fs::write(SETTING, range).with_context(|| format!("cannot write {SETTING}")))
    }

    /// Starts a process that is killed, at the latest, when the world is removed.
    ///
    /// It gets a process group of its own: a Ctrl-C at the terminal is for us, who then end it in order.
    pub fn spawn(&self, command: &mut Command) -> anyhow::Result<Arc<Mutex<Child>>> {
        use std::os::unix::process::CommandExt as _;
        self.residue.spawn(command.process_group(0))
    }

    /// The command line of `program` in `place`, in this world's cgroup and owned by `owner`.
    ///
    /// `interceptor` is the path of the `interceptor` command, whose hidden subcommand `enter` gets it there.
    pub fn command(
        &self,
        interceptor: &Path,
        place: Place,
        owner: Owner,
        program: impl AsRef<OsStr>,
    ) -> anyhow::Result<Command> {
        let mut command = self.subcommand(interceptor, "enter", self.namespace(place)?, owner);
        command.arg("--").arg(program);
        Ok(command)
    }

    /// The command line of an actor; see [`super::actor`].
    pub(super) fn actor_command(&self, interceptor: &Path, namespace: &Namespace, owner: Owner) -> Command {
        self.subcommand(interceptor, "actor", namespace, owner)
    }

    fn subcommand(&self, interceptor: &Path, name: &str, namespace: &Namespace, owner: Owner) -> Command {
        let mut command = Command::new(interceptor);
        command.arg(name).arg("--netns").arg(namespace.path()).arg("--cgroup").arg(&self.cgroup);
        command.args(["--uid", &owner.uid.to_string(), "--gid", &owner.gid.to_string()]);
        command
    }

    /// Gives a place one more address of its own.
    pub fn add_to_loopback(&self, place: Place, address: IpAddr) -> anyhow::Result<()> {
        network::add_to_loopback(self.namespace(place)?, &[address])
    }

    /// Has `undo` run when the world is removed, before its processes are ended.
    pub fn on_close(&self, undo: Undo) -> anyhow::Result<()> {
        self.residue.on_close(undo)
    }

    /// Removes the world and says whether that worked; dropping it does the same but can only print what failed.
    pub fn close(self) -> anyhow::Result<()> {
        self.residue.close()
    }

    fn wire(&self, layout: Layout) -> anyhow::Result<()> {
        network::prepare(&self.peer)?;
        let services =
            (1..=SERVICES).flat_map(|n| [Family::V4, Family::V6].map(|f| Host::Service(n).address(f)));
        network::add_to_loopback(&self.peer, &services.collect::<Vec<_>>())?;
        for place in
            [Some(Place::Pod), self.second_pod.is_some().then_some(Place::SecondPod)].into_iter().flatten()
        {
            let pod = self.namespace(place)?;
            network::prepare(pod)?;
            if let Some(link) = Link::of(place) {
                network::join(pod, &self.peer, &link, layout.default_route)
                    .with_context(|| format!("cannot join {place} and peer"))?;
            }
        }
        if layout.peer_is_everywhere {
            network::be_everywhere(&self.peer)?;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = self.residue.close() {
            complain(&error);
        }
    }
}
