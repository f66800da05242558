//! Original destinations that cannot be kept: the connection fails, unless the capture says that it passes.

use anyhow::ensure;
use aya::maps::{HashMap, Map, MapData, MapInfo};
use interceptor::parity::{
    backend::{self, Backend},
    plan::Family,
    world::World,
};
use interceptor_ebpf::abi::{Flow, Pending};

use crate::{
    account::Account,
    client::{ask, service_in, tcp},
    stage::{Corner, ORDINARY},
};

/// Leaves no memory for what is kept beside sockets (`optmem_max`, in a namespace of its own since Linux 6.9).
const NO_MEMORY: &[(&str, &str)] = &[("net/core/optmem_max", "1")];
const BYPASS: &[&str] = &["--on-error", "bypass"];

#[test]
fn without_memory_for_its_record_a_connection_fails() -> anyhow::Result<()> {
    Corner {
        late_sysctls: NO_MEMORY,
        counted: Some("error-record"),
        differs: &[
            ("V4.connect", "ok", "ENOMEM"),
            ("V4.answer", "peer hello", ""),
            ("V6.connect", "ok", "ENOMEM"),
            ("V6.answer", "peer hello", ""),
            ("proxy.accepted", "2", "0"),
            ("peer.accepted", "2", "0"),
        ],
        ..ORDINARY
    }
    .holds(connect_only)
}

#[test]
fn without_memory_for_its_record_a_connection_may_pass() -> anyhow::Result<()> {
    Corner {
        ebpf_flags: BYPASS,
        late_sysctls: NO_MEMORY,
        counted: Some("error-record"),
        differs: PASSES_BY,
        ..ORDINARY
    }
    .holds(connect_only)
}

#[test]
fn with_too_many_pending_a_connection_is_refused() -> anyhow::Result<()> {
    Corner {
        prepare: fill_pending,
        counted: Some("error-pending-full"),
        differs: &[
            ("V4.connect", "ok", "ECONNREFUSED"),
            ("V4.answer", "peer hello", ""),
            ("V6.connect", "ok", "ECONNREFUSED"),
            ("V6.answer", "peer hello", ""),
            ("proxy.accepted", "2", "0"),
            ("peer.accepted", "2", "0"),
        ],
        ..ORDINARY
    }
    .holds(connect_only)
}

#[test]
fn with_too_many_pending_a_connection_may_pass() -> anyhow::Result<()> {
    Corner {
        ebpf_flags: BYPASS,
        prepare: fill_pending,
        counted: Some("error-pending-full"),
        differs: PASSES_BY,
        ..ORDINARY
    }
    .holds(connect_only)
}

/// Under iptables the proxy connects to the peer, under eBPF the application does.
const PASSES_BY: &[(&str, &str, &str)] = &[
    ("proxy.accepted", "2", "0"),
    ("peer[0].from", "pod another port", "pod client's port"),
    ("peer[0].peer", "pod another port", "pod client's port"),
    ("peer[1].from", "pod another port", "pod client's port"),
    ("peer[1].peer", "pod another port", "pod client's port"),
];

fn connect_only(account: &mut Account) -> anyhow::Result<()> {
    for family in [Family::V4, Family::V6] {
        let to = service_in(family, 1, 80);
        let socket = tcp(to)?;
        let connected = socket.connect(&to.into());
        account.outcome(&format!("{family:?}.connect"), &connected);
        if let Ok(Some(local)) = socket.local_addr().map(|local| local.as_socket()) {
            account.ports.push(local.port());
        }
        if connected.is_ok() {
            ask(account, &format!("{family:?}"), &socket);
        }
    }
    Ok(())
}

/// Fills the map of pending connections to its last entry, with connections of a namespace that does not exist.
fn fill_pending(world: &World, backend: Backend) -> anyhow::Result<()> {
    if backend != Backend::Ebpf {
        return Ok(());
    }
    let pin = backend::state_dir(world).join("v1/maps/PENDING");
    let capacity = MapInfo::from_pin(&pin)?.max_entries();
    let map = Map::HashMap(MapData::from_pin(&pin)?);
    let mut pending: HashMap<MapData, [u8; size_of::<Flow>()], [u8; size_of::<Pending>()]> =
        map.try_into()?;
    let mut key = [0xff; size_of::<Flow>()];
    for number in 0..capacity {
        key[8..12].copy_from_slice(&number.to_ne_bytes());
        pending.insert(&key, &[0; size_of::<Pending>()], 0)?;
    }
    key[8..12].copy_from_slice(&capacity.to_ne_bytes());
    ensure!(pending.insert(&key, &[0; size_of::<Pending>()], 0).is_err(), "the map is not full");
    Ok(())
}
