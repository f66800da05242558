//! How full the maps are, and which listeners are known.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{Map, MapData, MapError, MapInfo, SockHash};
use interceptor_ebpf::abi::{Listener, ListenerKey};

use super::{DatapathError, maps::Maps, rights, state::State};

/// Numbers of the maps of one state folder.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Maps that can fill up.
    pub maps: Vec<MapGauge>,
    /// The proxies' listeners.
    pub listeners: Vec<ListenerGauge>,
}

/// How full a map is.
#[derive(Clone, Debug)]
pub struct MapGauge {
    /// Its name.
    pub name: &'static str,
    /// How many entries it has.
    pub entries: usize,
    /// How many it can have.
    pub capacity: u32,
}

/// One listener of a workload's proxy.
#[derive(Clone, Debug)]
pub struct ListenerGauge {
    /// Cookie of the workload's namespace.
    pub workload: u64,
    /// Which listener.
    pub name: &'static str,
    /// How many of its sockets are known; 0 means that redirected connections are refused.
    pub sockets: usize,
}

/// Reads the numbers; none where nothing is installed.
pub fn gauges(folder: &Path) -> Result<Gauges, DatapathError> {
    let Some(state) = State::open(folder)?.filter(State::is_installed) else {
        return Ok(Gauges::default());
    };
    rights::check()?;
    let folder = state.maps();
    let maps = Maps::open(&folder)?;
    let workloads = maps.all()?;
    let failed =
        |source: MapError| DatapathError::Map { action: "read the listeners", source: Box::new(source) };
    let listeners = MapData::from_pin(folder.join("LISTENERS")).map_err(failed)?;
    let listeners: SockHash<MapData, ListenerKey> = Map::SockHash(listeners).try_into().map_err(failed)?;
    let mut sockets: BTreeMap<(u64, u32), usize> = BTreeMap::new();
    let mut entries = 0;
    for key in listeners.keys().filter_map(Result::ok) {
        entries += 1;
        *sockets.entry((key.workload, key.listener.0)).or_default() += 1;
    }
    let of = |workload: &u64| {
        let workload = *workload;
        let sockets = &sockets;
        [(Listener::OUTBOUND, "outbound"), (Listener::INBOUND, "inbound")].map(|(listener, name)| {
            ListenerGauge {
                workload,
                name,
                sockets: sockets.get(&(workload, listener.0)).copied().unwrap_or_default(),
            }
        })
    };
    let map = |name: &'static str, entries: usize| -> Result<MapGauge, DatapathError> {
        let capacity = MapInfo::from_pin(folder.join(name)).map_err(failed)?.max_entries();
        Ok(MapGauge { name, entries, capacity })
    };
    Ok(Gauges {
        maps: vec![
            map("WORKLOADS", workloads.len())?,
            map("PENDING", maps.pending())?,
            map("LISTENERS", entries)?,
        ],
        listeners: workloads.iter().flat_map(of).collect(),
    })
}
