//! The inside of an actor: what it does at each request, and the sockets it keeps.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    time::Instant,
};

use anyhow::Context as _;
use nix::libc;
use serde_json::{Value, to_value};
use socket2::Type;

use super::{
    churn::{self, Tally},
    converse::{ask, converse},
    datagram,
    protocol::{Answer, Connected, Request, Shorts},
    proxy, server,
    server::Log,
    socket::{self, errno, observe},
};
use crate::parity::exchange::answer;

/// Answers requests until standard input ends.
pub fn serve_requests() -> anyhow::Result<()> {
    let mut state = State::default();
    answer(|request| state.handle(request))
}

#[derive(Default)]
struct State {
    sockets: HashMap<u32, TcpStream>,
    mute: Vec<socket2::Socket>,
    log: Log,
    tally: Tally,
}

impl State {
    fn handle(&mut self, request: Request) -> anyhow::Result<Value> {
        let reply = match request {
            Request::Connect { id, to, bind } => to_value(self.connect(id, to, bind)?),
            Request::Ask { id, text } => {
                to_value(ask(self.socket(id)?, &text).map_err(|error| errno(&error)))
            }
            Request::Close { id } => {
                self.socket(id)?;
                drop(self.sockets.remove(&id));
                to_value(())
            }
            Request::Converse { id, to, how } => {
                let socket = self.sockets.remove(&id).with_context(|| format!("there is no socket {id}"))?;
                to_value(converse(socket, to, how).map_err(|error| errno(&error)))
            }
            Request::Shorts { to, count } => to_value(shorts(to, count)),
            Request::Datagram { to, bind, connected } => to_value(datagram::exchange(&to, bind, connected)?),
            Request::Serve { name, tcp, udp } => to_value(
                server::serve(&name, &tcp, &udp, &self.log)
                    .with_context(|| format!("cannot serve as {name}"))?,
            ),
            Request::Proxy { outbound, inbound, mark } => {
                to_value(proxy::serve(&outbound, &inbound, mark, &self.log).context("cannot be the proxy")?)
            }
            Request::Mute { listen } => {
                for address in listen {
                    let socket = socket::bound(address, Type::STREAM)
                        .and_then(|socket| socket.listen(0).map(|()| socket))
                        .with_context(|| format!("cannot listen on {address}"))?;
                    self.mute.push(socket);
                }
                to_value(())
            }
            Request::Sightings => to_value(self.log.take()),
            Request::Churn(churn) => to_value(churn::connect_many(&churn)),
            Request::Tally { listen } => to_value(
                churn::accept_many(listen, &self.tally)
                    .with_context(|| format!("cannot listen on {listen}"))?,
            ),
            Request::Tallied => to_value(self.tally.read()),
        };
        Ok(reply?)
    }

    fn connect(&mut self, id: u32, to: SocketAddr, bind: Option<SocketAddr>) -> anyhow::Result<Connected> {
        let socket = socket::open(to, Type::STREAM).context("cannot make a socket")?;
        if let Some(bind) = bind {
            socket.set_reuse_address(true)?;
            socket.bind(&bind.into()).with_context(|| format!("cannot bind to {bind}"))?;
        }
        let begin = Instant::now();
        let outcome = socket.connect(&to.into()).map_err(|error| connect_error(&error));
        let at_once = begin.elapsed() < socket::DEADLINE;
        let seen = observe(&socket);
        self.sockets.insert(id, TcpStream::from(socket));
        Ok(Connected { outcome, at_once, seen })
    }

    fn socket(&self, id: u32) -> anyhow::Result<&TcpStream> {
        self.sockets.get(&id).with_context(|| format!("there is no socket {id}"))
    }
}

/// A blocking `connect()` whose send timeout runs out says EINPROGRESS, see socket(7); to its caller that is a timeout.
fn connect_error(error: &io::Error) -> i32 {
    match errno(error) {
        libc::EINPROGRESS => libc::ETIMEDOUT,
        other => other,
    }
}

/// Ends at the first connection that is not answered.
fn shorts(to: SocketAddr, count: u32) -> Shorts {
    let short = || -> io::Result<Answer> {
        let socket = socket::open(to, Type::STREAM)?;
        socket.connect(&to.into())?;
        let stream = TcpStream::from(socket);
        let answer = ask(&stream, "hello")?;
        // The far end's FIN says that whoever carried the connection has let it go.
        stream.shutdown(Shutdown::Write)?;
        io::copy(&mut &stream, &mut io::sink())?;
        Ok(answer)
    };
    for answered in 0..count {
        match short() {
            Ok(Answer::Line(_)) => {}
            Ok(Answer::Closed) => return Shorts { answered, failed: Some(libc::ECONNABORTED) },
            Err(error) => return Shorts { answered, failed: Some(errno(&error)) },
        }
    }
    Shorts { answered: count, failed: None }
}
