//! Programs of 32 bits on a kernel of 64: they are intercepted, but a proxy among them must not rely on
//! `SO_ORIGINAL_DST`.
//!
//! The system calls of such programs can be made from any program, through the interrupt that they use.
#![cfg(target_arch = "x86_64")]

use std::{arch::asm, io, net::SocketAddr, os::fd::AsRawFd as _, path::Path, ptr};

use interceptor::parity::proxy::OUTBOUND_PORT;
use nix::libc;
use socket2::{SockAddr, Socket};

use crate::{
    client::{listen, service, tcp},
    stage::{Corner, NO_PROXY},
};

/// Numbers of `arch/x86/entry/syscalls/syscall_32.tbl`.
const CONNECT: i32 = 362;
const GETSOCKOPT: i32 = 365;
const SO_ORIGINAL_DST: u32 = 80;

#[test]
fn a_proxy_of_32_bits_gets_the_kernels_own_answer() -> anyhow::Result<()> {
    Corner { differs: &[("proxy.original", "0", "-2")], ..NO_PROXY }.holds(|account| {
        // Where the kernel does not know such programs, the interrupt ends the process.
        if !Path::new("/proc/sys/abi/vsyscall32").exists() {
            account.skipped = Some("the kernel runs no programs of 32 bits".to_owned());
            return Ok(());
        }
        let [proxy, _] = listen(OUTBOUND_PORT)?;
        let to = service(1, 80);
        let client = tcp(to)?;
        let low = Low::new()?;
        account.note("connect", connect(&low, &client, to)?);
        account.names("client", &client);
        let (accepted, _) = proxy.accept()?;
        account.names("proxy", &accepted);
        account.note("proxy.original", original(&low, &accepted.into())?);
        Ok(())
    })
}

fn connect(low: &Low, socket: &Socket, to: SocketAddr) -> anyhow::Result<i32> {
    let address = SockAddr::from(to);
    // SAFETY: the page has room for any address, and nobody else writes to it.
    unsafe { ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), low.0, address.len().try_into()?) };
    let (fd, name) = (u32::try_from(socket.as_raw_fd())?, low.address(0)?);
    Ok(low.call(CONNECT, [fd, name, address.len(), 0, 0]))
}

fn original(low: &Low, socket: &Socket) -> anyhow::Result<i32> {
    const LENGTH_AT: usize = 64;
    // SAFETY: the place lies within the page.
    unsafe { low.0.add(LENGTH_AT).cast::<[u8; 4]>().write(16_u32.to_ne_bytes()) };
    let (buffer, length) = (low.address(0)?, low.address(LENGTH_AT)?);
    let fd = u32::try_from(socket.as_raw_fd())?;
    Ok(low.call(GETSOCKOPT, [fd, 0, SO_ORIGINAL_DST, buffer, length]))
}

/// A page that 32 bits can name.
struct Low(*mut u8);

impl Low {
    const SIZE: usize = 4096;

    fn new() -> io::Result<Self> {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
        // SAFETY: a new page, wherever there is room.
        let page = unsafe { libc::mmap(ptr::null_mut(), Self::SIZE, access, kind, -1, 0) };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(page.cast())) }
    }

    fn address(&self, offset: usize) -> anyhow::Result<u32> {
        Ok(u32::try_from(self.0.addr() + offset)?)
    }

    /// Makes a system call as a program of 32 bits does; returns what the kernel does.
    #[expect(clippy::unused_self, reason = "what the arguments name lies in the page")]
    fn call(&self, number: i32, arguments: [u32; 5]) -> i32 {
        let [first, second, third, fourth, fifth] = arguments;
        let result: i32;
        // SAFETY: the kernel reads and writes only what the arguments name, within the page. The first argument goes
        // into a register that the compiler keeps for itself, so it is put back.
        unsafe {
            asm!(
                "xchg rbx, {first}",
                "int 0x80",
                "xchg rbx, {first}",
                first = inout(reg) u64::from(first) => _,
                inlateout("eax") number => result,
                in("ecx") second,
                in("edx") third,
                in("esi") fourth,
                in("edi") fifth,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        result
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: the page is ours, and nothing of it is borrowed.
        unsafe { libc::munmap(self.0.cast(), Self::SIZE) };
    }
}
