//! The bpf(2) calls about links, pins and programs that aya does not make: every program type is attached, pinned,
//! opened, updated and described in the same way here.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc;

/// `bpf_attach_type` of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum AttachType {
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    SendMsg4 = 14,
    SendMsg6 = 15,
    RecvMsg4 = 19,
    RecvMsg6 = 20,
    GetSockOpt = 21,
    GetPeerName4 = 29,
    GetPeerName6 = 30,
    GetSockName4 = 31,
    GetSockName6 = 32,
    SkLookup = 36,
}

impl AttachType {
    /// The `bpf_prog_type` of linux/bpf.h of the programs that are attached there.
    pub(super) const fn program_type(self) -> u32 {
        match self {
            Self::SockOps => 13,
            Self::Connect4
            | Self::Connect6
            | Self::SendMsg4
            | Self::SendMsg6
            | Self::RecvMsg4
            | Self::RecvMsg6
            | Self::GetPeerName4
            | Self::GetPeerName6
            | Self::GetSockName4
            | Self::GetSockName6 => 18,
            Self::GetSockOpt => 25,
            Self::SkLookup => 30,
        }
    }
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Id of the link.
    pub(super) id: u32,
    /// Id of its program.
    pub(super) program: u32,
    /// Id of the cgroup, or inode of the namespace (0 once that is gone), it is attached to.
    pub(super) attached_to: u64,
}

/// Attaches a program to a cgroup or namespace. The link lasts while it is open or pinned (Linux 5.7; 5.9 for
/// `SkLookup`).
pub(super) fn create_link(program: BorrowedFd<'_>, target: &File, attach: AttachType) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Request {
        program: RawFd,
        target: RawFd,
        attach: u32,
        flags: u32,
    }
    let request =
        Request { program: program.as_raw_fd(), target: target.as_raw_fd(), attach: attach as u32, flags: 0 };
    descriptor(bpf(BPF_LINK_CREATE, &request)?)
}

/// Ids of the programs that run for a hook of a cgroup or namespace, those of its ancestors among them, in their order.
pub(super) fn effective_programs(target: &File, attach: AttachType) -> io::Result<Vec<u32>> {
    const BPF_F_QUERY_EFFECTIVE: u32 = 1;
    /// More than the kernel lets run on one hook of a cgroup (`BPF_CGROUP_MAX_PROGS`).
    const ROOM: usize = 1024;
    #[repr(C)]
    struct Request {
        target: RawFd,
        attach: u32,
        flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        padding: u32,
    }
    let mut ids = vec![0_u32; ROOM];
    // A namespace has no ancestors, and the kernel refuses to be asked for them.
    let flags = if attach == AttachType::SkLookup { 0 } else { BPF_F_QUERY_EFFECTIVE };
    let mut request = Request {
        target: target.as_raw_fd(),
        attach: attach as u32,
        flags,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: 1024,
        padding: 0,
    };
    bpf_answering(BPF_PROG_QUERY, &mut request)?;
    ids.truncate(request.count as usize);
    Ok(ids)
}

/// Gives a link or program a name in bpffs, which keeps it alive.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    bpf(BPF_OBJ_PIN, &PathRequest { name: name.as_ptr() as u64, object: object.as_raw_fd(), flags: 0 })
        .map(drop)
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    descriptor(bpf(BPF_OBJ_GET, &PathRequest { name: name.as_ptr() as u64, object: 0, flags: 0 })?)
}

/// Describes a link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // `struct bpf_link_info`: the part every kernel since 5.8 fills for cgroup and netns links.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        first: u64,
        second: u64,
    }
    const CGROUP_LINK: u32 = 3;
    const NETNS_LINK: u32 = 5;
    let mut info = Info::default();
    describe(link, &mut info)?;
    let Info { kind, id, program, padding: _, first, second: _ } = info;
    let attached_to = match kind {
        CGROUP_LINK => first,
        // A namespace's inode has 32 bits, the attach type follows in the other half.
        NETNS_LINK => first & 0xffff_ffff,
        other => return Err(io::Error::other(format!("the pin is a link of unexpected type {other}"))),
    };
    Ok(LinkInfo { id, program, attached_to })
}

/// Puts another program into a link. Every run of the hook sees the one or the other (Linux 5.7).
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Request {
        link: RawFd,
        program: RawFd,
        flags: u32,
        old_program: u32,
    }
    let request = Request { link: link.as_raw_fd(), program: program.as_raw_fd(), flags: 0, old_program: 0 };
    bpf(BPF_LINK_UPDATE, &request).map(drop)
}

/// What the kernel says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProgramInfo {
    /// Id of the program.
    pub(super) id: u32,
    /// Digest of its instructions, without what they refer to.
    pub(super) tag: [u8; 8],
    /// Ids of the maps it uses.
    pub(super) maps: Vec<u32>,
}

/// Opens a loaded program by its id (needs `CAP_SYS_ADMIN`).
pub(super) fn open_program(id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Request {
        id: u32,
        next: u32,
        flags: u32,
    }
    descriptor(bpf(BPF_PROG_GET_FD_BY_ID, &Request { id, next: 0, flags: 0 })?)
}

/// Describes a program.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    // `struct bpf_prog_info` up to its list of maps, which every kernel since 4.15 fills.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        lengths: [u32; 2],
        instructions: [u64; 2],
        loaded: u64,
        creator: u32,
        map_count: u32,
        maps: u64,
    }
    // More than any program of ours uses.
    let mut maps = vec![0_u32; 64];
    let room = u32::try_from(maps.len()).map_err(io::Error::other)?;
    let mut info = Info { map_count: room, maps: maps.as_mut_ptr() as u64, ..Info::default() };
    describe(program, &mut info)?;
    maps.truncate(info.map_count.min(room) as usize);
    Ok(ProgramInfo { id: info.id, tag: info.tag, maps })
}

/// Has the kernel fill `T`, which is the beginning of its structure for this kind of object.
fn describe<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    #[repr(C)]
    struct Request {
        object: RawFd,
        length: u32,
        info: u64,
    }
    let length = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let info = std::ptr::from_mut(info) as u64;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &Request { object: object.as_raw_fd(), length, info }).map(drop)
}

const BPF_OBJ_PIN: u32 = 6;
const BPF_OBJ_GET: u32 = 7;
const BPF_PROG_GET_FD_BY_ID: u32 = 13;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_PROG_QUERY: u32 = 16;
const BPF_LINK_CREATE: u32 = 28;
const BPF_LINK_UPDATE: u32 = 29;

#[repr(C)]
struct PathRequest {
    name: u64,
    object: RawFd,
    flags: u32,
}

/// One bpf(2) call. `T` is the part of `union bpf_attr` the command reads; the kernel takes the rest as zero.
pub(super) fn bpf<T>(command: u32, request: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of the request, and writes only where the request's own
    // pointers say, which live as long as the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(request), size_of::<T>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

/// One bpf(2) call that answers in its request.
fn bpf_answering<T>(command: u32, request: &mut T) -> io::Result<i32> {
    // SAFETY: as in `bpf`; the kernel may write to the request itself, which is ours alone.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(request), size_of::<T>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

pub(super) fn descriptor(number: i32) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
