//! The inside of an actor: its loop over requests and the sockets it keeps.

use std::{
    collections::HashMap,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
};

use anyhow::Context as _;
use nix::libc;
use serde_json::{Value, to_value};
use socket2::Type;

use super::{
    churn::{self, Tally},
    protocol::{Answer, Connected, Datagram, Outcome, Request},
    proxy, server,
    server::Log,
    socket::{self, errno, observe},
};

/// Answers requests until standard input ends.
pub fn serve_requests() -> anyhow::Result<()> {
    let mut state = State::default();
    let mut output = io::stdout().lock();
    for line in io::stdin().lines() {
        let request = serde_json::from_str(&line?).context("cannot read the request")?;
        let reply = state.handle(request).map_err(|error| format!("{error:#}"));
        serde_json::to_writer(&mut output, &reply)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

#[derive(Default)]
struct State {
    sockets: HashMap<u32, TcpStream>,
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
            Request::Datagram { to, text } => to_value(datagram(to, &text)?),
            Request::Serve { name, tcp, udp } => to_value(
                server::serve(&name, &tcp, &udp, &self.log)
                    .with_context(|| format!("cannot serve as {name}"))?,
            ),
            Request::Proxy { outbound, inbound, mark } => {
                to_value(proxy::serve(&outbound, &inbound, mark, &self.log).context("cannot be the proxy")?)
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
        let outcome = socket.connect(&to.into()).map_err(|error| connect_error(&error));
        let seen = observe(&socket);
        self.sockets.insert(id, TcpStream::from(socket));
        Ok(Connected { outcome, seen })
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

fn ask(mut socket: &TcpStream, text: &str) -> io::Result<Answer> {
    socket.write_all(format!("{text}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    Ok(line.strip_suffix('\n').map_or(Answer::Closed, |line| Answer::Line(line.to_owned())))
}

fn datagram(to: SocketAddr, text: &str) -> anyhow::Result<Datagram> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket =
        socket::bound(SocketAddr::new(any, 0), Type::DGRAM).context("cannot make a datagram socket")?;
    socket.set_read_timeout(Some(socket::DEADLINE))?;
    let local = socket::address(socket.local_addr());
    let socket = std::net::UdpSocket::from(socket);
    let exchange = || -> Outcome<(String, SocketAddr)> {
        socket.send_to(text.as_bytes(), to).map_err(|error| errno(&error))?;
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).map_err(|error| errno(&error))?;
        Ok((String::from_utf8_lossy(&buffer[..length]).into_owned(), from))
    };
    Ok(Datagram { local, answer: exchange() })
}
