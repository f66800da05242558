//! What the ends of one connection saw, as facts that can be compared between two worlds.

use std::{collections::BTreeSet, net::SocketAddr};

use serde::Serialize;

use super::{
    actor::{
        protocol::{Answer, Connected, Datagram, Outcome, Seen, Shorts, Sighting},
        socket::error_name,
    },
    plan,
    program::Fetched,
};

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
    /// A later answer over a connection made before.
    Again(Outcome<Answer>),
    /// Datagrams.
    Datagram(Datagram),
    /// Short connections, one after the other.
    Shorts(Shorts),
    /// A program of somebody else's.
    Program(Fetched),
    /// The exit code of a validation.
    Validated(Option<i32>),
}

impl ClientSaw {
    /// The client's own address, where there is one.
    fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Stream(connected, _) => connected.seen.local.ok(),
            Self::Datagram(datagram) => datagram.local.ok(),
            Self::Program(Fetched::Page { local, .. }) => Some(*local),
            Self::Program(Fetched::Error(_)) | Self::Shorts(_) | Self::Again(_) | Self::Validated(_) => None,
        }
    }
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
        let client = raw.client.local().map(|local| local.port());
        let onward = raw.proxies.iter().filter_map(|sighting| Some((sighting.onward?.ok()?.port(), "new")));
        let onward: Vec<_> = onward.collect();
        let client: Vec<_> = client.map(|port| (port, "src")).into_iter().collect();

        let mut facts = Facts(Vec::new());
        match &raw.client {
            ClientSaw::Stream(connected, answer) => facts.add_stream(connected, answer.as_ref()),
            ClientSaw::Again(answer) => facts.add_answer(Some(answer)),
            ClientSaw::Datagram(datagram) => facts.add_datagram(datagram),
            ClientSaw::Shorts(Shorts { answered, failed }) => {
                facts.add("app.answered", answered.to_string());
                facts.add("app.failed", failed.map_or_else(|| "none".to_owned(), error_name));
                facts.add_crowd("proxy", &raw.proxies.iter().collect::<Vec<_>>());
                facts.add_crowd(
                    "server",
                    &raw.servers.iter().map(|(_, sighting)| sighting).collect::<Vec<_>>(),
                );
                return Self { facts: facts.0 };
            }
            ClientSaw::Program(fetched) => facts.add_page(fetched),
            ClientSaw::Validated(code) => {
                let told = code.map_or_else(|| "killed".to_owned(), |code| format!("validated with {code}"));
                facts.add("app.connect", told);
            }
        }
        facts.add("proxy.accepted", raw.proxies.len().to_string());
        // A connection that passes the proxy more than once is written down in no certain order.
        let mut proxies: Vec<_> = raw.proxies.iter().collect();
        let is_clients = |sighting: &Sighting| client.iter().any(|(port, _)| *port == sighting.from.port());
        let ended = |sighting: &Sighting| sighting.onward.as_ref().is_some_and(Result::is_err);
        proxies.sort_by_key(|sighting| (sighting.listener, !is_clients(sighting), ended(sighting)));
        for sighting in proxies {
            facts.add_sighting("proxy", sighting, &[client.as_slice(), &onward].concat());
        }
        facts.add("server.accepted", raw.servers.len().to_string());
        for (name, sighting) in &raw.servers {
            facts.add("server.name", (*name).to_owned());
            // The proxy may by chance connect on from a port of the client's number, and it is the proxy's then.
            facts.add_sighting("server", sighting, &[onward.as_slice(), &client].concat());
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

    fn add_stream(&mut self, connected: &Connected, answer: Option<&Outcome<Answer>>) {
        let Seen { local, peer, original_v4, original_v6 } = connected.seen;
        self.add("app.connect", told(connected.outcome, |()| "ok".to_owned()));
        self.add("app.local", told(local, |local| chosen(local, "src")));
        self.add("app.peer", told(peer, fixed));
        self.add("app.original_v4", told(original_v4, fixed));
        self.add("app.original_v6", told(original_v6, fixed));
        if connected.outcome.is_err() {
            self.add("app.failed", if connected.at_once { "at once" } else { "at the deadline" }.to_owned());
        }
        self.add_answer(answer);
    }

    fn add_answer(&mut self, answer: Option<&Outcome<Answer>>) {
        self.add(
            "app.answer",
            match answer {
                None => "none".to_owned(),
                Some(Ok(Answer::Line(line))) => line.clone(),
                Some(Ok(Answer::Closed)) => "closed".to_owned(),
                Some(Err(error)) => error_name(*error),
            },
        );
    }

    fn add_datagram(&mut self, datagram: &Datagram) {
        self.add("app.local", told(datagram.local, |local| chosen(local, "src")));
        if let Some(peer) = datagram.peer {
            self.add("app.peer", told(peer, fixed));
        }
        for answer in &datagram.answers {
            let (answer, from) = match answer {
                Ok((answer, from)) => (answer.clone(), fixed(*from)),
                Err(error) => (error_name(*error), "nobody".to_owned()),
            };
            self.add("app.answer", answer);
            self.add("app.from", from);
        }
    }

    fn add_page(&mut self, fetched: &Fetched) {
        match fetched {
            Fetched::Page { local, peer, answer } => {
                self.add("app.connect", "ok".to_owned());
                self.add("app.local", chosen(*local, "src"));
                self.add("app.peer", fixed(*peer));
                self.add("app.answer", answer.clone());
            }
            Fetched::Error(error) => self.add("app.connect", error.clone()),
        }
    }

    /// Of many connections: how many there were, and everything that any of them showed.
    fn add_crowd(&mut self, who: &str, sightings: &[&Sighting]) {
        self.add(&format!("{who}.accepted"), sightings.len().to_string());
        let mut each = Self(Vec::new());
        for sighting in sightings {
            let mut one = Self(Vec::new());
            one.add_sighting(who, sighting, &[(sighting.from.port(), "src")]);
            each.0.extend(one.0);
        }
        for name in ["listener", "from", "local", "peer", "original_v4", "original_v6", "onward"] {
            let name = format!("{who}.{name}");
            let values: BTreeSet<_> =
                each.0.iter().filter(|fact| fact.name == name).map(|fact| fact.value.as_str()).collect();
            self.add(&name, values.into_iter().collect::<Vec<_>>().join(", "));
        }
    }

    /// `callers` are the ports that a caller may show here, by role.
    fn add_sighting(&mut self, who: &str, sighting: &Sighting, callers: &[(u16, &'static str)]) {
        let Sighting { listener, from, seen, onward } = sighting;
        let caller = |address: SocketAddr| {
            let role = callers.iter().find(|(port, _)| *port == address.port());
            chosen(address, role.map_or("other", |(_, role)| role))
        };
        let mut add = |what: &str, value| self.add(&format!("{who}.{what}"), value);
        add("listener", fixed(*listener));
        add("from", caller(*from));
        if let Some(Seen { local, peer, original_v4, original_v6 }) = *seen {
            add("local", told(local, fixed));
            add("peer", told(peer, caller));
            add("original_v4", told(original_v4, fixed));
            add("original_v6", told(original_v6, fixed));
        }
        if let Some(onward) = *onward {
            add("onward", told(onward, |local| chosen(local, "new")));
        }
    }
}

/// An address whose port somebody decided on.
fn fixed(address: SocketAddr) -> String {
    plan::join(&plan::name(address.ip()), &address.port().to_string())
}

/// An address whose port the kernel chose, in every run another one.
fn chosen(address: SocketAddr, role: &str) -> String {
    plan::join(&plan::name(address.ip()), role)
}

fn told<T>(outcome: Outcome<T>, name: impl FnOnce(T) -> String) -> String {
    outcome.map_or_else(error_name, name)
}
