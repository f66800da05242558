//! What the ends of one connection saw, as facts that can be compared between two worlds.

use std::net::SocketAddr;

use nix::errno::Errno;
use serde::Serialize;

use super::{
    actor::protocol::{Answer, Connected, Datagram, Outcome, Seen, Sighting},
    plan,
};

/// Ports from here on are the kernel's choice and differ from run to run.
const FIRST_EPHEMERAL_PORT: u16 = 32_768;

/// Everything app, proxies and servers saw of one connection.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The client's view.
    pub client: ClientSaw,
    /// What the proxies accepted.
    pub proxies: Vec<Sighting>,
    /// What the servers accepted, each with the server's name.
    pub servers: Vec<(&'static str, Sighting)>,
}

/// What the connecting end saw.
#[derive(Clone, Debug)]
pub enum ClientSaw {
    /// A TCP connection and, if it was made, the answer over it.
    Stream(Connected, Option<Outcome<Answer>>),
    /// A datagram.
    Datagram(Datagram),
}

/// One comparable fact: `proxy.peer` is `pod:src`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Who saw what.
    pub name: String,
    /// The value, with addresses and ports in the words of the plan.
    pub value: String,
}

/// The facts of one connection, in the order app, proxy, server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// The facts.
    pub facts: Vec<Fact>,
}

impl Observation {
    /// Puts what was seen into words that do not depend on the run.
    #[must_use]
    pub fn new(raw: &Raw) -> Self {
        let ports = Ports::of(raw);
        let mut facts = Facts(Vec::new());
        match &raw.client {
            ClientSaw::Stream(connected, answer) => facts.add_stream(connected, answer.as_ref(), ports),
            ClientSaw::Datagram(datagram) => facts.add_datagram(datagram, ports),
        }
        facts.add("proxy.accepted", raw.proxies.len().to_string());
        for sighting in &raw.proxies {
            facts.add_sighting("proxy", sighting, ports);
        }
        facts.add("server.accepted", raw.servers.len().to_string());
        for (name, sighting) in &raw.servers {
            facts.add("server.name", (*name).to_owned());
            facts.add_sighting("server", sighting, ports.seen_by_server());
        }
        Self { facts: facts.0 }
    }

    /// The value of a fact; empty if there is no such fact here.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.facts.iter().find(|fact| fact.name == name).map_or("", |fact| &fact.value)
    }
}

struct Facts(Vec<Fact>);

impl Facts {
    fn add(&mut self, name: &str, value: String) {
        // Nothing is accepted twice in good order; if it is, the second one gets names of its own.
        let again = self.0.iter().filter(|fact| fact.name.trim_end_matches('\'') == name).count();
        self.0.push(Fact { name: name.to_owned() + &"'".repeat(again), value });
    }

    fn add_stream(&mut self, connected: &Connected, answer: Option<&Outcome<Answer>>, ports: Ports) {
        self.add("app.connect", told(connected.outcome, |()| "ok".to_owned()));
        self.add_seen("app", &connected.seen, ports);
        self.add(
            "app.answer",
            match answer {
                None => "none".to_owned(),
                Some(answer) => told(answer.clone(), |answer| match answer {
                    Answer::Line(line) => line,
                    Answer::Closed => "closed".to_owned(),
                }),
            },
        );
    }

    fn add_datagram(&mut self, datagram: &Datagram, ports: Ports) {
        self.add("app.local", told(datagram.local, |local| ports.name(local)));
        let (answer, from) = match &datagram.answer {
            Ok((answer, from)) => (answer.clone(), ports.name(*from)),
            Err(error) => (error_name(*error), "nobody".to_owned()),
        };
        self.add("app.answer", answer);
        self.add("app.from", from);
    }

    fn add_sighting(&mut self, who: &str, sighting: &Sighting, ports: Ports) {
        self.add(&format!("{who}.listener"), ports.name(sighting.listener));
        self.add(&format!("{who}.from"), ports.name(sighting.from));
        if let Some(seen) = &sighting.seen {
            self.add_seen(who, seen, ports);
        }
        if let Some(onward) = sighting.onward {
            self.add(&format!("{who}.onward"), told(onward, |local| ports.name(local)));
        }
    }

    fn add_seen(&mut self, who: &str, seen: &Seen, ports: Ports) {
        let Seen { local, peer, original_v4, original_v6 } = seen;
        let addresses =
            [("local", local), ("peer", peer), ("original_v4", original_v4), ("original_v6", original_v6)];
        for (what, address) in addresses {
            self.add(&format!("{who}.{what}"), told(*address, |address| ports.name(address)));
        }
    }
}

/// The ports of one connection that the kernel chose, so that they can be called by their role.
#[derive(Clone, Copy)]
struct Ports {
    client: Option<u16>,
    onward: Option<u16>,
    onward_first: bool,
}

impl Ports {
    fn of(raw: &Raw) -> Self {
        let local = match &raw.client {
            ClientSaw::Stream(connected, _) => connected.seen.local,
            ClientSaw::Datagram(datagram) => datagram.local,
        };
        let client = local.ok().map(|local| local.port()).filter(|port| *port != 0);
        let onward = raw.proxies.iter().find_map(|sighting| Some(sighting.onward?.ok()?.port()));
        Self { client, onward, onward_first: false }
    }

    /// The proxy may by chance connect on from a port of the client's number; a server sees the proxy's.
    fn seen_by_server(self) -> Self {
        Self { onward_first: true, ..self }
    }

    fn name(self, address: SocketAddr) -> String {
        let mut roles = [(self.client, "src"), (self.onward, "new")];
        if self.onward_first {
            roles.reverse();
        }
        let port = match roles.iter().find(|(port, _)| *port == Some(address.port())) {
            Some((_, role)) => (*role).to_owned(),
            None if address.port() >= FIRST_EPHEMERAL_PORT => "other".to_owned(),
            None => address.port().to_string(),
        };
        let host = plan::name(address.ip());
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

fn told<T>(outcome: Outcome<T>, name: impl FnOnce(T) -> String) -> String {
    outcome.map_or_else(error_name, name)
}

/// `ECONNREFUSED` and the like.
fn error_name(errno: i32) -> String {
    format!("{:?}", Errno::from_raw(errno))
}
