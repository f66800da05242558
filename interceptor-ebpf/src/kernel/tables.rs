//! A workload's policy table, as the policy asks it.

use aya_ebpf::btf_maps::lpm_trie::Key;
use interceptor_ebpf::{
    abi::{Address, Entry, EntryKey, Marks, Subject, Workload},
    policy::Tables,
};

use super::{
    forget::Forget,
    maps::{PolicyTable, WORKLOADS},
};

/// The tables of one workload.
pub(crate) struct KernelTables {
    table: &'static PolicyTable,
    workload: &'static Workload,
}

/// The key of a workload's own entry. Not made on the stack, where zeros are written byte by byte.
static WORKLOAD: Key<EntryKey> = Key::new(EntryKey::full_bits(Subject::Workload), EntryKey::WORKLOAD);

/// Why a socket's namespace has no tables.
pub(crate) enum Absent {
    /// It is not under interception.
    NotEnrolled,
    /// It is, but its table lacks the workload itself.
    Broken,
}

impl KernelTables {
    /// The tables of the namespace with this cookie.
    #[inline(always)]
    pub(crate) fn of(workload: u64) -> Result<Self, Absent> {
        // SAFETY: userspace writes one table at a time, and the kernel waits for running programs after each write
        // (`maybe_wait_bpf_programs`), so no table is replaced under a program that found it.
        let table = unsafe { WORKLOADS.get(&workload) }.ok_or(Absent::NotEnrolled)?;
        let entry = table.get(&WORKLOAD).ok_or(Absent::Broken)?;
        Ok(Self { table, workload: Workload::of_entry(Entry::of_words(entry)) })
    }

    /// What makes the verifier forget.
    #[inline(always)]
    pub(crate) fn forget(&self) -> Forget<'_> {
        Forget(self.workload)
    }

    /// What capture and routes say of an address; nothing if no route leads to it.
    #[inline(always)]
    pub(crate) fn address(&self, address: &Address) -> Option<&'static Entry> {
        self.entry(Subject::Address, EntryKey::address(address))
    }

    /// Whether an address is local to the namespace.
    #[inline(always)]
    pub(crate) fn is_local(&self, address: &Address) -> bool {
        self.address(address).is_some_and(|entry| entry.has(Marks::LOCAL))
    }

    /// What the capture says of a port.
    #[inline(always)]
    pub(crate) fn port(&self, subject: Subject, port: u16) -> Option<&'static Entry> {
        self.entry(subject, EntryKey::port(subject, port))
    }

    /// What the capture says of a user, group or interface.
    #[inline(always)]
    pub(crate) fn id(&self, subject: Subject, id: u32) -> Option<&'static Entry> {
        self.entry(subject, EntryKey::id(subject, id))
    }

    #[inline(always)]
    fn marks(&self, subject: Subject, key: EntryKey) -> Marks {
        Marks(self.forget().word(self.entry(subject, key).map_or(0, |entry| entry.marks.0)))
    }

    #[inline(always)]
    fn entry(&self, subject: Subject, key: EntryKey) -> Option<&'static Entry> {
        self.table.get(&Key::new(EntryKey::full_bits(subject), key)).map(Entry::of_words)
    }

    #[inline(always)]
    fn port_marks(&self, subject: Subject, port: u16) -> Marks {
        self.marks(subject, EntryKey::port(subject, port))
    }

    #[inline(always)]
    fn id_marks(&self, subject: Subject, id: u32) -> Marks {
        self.marks(subject, EntryKey::id(subject, id))
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn workload(&self) -> &Workload {
        self.workload
    }

    #[inline(always)]
    fn outbound_port(&self, port: u16) -> Marks {
        self.port_marks(Subject::OutboundPort, port)
    }

    #[inline(always)]
    fn inbound_port(&self, port: u16) -> Marks {
        self.port_marks(Subject::InboundPort, port)
    }

    #[inline(always)]
    fn user(&self, user: u32) -> Marks {
        self.id_marks(Subject::User, user)
    }

    #[inline(always)]
    fn group(&self, group: u32) -> Marks {
        self.id_marks(Subject::Group, group)
    }

    #[inline(always)]
    fn interface(&self, interface: u32) -> Marks {
        self.id_marks(Subject::Interface, interface)
    }
}
