//! Programs of somebody else on our hooks.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

use nix::libc;

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_LINK_CREATE: u32 = 28;
const CGROUP_SOCK_ADDR: u32 = 18;
const CONNECT4: u32 = 10;

/// A program on the hook of `connect` over IPv4.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name, at most 15 bytes.
    pub name: &'static str,
    /// Whether it lets connections pass.
    pub allows: bool,
    /// Whether others may be on the hook too.
    pub shares: bool,
}

impl Program {
    /// Attaches it to a cgroup, with which it goes away.
    pub fn attach(self, cgroup: &Path) -> io::Result<OwnedFd> {
        const ALLOW_MULTI: u32 = 2;
        #[repr(C)]
        struct Request {
            target: RawFd,
            program: RawFd,
            attach: u32,
            flags: u32,
        }
        let program = self.load()?;
        let target = File::open(cgroup)?;
        let flags = if self.shares { ALLOW_MULTI } else { 0 };
        let (target_fd, program_fd) = (target.as_raw_fd(), program.as_raw_fd());
        bpf(BPF_PROG_ATTACH, &Request { target: target_fd, program: program_fd, attach: CONNECT4, flags })?;
        Ok(program)
    }

    /// Attaches it by a link, with flags of linux/bpf.h; it goes away with the descriptors.
    pub fn link(self, cgroup: &Path, flags: u32) -> io::Result<[OwnedFd; 2]> {
        #[repr(C)]
        struct Request {
            program: RawFd,
            target: RawFd,
            attach: u32,
            flags: u32,
            relative: RawFd,
            padding: u32,
            revision: u64,
        }
        let program = self.load()?;
        let target = File::open(cgroup)?;
        let (program_fd, target_fd) = (program.as_raw_fd(), target.as_raw_fd());
        let link = bpf(
            BPF_LINK_CREATE,
            &Request {
                program: program_fd,
                target: target_fd,
                attach: CONNECT4,
                flags,
                relative: 0,
                padding: 0,
                revision: 0,
            },
        )?;
        // SAFETY: the kernel just returned this descriptor, and nobody else knows it.
        Ok([program, unsafe { OwnedFd::from_raw_fd(link) }])
    }

    fn load(self) -> io::Result<OwnedFd> {
        #[repr(C)]
        struct Request {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log: [u32; 4],
            kernel_version: u32,
            flags: u32,
            name: [u8; 16],
            interface: u32,
            attach: u32,
        }
        // `r0 = allows; exit`
        let instructions = [u64::from(self.allows) << 32 | 0xb7, 0x95];
        let mut name = [0; 16];
        name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let program = bpf(
            BPF_PROG_LOAD,
            &Request {
                kind: CGROUP_SOCK_ADDR,
                count: 2,
                instructions: instructions.as_ptr() as u64,
                license: c"GPL".as_ptr() as u64,
                log: [0; 4],
                kernel_version: 0,
                flags: 0,
                name,
                interface: 0,
                attach: CONNECT4,
            },
        )?;
        // SAFETY: the kernel just returned this descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(program) })
    }
}

fn bpf<T>(command: u32, request: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads the request, and what it points to, which lives as long as the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(request), size_of::<T>()) };
    RawFd::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}
