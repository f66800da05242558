//! Trials of maps.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
};

use nix::libc;

use super::{
    super::sys::{bpf, descriptor},
    Answer, taken, types,
};

/// A map to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// `bpf_map_type` of linux/bpf.h.
    pub(crate) kind: u32,
    /// Bytes of a key.
    pub(crate) key: u32,
    /// Bytes of a value.
    pub(crate) value: u32,
    /// How many entries, or how many bytes for a ring buffer.
    pub(crate) entries: u32,
    /// `BPF_F_*` of linux/bpf.h.
    pub(crate) flags: u32,
}

/// Whether a map can be made.
pub(crate) fn map(shape: Shape) -> Answer {
    taken(create_map(shape, -1, None))
}

/// Whether a map whose values are maps of another shape can be made.
pub(crate) fn map_of_maps(outer: Shape, inner: Shape) -> Answer {
    let inner = create_map(inner, -1, None)?;
    taken(create_map(outer, inner.as_raw_fd(), None))
}

/// Whether a map can keep values with sockets, made with flags of linux/bpf.h: one is stored, since some kernels make
/// the map and then find no memory for any value.
pub(crate) fn socket_storage(flags: u32) -> Answer {
    const SK_STORAGE: u32 = 24;
    #[repr(C)]
    struct Request {
        map: RawFd,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let types = match types::int() {
        Ok(types) => types,
        Err(error) => return taken(Err(error)),
    };
    let map =
        match create_map(Shape { kind: SK_STORAGE, key: 4, value: 4, entries: 0, flags }, -1, Some(&types)) {
            Ok(map) => map,
            Err(error) => return taken(Err(error)),
        };
    let socket =
        std::net::TcpListener::bind(("127.0.0.1", 0)).or_else(|_| std::net::TcpListener::bind(("::1", 0)))?;
    let (socket, value) = (socket.as_fd().as_raw_fd(), 1_u32);
    let request = Request {
        map: map.as_raw_fd(),
        padding: 0,
        key: (&raw const socket) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    match bpf(BPF_MAP_UPDATE_ELEM, &request) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => Ok(false),
        Err(error) => Err(error),
    }
}

const BPF_MAP_CREATE: u32 = 0;
const BPF_MAP_UPDATE_ELEM: u32 = 2;

fn create_map(shape: Shape, inner: RawFd, types: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Request {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
        flags: u32,
        inner: RawFd,
        node: u32,
        name: [u8; 16],
        interface: u32,
        types: RawFd,
        key_type: u32,
        value_type: u32,
    }
    let Shape { kind, key, value, entries, flags } = shape;
    let type_id = u32::from(types.is_some());
    let request = Request {
        kind,
        key,
        value,
        entries,
        flags,
        inner: inner.max(0),
        node: 0,
        name: [0; 16],
        interface: 0,
        types: types.map_or(0, rustix::fd::AsRawFd::as_raw_fd),
        key_type: type_id,
        value_type: type_id,
    };
    descriptor(bpf(BPF_MAP_CREATE, &request)?)
}
