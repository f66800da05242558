//! Original destinations that cannot be kept: the connection fails, unless the capture says that it passes.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::ensure;
use aya::maps::{HashMap, Map, MapData, MapInfo};
use interceptor::parity::{
    backend::{self, Backend},
    plan::{Family, Host},
    proxy,
    world::World,
};
use interceptor_ebpf::abi::{Flow, Pending};
use rustix::net::connect_unspec;
use socket2::{Domain, Socket};

use crate::{
    account::Account,
    client::{ask, listener, service, service_in, tcp},
    stage::{Corner, NO_PROXY, ORDINARY},
};

/// Leaves no memory for what is kept beside sockets (`optmem_max`, in a namespace of its own since Linux 6.9).
const NO_MEMORY: &[(&str, &str)] = &[("net/core/optmem_max", "1")];
const DNS_PROXY_PORT: u16 = 15053;
const BYPASS: &[&str] = &["--on-error", "bypass"];

#[test]
fn without_memory_for_its_record_a_connection_fails() -> anyhow::Result<()> {
    Corner {
        late_sysctls: NO_MEMORY,
        counted: Some("error-record"),
        differs: const { &fails_with("ENOMEM") },
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
        differs: const { &fails_with("ECONNREFUSED") },
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

#[test]
fn a_redirected_socket_that_then_passes_has_its_new_names() -> anyhow::Result<()> {
    Corner {
        ebpf_flags: BYPASS,
        prepare: fill_pending_but_for_one,
        counted: Some("error-pending-full"),
        differs: &[
            ("second.connect", "EINPROGRESS", "ok"),
            ("second.peer", "ENOTCONN", "service2 81"),
            ("second.answer", "", "peer hello"),
            ("peer.accepted", "0", "1"),
        ],
        ..NO_PROXY
    }
    .holds(|account| {
        // A proxy that accepts nothing: its queue has room for one connection.
        let proxy = listener(proxy::OUTBOUND_PORT, Domain::IPV4, false)?;
        proxy.listen(0)?;
        let (first, second) = (service(1, 80), service(2, 81));
        let socket = tcp(first)?;
        account.outcome("first.connect", &socket.connect(&first.into()));
        account.names("first", &socket);
        // The next has its entry until the proxy takes it, and there is no other.
        let waiting = tcp(first)?;
        waiting.set_nonblocking(true)?;
        account.outcome("waiting.connect", &waiting.connect(&first.into()));

        connect_unspec(&socket)?;
        socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        let connected = socket.connect(&second.into());
        account.outcome("second.connect", &connected);
        account.note("second.peer", account.address(peer_of(&socket)));
        if connected.is_ok() {
            ask(account, "second", &socket);
        }
        Ok(())
    })
}

#[test]
fn datagrams_need_no_place_among_the_pending() -> anyhow::Result<()> {
    Corner {
        flags: &["--redirect-dns", "--capture-all-dns"],
        ebpf_flags: BYPASS,
        prepare: fill_pending,
        ..NO_PROXY
    }
    .holds(|account| {
        for family in [Family::V4, Family::V6] {
            let resolver = UdpSocket::bind((Host::Loopback(1).address(family), DNS_PROXY_PORT))?;
            resolver.set_read_timeout(Some(Duration::from_secs(10)))?;
            let asking = UdpSocket::bind((family.unspecified(), 0))?;
            asking.connect(service_in(family, 1, 53))?;
            asking.send(b"query")?;
            let mut heard = [0; 16];
            let (length, _) = resolver.recv_from(&mut heard)?;
            account.note(&format!("{family:?}.heard"), String::from_utf8_lossy(&heard[..length]));
        }
        Ok(())
    })
}

/// What differs where eBPF has a connection fail.
const fn fails_with(errno: &'static str) -> [(&'static str, &'static str, &'static str); 6] {
    [
        ("V4.connect", "ok", errno),
        ("V4.answer", "peer hello", ""),
        ("V6.connect", "ok", errno),
        ("V6.answer", "peer hello", ""),
        ("proxy.accepted", "2", "0"),
        ("peer.accepted", "2", "0"),
    ]
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

fn peer_of(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.peer_addr()?;
    address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn fill_pending(world: &World, backend: Backend) -> anyhow::Result<()> {
    fill(world, backend, 0)
}

fn fill_pending_but_for_one(world: &World, backend: Backend) -> anyhow::Result<()> {
    fill(world, backend, 1)
}

/// Fills the map of pending connections but for a few entries, with connections of a namespace that does not exist.
fn fill(world: &World, backend: Backend, free: u32) -> anyhow::Result<()> {
    if backend != Backend::Ebpf {
        return Ok(());
    }
    let pin = backend::state_dir(world).join("v1/maps/PENDING");
    let capacity = MapInfo::from_pin(&pin)?.max_entries();
    let map = Map::HashMap(MapData::from_pin(&pin)?);
    let mut pending: HashMap<MapData, [u8; size_of::<Flow>()], [u8; size_of::<Pending>()]> =
        map.try_into()?;
    let key = |number: u32| {
        let mut key = [0xff; size_of::<Flow>()];
        key[8..12].copy_from_slice(&number.to_ne_bytes());
        key
    };
    for number in 0..capacity {
        pending.insert(&key(number), &[0; size_of::<Pending>()], 0)?;
    }
    ensure!(pending.insert(&key(capacity), &[0; size_of::<Pending>()], 0).is_err(), "the map is not full");
    for number in 0..free {
        pending.remove(&key(number))?;
    }
    Ok(())
}
