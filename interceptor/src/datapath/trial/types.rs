//! Descriptions of types for trials (Documentation/bpf/btf.rst).

use std::{io, os::fd::OwnedFd};

use super::super::sys::{bpf, descriptor};

/// The number of the first type that is described; 0 stands for `void`.
const INT: u32 = 1;
/// A 32-bit `int`, by that name.
const INT_WORDS: [u32; 4] = [name::INT, 1 << 24, 4, 1 << 24 | 32];

/// Describes a 32-bit `int`, which is type 1.
pub(super) fn int() -> io::Result<OwnedFd> {
    load(&INT_WORDS)
}

/// Describes two functions of external linkage that take a pointer to an `int` and return one; these are the types whose
/// numbers come with them.
pub(super) fn functions() -> io::Result<(OwnedFd, [u32; 2])> {
    const POINTER: u32 = 2;
    const PROTOTYPE: u32 = 3;
    const GLOBAL: u32 = 1;
    let function = |name| [name, 12 << 24 | GLOBAL, PROTOTYPE];
    let words = [
        &INT_WORDS[..],
        &[0, 2 << 24, INT],
        &[0, 13 << 24 | 1, INT, name::ARGUMENT, POINTER],
        &function(name::MAIN),
        &function(name::CALLED),
    ];
    Ok((load(&words.concat())?, [PROTOTYPE + 1, PROTOTYPE + 2]))
}

/// Where names begin.
mod name {
    pub(super) const ALL: &[u8] = b"\0int\0argument\0main\0called\0";
    pub(super) const INT: u32 = 1;
    pub(super) const ARGUMENT: u32 = 5;
    pub(super) const MAIN: u32 = 14;
    pub(super) const CALLED: u32 = 19;
}

fn load(types: &[u32]) -> io::Result<OwnedFd> {
    const BPF_BTF_LOAD: u32 = 18;
    const MAGIC_AND_VERSION: u32 = 0x0001_eb9f;
    const HEADER_LENGTH: u32 = 24;
    #[repr(C)]
    struct Request {
        data: u64,
        log: u64,
        size: u32,
        log_size: u32,
        log_level: u32,
        // The kernel refuses a request with anything but zeros behind what it knows.
        padding: u32,
    }
    let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let (types_length, names_length) = (length(size_of_val(types))?, length(name::ALL.len())?);
    let header = [MAGIC_AND_VERSION, HEADER_LENGTH, 0, types_length, types_length, names_length];
    let mut data: Vec<u8> = header.iter().chain(types).flat_map(|word| word.to_le_bytes()).collect();
    data.extend_from_slice(name::ALL);
    let size = length(data.len())?;
    descriptor(bpf(
        BPF_BTF_LOAD,
        &Request { data: data.as_ptr() as u64, log: 0, size, log_size: 0, log_level: 0, padding: 0 },
    )?)
}
