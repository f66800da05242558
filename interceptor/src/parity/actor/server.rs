//! The servers: they answer every line and every datagram with their name, and remember who came.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use socket2::Type;

use super::{
    converse::{self, Ends},
    datagram,
    protocol::Sighting,
    socket::{bound, observe},
};

/// Connections allowed to wait for `accept()`.
pub(super) const BACKLOG: i32 = 4096;

/// What was accepted since it was last asked for. An entry is made before the client gets its first byte back.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<Sighting>>>);

impl Log {
    pub(super) fn add(&self, sighting: Sighting) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sighting);
    }

    pub(super) fn take(&self) -> Vec<Sighting> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Listens on all of the addresses, then serves them on threads until the process ends.
pub(super) fn serve(name: &str, tcp: &[SocketAddr], udp: &[SocketAddr], log: &Log) -> io::Result<()> {
    let ends = Ends::default();
    for address in tcp {
        let listener = listen(*address)?;
        let (name, log, ends) = (name.to_owned(), log.clone(), ends.clone());
        accept_each(listener, move |listener, from, stream| {
            let seen = Some(observe(&stream));
            log.add(Sighting { listener, from, seen, onward: None });
            converse::answer(&name, &stream, &ends)
        })?;
    }
    for address in udp {
        thread::spawn(datagram::serve(name, *address, log)?);
    }
    Ok(())
}

/// A listening TCP socket.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Hands every connection to `handle` on a thread of its own, with the listener's address and the client's.
pub(super) fn accept_each<F>(listener: TcpListener, handle: F) -> io::Result<()>
where
    F: Fn(SocketAddr, SocketAddr, TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    let address = listener.local_addr()?;
    let handle = Arc::new(handle);
    thread::spawn(move || {
        loop {
            match listener.accept() {
                Ok((stream, from)) => {
                    let handle = Arc::clone(&handle);
                    // A connection that breaks ends its thread; its client sees that and reports it.
                    thread::spawn(move || handle(address, from, stream));
                }
                // The client was gone before we came to it; that too is the client's to report.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return error,
            }
        }
    });
    Ok(())
}
