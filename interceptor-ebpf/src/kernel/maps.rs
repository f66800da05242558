//! Every map, with who writes it and when its entries end.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, HashOfMaps, LpmTrie, LruHashMap, PerCpuHashMap, RingBuf, SockHash},
    macros::btf_map,
};
use interceptor_ebpf::abi::{
    Counters, Endpoint, EntryKey, EntryWords, Event, Flow, Label, ListenerKey, Pending, Resolver,
    SocketRecord,
};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// A workload's policy table, of [`Entry`](interceptor_ebpf::abi::Entry)s. Userspace makes each as large as its capture
/// and routes ask for.
///
/// The entries are described to the kernel as plain words, not as a struct: from Linux 5.15 to 6.2 a map can be put into
/// another only if both or neither has a struct for its values (`timer_off` in `bpf_map_meta_equal`), and what userspace
/// makes has no description at all.
pub(crate) type PolicyTable = LpmTrie<EntryKey, EntryWords, 1>;

/// Netns cookie to policy table. Written by `apply` and `release` alone; a change swaps the whole table.
#[btf_map(pin_by_name)]
pub(crate) static WORKLOADS: HashOfMaps<u64, PolicyTable, 65_536, ON_DEMAND> = HashOfMaps::new();

/// Netns cookie to its counters. Made by `apply`, removed by `release`.
#[btf_map(pin_by_name)]
pub(crate) static COUNTERS: PerCpuHashMap<u64, Counters, 65_536, ON_DEMAND> = PerCpuHashMap::new();

/// Redirected connections whose proxy socket does not exist yet. Put before the SYN leaves, taken when the proxy's
/// socket is made, or taken back when the client's socket closes first.
#[btf_map(pin_by_name)]
pub(crate) static PENDING: HashMap<Flow, Pending, 262_144, ON_DEMAND> = HashMap::new();

/// DNS servers by the address their answers come from. An entry unused for long gives way to a newer one: its late
/// answers are then dropped, never taken for another server's.
#[btf_map(pin_by_name)]
pub(crate) static RESOLVERS: LruHashMap<Resolver, Endpoint, 65_536> = LruHashMap::new();

/// The proxies' listening sockets. The kernel removes an entry with its socket.
#[btf_map(pin_by_name)]
pub(crate) static LISTENERS: SockHash<ListenerKey, 65_536> = SockHash::new();

/// Netns cookie to the name people know the workload by. No program reads it.
#[btf_map(pin_by_name)]
pub(crate) static LABELS: HashMap<u64, Label, 65_536, ON_DEMAND> = HashMap::new();

/// Decisions for `interceptor trace`, while it reads.
#[btf_map(pin_by_name)]
pub(crate) static TRACE: RingBuf<Event, 1_048_576> = RingBuf::new();

/// Whether anybody reads `TRACE`, written by `interceptor trace`, and how many decisions had no room there.
#[btf_map(pin_by_name)]
pub(crate) static TRACING: Array<u64, 2> = Array::new();

/// What is kept with a socket; lives as long as the socket does.
#[btf_map]
pub(crate) static SOCKETS: SocketStorage = SocketStorage::new();

/// Netns cookie this copy of the `sk_lookup` program is for: that program type cannot ask for it.
#[unsafe(no_mangle)]
pub(crate) static WORKLOAD_COOKIE: Global<u64> = Global::new(0);

/// Whether the kernel has `bpf_set_retval` in connect hooks (5.18), so that a refusal can carry an errno of its own.
#[unsafe(no_mangle)]
pub(crate) static HAS_SET_RETVAL: Global<u8> = Global::new(0);

/// Whether the kernel tells connect hooks the process id of the caller (6.10).
#[unsafe(no_mangle)]
pub(crate) static HAS_PROCESS: Global<u8> = Global::new(0);

/// Whether the kernel tells connect hooks the name of the calling thread.
#[unsafe(no_mangle)]
pub(crate) static HAS_COMMAND: Global<u8> = Global::new(0);

/// Definition of a socket storage map that accepted sockets inherit; aya's own type has no `BPF_F_CLONE`.
#[repr(C)]
pub(crate) struct SocketStorage {
    r#type: *const [i32; aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketRecord,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
    pinning: *const [i32; 1],
}

// SAFETY: the pointers only describe types to the loader; nothing ever follows them.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
            pinning: core::ptr::null(),
        }
    }
}
