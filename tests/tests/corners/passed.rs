//! Sockets made by somebody else, elsewhere, and handed over: what they are was settled when they were made.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    process::Stdio,
};

use interceptor::parity::{plan::Place, world::World};
use socket2::Socket;

use crate::{
    account::Account,
    client::{connect, patient, service, tcp},
    stage::{Corner, ORDINARY},
};

#[test]
fn a_socket_made_in_another_cgroup_is_not_intercepted() -> anyhow::Result<()> {
    Corner {
        input: |world| made_in(world, Place::Pod),
        differs: &[
            ("given.original_v4", "service1 80", "ENOENT"),
            ("proxy.accepted", "1", "0"),
            ("peer[0].from", "pod another port", "pod client's port"),
            ("peer[0].peer", "pod another port", "pod client's port"),
        ],
        ..ORDINARY
    }
    .holds(use_given)
}

#[test]
fn a_socket_made_in_another_namespace_is_that_ones() -> anyhow::Result<()> {
    Corner { input: |world| made_in(world, Place::Peer), ..ORDINARY }.holds(use_given)
}

/// A socket of a namespace, made by the calling process, which is in no cgroup of the world's.
fn made_in(world: &World, place: Place) -> anyhow::Result<Stdio> {
    let socket = world.namespace(place)?.enter(|| Ok(tcp(service(1, 80))?))?;
    Ok(Stdio::from(OwnedFd::from(socket)))
}

fn use_given(account: &mut Account) -> anyhow::Result<()> {
    let given = io::stdin().as_fd().try_clone_to_owned()?;
    connect(account, "given", &patient(Socket::from(given))?, service(1, 80));
    Ok(())
}
