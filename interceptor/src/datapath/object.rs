//! The BPF object: maps opened or made, programs loaded.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::LazyLock,
};

use aya::{Ebpf, EbpfLoader, programs::Program};

use super::{DatapathError, sys::AttachType, trial};

/// The object interceptor/build.rs built from the interceptor-ebpf crate.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/interceptor-ebpf"));

/// The cgroup hooks: name of the program, which is also the name of its link's pin, and where it is attached.
pub(super) const CGROUP_HOOKS: [(&str, AttachType); 12] = [
    ("connect4", AttachType::Connect4),
    ("connect6", AttachType::Connect6),
    ("getpeername4", AttachType::GetPeerName4),
    ("getpeername6", AttachType::GetPeerName6),
    ("getsockname4", AttachType::GetSockName4),
    ("getsockname6", AttachType::GetSockName6),
    ("sendmsg4", AttachType::SendMsg4),
    ("sendmsg6", AttachType::SendMsg6),
    ("recvmsg4", AttachType::RecvMsg4),
    ("recvmsg6", AttachType::RecvMsg6),
    ("original_dst", AttachType::GetSockOpt),
    ("socket_events", AttachType::SockOps),
];

/// The program that is attached once a workload.
pub(super) const STEER: &str = "steer";

/// What tells this build's programs from another's: a digest of the object.
pub(super) fn digest() -> u64 {
    static DIGEST: LazyLock<u64> = LazyLock::new(|| {
        let mut hasher = DefaultHasher::new();
        OBJECT.hash(&mut hasher);
        hasher.finish()
    });
    *DIGEST
}

/// The object with its maps, which are the pinned ones where there are any.
pub(super) struct Object {
    ebpf: Ebpf,
}

impl Object {
    /// Opens the object. Maps not yet pinned in `maps` are made and pinned there. `workload` is the namespace that
    /// `steer` is for.
    pub(super) fn open(maps: &Path, workload: u64) -> Result<Self, DatapathError> {
        // Where nobody can tell, a refused connection fails with the kernel's own errno, and a trace names no process.
        let has = |helper| u8::from(trial::helper(AttachType::Connect4, helper).unwrap_or(false));
        let has_set_retval = has(trial::SET_RETVAL);
        let (has_process, has_command) = (has(trial::CURRENT_PROCESS), has(trial::CURRENT_COMMAND));
        let ebpf = EbpfLoader::new()
            .default_map_pin_directory(maps)
            .override_global("WORKLOAD_COOKIE", &workload, true)
            .override_global("HAS_SET_RETVAL", &has_set_retval, true)
            .override_global("HAS_PROCESS", &has_process, true)
            .override_global("HAS_COMMAND", &has_command, true)
            .load(OBJECT)
            .map_err(|source| DatapathError::Object(Box::new(source)))?;
        Ok(Self { ebpf })
    }

    /// Loads one of the cgroup hooks' programs.
    pub(super) fn load_hook(&mut self, name: &'static str) -> Result<BorrowedFd<'_>, DatapathError> {
        self.load(name)
    }

    /// Loads the program that steers arriving connections.
    pub(super) fn load_steering(&mut self) -> Result<BorrowedFd<'_>, DatapathError> {
        self.load(STEER)
    }

    /// Loads a program, and tells how many instructions the verifier followed, where the kernel does (Linux 5.16).
    pub(super) fn load_counting(&mut self, name: &'static str) -> Result<Option<u32>, DatapathError> {
        self.load(name)?;
        let info = self.ebpf.program(name).map(Program::info);
        Ok(info.and_then(Result::ok).and_then(|info| info.verified_instruction_count()))
    }

    /// Loads a program, unless this object has done so already.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the object has programs of these four types only")]
    fn load(&mut self, name: &'static str) -> Result<BorrowedFd<'_>, DatapathError> {
        let refused = |error| DatapathError::Refused { name, error: Box::new(error) };
        let program = self.ebpf.program_mut(name).ok_or(DatapathError::NoProgram { name })?;
        if program.fd().is_err() {
            let loaded = match program {
                Program::CgroupSockAddr(program) => program.load(),
                Program::CgroupSockopt(program) => program.load(),
                Program::SockOps(program) => program.load(),
                Program::SkLookup(program) => program.load(),
                _ => return Err(DatapathError::NoProgram { name }),
            };
            loaded.map_err(refused)?;
        }
        program.fd().map(AsFd::as_fd).map_err(refused)
    }
}
