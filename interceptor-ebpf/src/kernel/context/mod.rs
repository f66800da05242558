//! Typed access to the contexts the kernel hands to a hook.
//!
//! The verifier allows a context field only one access: its own width at its own offset. LLVM merges or splits plain
//! accesses, so every one here is volatile.

use interceptor_ebpf::abi::Address;

pub(crate) const AF_INET: u32 = 2;
pub(crate) const IPPROTO_TCP: u32 = 6;
pub(crate) const IPPROTO_UDP: u32 = 17;

/// A context, hidden from LLVM's sight: it would keep the address of a field in a register, and the verifier refuses a
/// load or store through that ("dereference of modified ctx ptr").
#[inline(always)]
fn hidden<T>(context: *mut T) -> *mut T {
    core::hint::black_box(context)
}

/// Reads one field of a context or socket the verifier knows.
macro_rules! read {
    ($pointer:expr, $($field:tt)+) => {
        // SAFETY: the pointer comes from the kernel for the length of this run, and the verifier checks each access.
        unsafe { core::ptr::read_volatile(&raw const (*$pointer).$($field)+) }
    };
}
pub(crate) use read;

/// Reads a field of four words, one by one.
macro_rules! words {
    ($pointer:expr, $field:ident) => {
        [
            read!($pointer, $field[0]),
            read!($pointer, $field[1]),
            read!($pointer, $field[2]),
            read!($pointer, $field[3]),
        ]
    };
}

/// Writes one field of a context.
macro_rules! write {
    ($pointer:expr, $($field:tt)+) => {
        write!(@ $pointer, $($field)+)
    };
    (@ $pointer:expr, $field:ident $([$index:literal])? = $value:expr) => {
        // SAFETY: as for `read`.
        unsafe { core::ptr::write_volatile(&raw mut (*$pointer).$field $([$index])?, $value) }
    };
}
pub(crate) use write;

mod call;
mod event;
mod lookup;
mod socket;

pub(crate) use self::{call::SocketAddress, event::SocketEvent, lookup::ListenerLookup, socket::Socket};

/// Address family a `sock_addr` hook was attached for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The address of the family a socket has. Both are read first: LLVM makes one load of a choice between two fields,
/// at a computed offset, which the verifier refuses ("pointer arithmetic on sock prohibited").
#[inline(always)]
fn either(is_v4: bool, v4: u32, v6: [u32; 4]) -> Address {
    if is_v4 { Address::from_v4(v4) } else { Address::from_v6(v6) }
}
