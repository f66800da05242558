//! What the kernel keeps for one state folder: programs, links, and memory.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use anyhow::Context as _;
use aya::{
    maps::{HashOfMaps, Map, MapData, MapInfo},
    programs::{ProgramInfo, loaded_links, loaded_programs},
};

use crate::Product;

/// Counts of kernel objects, and what they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Programs that use a map of the state folder.
    pub programs: usize,
    /// Links with such a program.
    pub links: usize,
    /// Policy tables.
    pub tables: usize,
    /// Bytes of programs, maps and tables.
    pub bytes: usize,
}

impl Kept {
    /// Looks at everything there is in the kernel.
    pub fn of(product: &Product<'_>) -> anyhow::Result<Self> {
        let folder = product.state_dir().join("v1/maps");
        let mut bytes = 0;
        let mut maps = BTreeSet::new();
        for pin in fs::read_dir(&folder)? {
            let pin = pin?.path();
            maps.insert(MapInfo::from_pin(&pin)?.id());
            bytes += size(MapData::from_pin(pin)?.fd().as_fd())?;
        }
        let workloads = MapData::from_pin(folder.join("WORKLOADS"))?;
        let workloads: HashOfMaps<MapData, u64, MapData> = Map::HashOfMaps(workloads).try_into()?;
        let mut tables = 0;
        for workload in workloads.keys() {
            tables += 1;
            bytes += size(workloads.get(&workload?, 0)?.fd().as_fd())?;
        }
        let mut programs = BTreeSet::new();
        // One that goes while we look is none of those that stay.
        for program in loaded_programs().filter_map(Result::ok) {
            let uses = program.map_ids().ok().flatten().unwrap_or_default();
            if uses.iter().any(|map| maps.contains(map)) {
                bytes += memory(&program);
                programs.insert(program.id());
            }
        }
        let links = loaded_links().filter_map(Result::ok);
        let links = links.filter(|link| programs.contains(&link.program_id())).count();
        Ok(Self { programs: programs.len(), links, tables, bytes })
    }
}

fn memory(program: &ProgramInfo) -> usize {
    program.memory_locked().map_or(0, |bytes| bytes as usize)
}

/// Bytes of a map, as /proc tells them.
fn size(map: BorrowedFd<'_>) -> anyhow::Result<usize> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(bytes.context("a map tells no memory")?.trim().parse()?)
}
