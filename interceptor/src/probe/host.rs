//! What the system and the caller bring: mounts, rights, limits, switches.

use std::{
    cell::OnceCell,
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use nix::{
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        statfs::{BPF_FS_MAGIC, statfs},
        statvfs::{FsFlags, statvfs},
    },
    unistd::{AccessFlags, access},
};
use rustix::{
    io::Errno,
    process::{
        PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_getfd, pidfd_open, setrlimit,
    },
};

use super::{
    feature::Finding,
    netfilter::{self, Symbols},
};
use crate::{cgroup, datapath, netns};

/// What several checks look at, each thing read at most once.
pub(super) struct Host {
    state: PathBuf,
    mounts: String,
    symbols: OnceCell<Option<Symbols>>,
}

impl Host {
    pub(super) fn new(state: &Path) -> Self {
        // Before Linux 5.11 programs and maps count against this limit of the process, even for a while after they are
        // gone. Where it may not be raised, the row about memory says so.
        let _unraised = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
        // Without the list of mounts nothing is found in it, which the rows then say.
        let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
        Self { state: state.to_owned(), mounts, symbols: OnceCell::new() }
    }

    /// The kernel's functions; none if it does not list them.
    pub(super) fn symbols(&self) -> Option<&Symbols> {
        self.symbols.get_or_init(netfilter::read_symbols).as_ref()
    }

    /// Mount points of filesystems whose type is `kind` and whose options contain `option`.
    fn mounts(&self, kind: &str, option: &str) -> Vec<&str> {
        self.mounts
            .lines()
            .filter_map(|line| line.split_once(" - "))
            .filter(|(_, filesystem)| {
                let mut words = filesystem.split(' ');
                words.next() == Some(kind)
                    && (option.is_empty()
                        || words.next_back().is_some_and(|all| all.split(',').any(|one| one == option)))
            })
            .filter_map(|(mount, _)| mount.split(' ').nth(4))
            .collect()
    }
}

const MOUNTS: &str = "/proc/thread-self/mountinfo";
const READ_MOUNTS: &str = "read /proc/thread-self/mountinfo";

/// The hierarchy the hooks are attached to.
pub(super) fn cgroup2(host: &Host) -> Finding {
    let v1 = host.mounts("cgroup", "");
    match cgroup::mount_point() {
        Ok(point) if v1.is_empty() => Finding::new(true, READ_MOUNTS, format!("at {}", point.display())),
        Ok(point) => Finding::new(true, READ_MOUNTS, format!("at {}, beside cgroup v1", point.display())),
        Err(_) if v1.is_empty() => Finding::new(false, READ_MOUNTS, "no cgroups are mounted at all"),
        Err(_) => Finding::new(false, READ_MOUNTS, "only cgroup v1 is mounted"),
    }
}

/// Controllers of cgroup v1 that, once used, make some kernels before 5.15 lose a socket's cgroup.
pub(super) fn no_network_controllers(host: &Host) -> Finding {
    let mounted: Vec<_> =
        ["net_cls", "net_prio"].iter().flat_map(|controller| host.mounts("cgroup", controller)).collect();
    match mounted.first() {
        None => Finding::new(true, READ_MOUNTS, ""),
        Some(point) => Finding::new(false, READ_MOUNTS, format!("mounted at {point}")),
    }
}

/// The filesystem that keeps what is in force.
pub(super) fn bpffs(host: &Host) -> Finding {
    let how = "asked the filesystem";
    let folder = host.state.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    if statfs(folder).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC) {
        if statvfs(folder).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY)) {
            return Finding::new(false, how, format!("{} is mounted read-only", folder.display()));
        }
        if access(folder, AccessFlags::W_OK).is_err() {
            return Finding::unknown(how, format!("{} is there, but not for this user", folder.display()));
        }
        return Finding::new(true, how, format!("{} is on it", host.state.display()));
    }
    if !host.state.starts_with(datapath::BPFFS) {
        return Finding::new(false, how, format!("{} is on another filesystem", folder.display()));
    }
    if !Path::new(datapath::BPFFS).is_dir() {
        return Finding::new(false, how, format!("there is no folder {}", datapath::BPFFS));
    }
    let may_mount = has_capability(CAP_SYS_ADMIN).unwrap_or(false);
    let detail = if may_mount {
        "not mounted, `apply` does that"
    } else {
        "not mounted, and mounting needs CAP_SYS_ADMIN"
    };
    Finding::new(may_mount, how, detail)
}

/// Capability numbers of linux/capability.h.
pub(super) const CAP_NET_ADMIN: u32 = 12;
pub(super) const CAP_SYS_PTRACE: u32 = 19;
pub(super) const CAP_SYS_ADMIN: u32 = 21;
pub(super) const CAP_BPF: u32 = 39;

/// Loading programs; `CAP_SYS_ADMIN` includes it.
pub(super) fn may_load(_: &Host) -> Finding {
    capability(CAP_BPF, true)
}

/// Attaching to network hooks, changing nat rules.
pub(super) fn may_administer_network(_: &Host) -> Finding {
    capability(CAP_NET_ADMIN, false)
}

/// Entering other namespaces.
pub(super) fn may_enter(_: &Host) -> Finding {
    capability(CAP_SYS_ADMIN, false)
}

/// Taking copies of another process' sockets.
pub(super) fn may_trace(_: &Host) -> Finding {
    capability(CAP_SYS_PTRACE, false)
}

fn capability(number: u32, or_sys_admin: bool) -> Finding {
    let how = "read /proc/thread-self/status";
    match has_capability(number) {
        Some(true) => Finding::new(true, how, ""),
        Some(false) if or_sys_admin && has_capability(CAP_SYS_ADMIN) == Some(true) => {
            Finding::new(true, how, "as part of CAP_SYS_ADMIN")
        }
        Some(false) => Finding::new(false, how, ""),
        None => Finding::unknown(how, "it does not tell"),
    }
}

/// Whether the caller has a capability in the initial user namespace: the kernel asks for it there. None if that
/// cannot be read.
fn has_capability(number: u32) -> Option<bool> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    let is_initial = fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    Some(is_initial && mask & (1 << number) != 0)
}

/// The limit older kernels hold maps against.
fn locked_memory() -> String {
    match getrlimit(Resource::Memlock).current {
        None => "no limit of locked memory".to_owned(),
        Some(bytes) => format!("limit of locked memory {} KiB", bytes / 1024),
    }
}

/// Enough memory for maps, as far as the caller's limit goes.
pub(super) fn memory(_: &Host) -> Finding {
    use crate::datapath::trial::{self, Shape};
    const ARRAY: u32 = 2;
    let (how, shape) =
        ("made a map of 8 MiB", Shape { kind: ARRAY, key: 4, value: 4096, entries: 2048, flags: 0 });
    match trial::map(shape) {
        Ok(present) => Finding::new(present, how, locked_memory()),
        Err(error) if has_capability(CAP_SYS_ADMIN) == Some(true) => Finding::new(
            false,
            how,
            format!("{error}; {}, raise it with `ulimit -l unlimited`", locked_memory()),
        ),
        Err(error) => Finding::unknown(how, error.to_string()),
    }
}

/// The number by which a namespace is known.
pub(super) fn namespace_cookie(_: &Host) -> Finding {
    let how = "asked a socket";
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    match socket.and_then(|socket| netns::netns_cookie(&socket)) {
        Ok(_) => Finding::new(true, how, ""),
        Err(nix::Error::ENOPROTOOPT) => Finding::new(false, how, ""),
        Err(error) => Finding::unknown(how, error.desc()),
    }
}

/// Copying a socket out of another process; tried with a file of our own.
pub(super) fn descriptor_copies(_: &Host) -> Finding {
    let how = "asked for a copy of a descriptor";
    let Ok(file) = File::open("/proc/self/status") else {
        return Finding::unknown(how, "/proc is not there");
    };
    let copy = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, file.as_raw_fd(), PidfdGetfdFlags::empty()));
    match copy {
        Ok(_) => Finding::new(true, how, ""),
        Err(Errno::NOSYS) => Finding::new(false, how, ""),
        Err(error) => Finding::unknown(how, error.to_string()),
    }
}

/// Compiling programs to machine code.
pub(super) fn compiler(_: &Host) -> Finding {
    switch("/proc/sys/net/core/bpf_jit_enable", |value| value != "0")
}

/// IPv6 in the caller's namespace.
pub(super) fn ipv6(_: &Host) -> Finding {
    let path = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
    if Path::new(path).exists() {
        return switch(path, |value| value == "0");
    }
    Finding::new(false, format!("read {path}"), "the kernel has none")
}

/// No lockdown of the kernel against root.
pub(super) fn no_lockdown(_: &Host) -> Finding {
    let path = "/sys/kernel/security/lockdown";
    let how = format!("read {path}");
    match fs::read_to_string(path) {
        Ok(modes) => {
            let mode =
                modes.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(mode, _)| mode);
            Finding::new(mode != "confidentiality", how, format!("mode {mode}"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Finding::new(true, how, "no such file"),
        Err(error) => Finding::unknown(how, error.to_string()),
    }
}

fn switch(path: &'static str, is_on: impl FnOnce(&str) -> bool) -> Finding {
    let how = format!("read {path}");
    match fs::read_to_string(path) {
        Ok(value) => Finding::new(is_on(value.trim()), how, format!("it is {}", value.trim())),
        Err(error) => Finding::unknown(how, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(mounts: &str) -> Host {
        Host { mounts: mounts.to_owned(), ..Host::new(Path::new("/sys/fs/bpf/interceptor")) }
    }

    #[test]
    fn controllers_are_found_in_the_options_of_their_hierarchy() {
        let v1 = "33 30 0:28 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls,net_prio";
        let v2 = "39 30 0:34 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        let both = host(&format!("{v1}\n{v2}"));
        assert_eq!(both.mounts("cgroup", ""), ["/sys/fs/cgroup/net_cls"]);
        assert_eq!(both.mounts("cgroup", "net_prio"), ["/sys/fs/cgroup/net_cls"]);
        assert_eq!(both.mounts("cgroup2", ""), ["/sys/fs/cgroup/unified"]);
        assert!(both.mounts("cgroup", "cpu").is_empty());
        assert_eq!(no_network_controllers(&both).present, super::super::Presence::No);
        assert_eq!(no_network_controllers(&host(v2)).present, super::super::Presence::Yes);
    }
}
