//! The pinned maps, typed.

use std::path::Path;

use aya::{
    maps::{
        HashMap, HashOfMaps, LpmTrie, Map, MapData, MapError, PerCpuHashMap, PerCpuValues, lpm_trie::Key,
    },
    util::nr_cpus,
};
use interceptor_ebpf::{
    abi::{Counters, Entry, EntryKey, Flow, Label, Pending, Subject, Workload},
    policy::Reason,
};
use nix::libc;

use super::{DatapathError, PolicyTable};

/// Flag of linux/bpf.h that every trie must have.
const BPF_F_NO_PREALLOC: u32 = 1;

/// Names of the maps that are pinned.
pub(super) const PINNED: [&str; 9] =
    ["WORKLOADS", "COUNTERS", "LABELS", "PENDING", "RESOLVERS", "LISTENERS", "SOCKETS", "TRACE", "TRACING"];

type Trie = LpmTrie<MapData, EntryKey, Entry>;

/// The maps userspace reads and writes.
pub(super) struct Maps {
    workloads: HashOfMaps<MapData, u64, Trie>,
    counters: PerCpuHashMap<MapData, u64, Counters>,
    labels: HashMap<MapData, u64, Label>,
    pending: HashMap<MapData, Flow, Pending>,
}

impl Maps {
    /// Opens the maps pinned in a folder.
    pub(super) fn open(folder: &Path) -> Result<Self, DatapathError> {
        for name in PINNED {
            let pin = folder.join(name);
            if !pin.exists() {
                return Err(DatapathError::Damaged { pin });
            }
        }
        let pinned = |name: &str| MapData::from_pin(folder.join(name));
        let open = || -> Result<Self, MapError> {
            Ok(Self {
                workloads: Map::HashOfMaps(pinned("WORKLOADS")?).try_into()?,
                counters: Map::PerCpuHashMap(pinned("COUNTERS")?).try_into()?,
                labels: Map::HashMap(pinned("LABELS")?).try_into()?,
                pending: Map::HashMap(pinned("PENDING")?).try_into()?,
            })
        };
        open().map_err(failed("open the pinned maps"))
    }

    /// Puts a workload under a table. From the next connection on, the new table and nothing of the old one holds:
    /// the kernel swaps it whole, and returns once no program runs that has seen the old one.
    pub(super) fn set_table(&mut self, workload: u64, table: &PolicyTable) -> Result<(), DatapathError> {
        let capacity = u32::try_from(table.len()).unwrap_or(u32::MAX);
        let mut trie = Trie::create(capacity, BPF_F_NO_PREALLOC).map_err(failed("make a policy table"))?;
        for (bits, key, entry) in table.entries() {
            trie.insert(&Key::new(bits, key), &entry, 0).map_err(failed("fill a policy table"))?;
        }
        let action = "put the workload under its policy table";
        self.workloads.insert(&workload, &trie, 0).map_err(no_room(action))
    }

    /// The workload's own entry of its table; none if it is not enrolled or the table is broken.
    pub(super) fn workload(&self, workload: u64) -> Result<Option<Workload>, DatapathError> {
        let Some(trie) = found(self.workloads.get(&workload, 0), "read a policy table")? else {
            return Ok(None);
        };
        let key = Key::new(EntryKey::full_bits(Subject::Workload), EntryKey::WORKLOAD);
        let entry = found(trie.get(&key, 0), "read a policy table")?;
        Ok(entry.map(|entry| *Workload::of_entry(&entry)))
    }

    /// The workload's whole table, as the hooks ask it; none if it is not enrolled or the table is broken.
    pub(super) fn table(&self, workload: u64) -> Result<Option<PolicyTable>, DatapathError> {
        let Some(trie) = found(self.workloads.get(&workload, 0), "read a policy table")? else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        for pair in &trie {
            let (key, entry) = pair.map_err(failed("read a policy table"))?;
            entries.push((key.prefix_len(), key.data(), entry));
        }
        Ok(PolicyTable::of_entries(entries))
    }

    /// Takes a workload out of interception.
    pub(super) fn remove(&mut self, workload: u64) -> Result<(), DatapathError> {
        found(self.workloads.remove(&workload), "take the workload out")?;
        found(self.counters.remove(&workload), "remove the workload's counters")?;
        found(self.labels.remove(&workload), "remove the workload's label")?;
        let flows: Vec<Flow> = self.pending.keys().filter_map(Result::ok).collect();
        for flow in flows.iter().filter(|flow| flow.workload == workload) {
            found(self.pending.remove(flow), "remove the workload's pending connections")?;
        }
        Ok(())
    }

    /// Cookies of all workloads.
    pub(super) fn all(&self) -> Result<Vec<u64>, DatapathError> {
        let mut cookies =
            self.workloads.keys().collect::<Result<Vec<u64>, _>>().map_err(failed("list the workloads"))?;
        cookies.sort_unstable();
        Ok(cookies)
    }

    /// Gives a workload counters, if it has none, and its label.
    pub(super) fn register(&mut self, workload: u64, label: &Label) -> Result<(), DatapathError> {
        if found(self.counters.get(&workload, 0), "read the workload's counters")?.is_none() {
            let failed = |source| DatapathError::Map {
                action: "make the workload's counters",
                source: Box::new(MapError::IoError(source)),
            };
            let cpus = nr_cpus().map_err(|(_, source)| failed(source))?.get() as usize;
            let zero = PerCpuValues::try_from(vec![Counters::default(); cpus]).map_err(failed)?;
            self.counters.insert(&workload, zero, 0).map_err(no_room("make the workload's counters"))?;
        }
        self.labels.insert(&workload, label, 0).map_err(no_room("write the workload's label"))
    }

    /// A workload's label.
    pub(super) fn label(&self, workload: u64) -> Result<Option<Label>, DatapathError> {
        found(self.labels.get(&workload, 0), "read the workload's label")
    }

    /// A workload's counters, summed over CPUs; only reasons that occurred.
    pub(super) fn counts(&self, workload: u64) -> Result<Vec<(Reason, u64)>, DatapathError> {
        let Some(by_cpu) = found(self.counters.get(&workload, 0), "read the workload's counters")? else {
            return Ok(Vec::new());
        };
        let sum =
            |reason: Reason| by_cpu.iter().map(|counters| counters.by_reason[reason as usize]).sum::<u64>();
        Ok(Reason::ALL.iter().map(|reason| (*reason, sum(*reason))).filter(|(_, count)| *count > 0).collect())
    }

    /// How many redirected connections wait for the proxy's socket.
    pub(super) fn pending(&self) -> usize {
        self.pending.keys().flatten().count()
    }
}

fn failed(action: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |source| DatapathError::Map { action, source: Box::new(source) }
}

/// The same for an entry of a workload's, for which a map may have no place left (`E2BIG`).
fn no_room(action: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |source| {
        if let MapError::SyscallError(error) = &source
            && error.io_error.raw_os_error() == Some(libc::E2BIG)
        {
            return DatapathError::TooManyWorkloads;
        }
        failed(action)(source)
    }
}

/// A missing key is an answer, not an error.
fn found<T>(result: Result<T, MapError>, action: &'static str) -> Result<Option<T>, DatapathError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(source) => Err(failed(action)(source)),
    }
}
