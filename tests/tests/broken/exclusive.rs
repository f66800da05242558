//! A program that shares its hook with nobody: attached as was usual before links.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

use nix::libc;

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const CGROUP_SOCK_ADDR: u32 = 18;
const CONNECT4: u32 = 10;
/// `r0 = 1; exit`: every connection may go on.
const ALLOW: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];

/// Attaches one to a cgroup, with which it goes away.
pub(crate) fn attach(cgroup: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        nothing: [u32; 10],
        interface: u32,
        attach: u32,
    }
    #[repr(C)]
    struct AttachRequest {
        target: RawFd,
        program: RawFd,
        attach: u32,
        flags: u32,
    }
    let program = bpf(
        BPF_PROG_LOAD,
        &Load {
            kind: CGROUP_SOCK_ADDR,
            count: 2,
            instructions: ALLOW.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            nothing: [0; 10],
            interface: 0,
            attach: CONNECT4,
        },
    )?;
    // SAFETY: the kernel just returned this descriptor, and nobody else knows it.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let target = File::open(cgroup)?;
    let request = AttachRequest {
        target: target.as_raw_fd(),
        program: program.as_raw_fd(),
        attach: CONNECT4,
        flags: 0,
    };
    bpf(BPF_PROG_ATTACH, &request)?;
    Ok(program)
}

fn bpf<T>(command: u32, request: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads the request, and what it points to, which lives as long as the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(request), size_of::<T>()) };
    RawFd::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}
