//! What becomes of a described connection: by which clause of the policy, and by which nat rule.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{
    capture::Capture,
    decide::{Policy, outcome},
    nat::{Loaded, Outcome, Packet, Path, Protocol, evaluate, generate},
};

/// A connection, described.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Where it goes.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub dst: SocketAddr,
    /// Where it comes from; a port is only needed for rules about it [default: an address of the same family].
    #[arg(long, value_name = "ADDRESS")]
    #[serde(default)]
    pub src: Option<IpAddr>,
    /// The user that made the socket.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    #[serde(default)]
    pub uid: u32,
    /// The group that made the socket.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    #[serde(default)]
    pub gid: u32,
    /// The socket's firewall mark.
    #[arg(long, value_name = "MARK", default_value_t = 0)]
    #[serde(default)]
    pub mark: u32,
    /// Its transport protocol.
    #[arg(long, value_name = "NAME", default_value = "tcp")]
    #[serde(default)]
    pub protocol: Transport,
    /// It arrives from elsewhere, on this interface, instead of being made here.
    #[arg(long = "in", value_name = "INTERFACE", conflicts_with_all = ["uid", "gid", "mark", "out"])]
    #[serde(default, rename = "in")]
    pub arrives_on: Option<String>,
    /// The interface it leaves by [default: lo if --dst is a loopback address or --src itself, else eth0].
    #[arg(long, value_name = "INTERFACE")]
    #[serde(default)]
    pub out: Option<String>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The connection in words.
    pub connection: String,
    /// What the policy that runs in the kernel decides.
    pub verdict: String,
    /// By which of its clauses.
    pub reason: String,
    /// The nat rules that decide the same, in the order they are passed through.
    pub rules: Vec<String>,
    /// What the nat rules decide, if that is something else: an error in this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contradiction: Option<String>,
}

impl Explanation {
    /// Finds out.
    pub fn of(capture: &Capture, question: &Question) -> anyhow::Result<Self> {
        let packet = question.packet()?;
        let (Path::Outgoing { interface, .. } | Path::Incoming { interface }) = &packet.path;
        let (decided, reason) = match Policy::new(capture, &[interface]).decide(&packet) {
            Some(decision) => (outcome(decision, capture), decision.reason.name()),
            None => (Outcome::Pass, "not-tcp"),
        };
        let loaded = Loaded::of(generate(capture).family(packet.family()));
        let evaluation = evaluate(&loaded, &packet).context("the nat rules cannot be evaluated")?;
        Ok(Self {
            connection: packet.to_string(),
            verdict: verdict(decided),
            reason: reason.to_owned(),
            rules: evaluation.path.iter().map(ToString::to_string).collect(),
            contradiction: (port(decided) != port(evaluation.outcome)).then(|| verdict(evaluation.outcome)),
        })
    }
}

impl Question {
    fn packet(&self) -> anyhow::Result<Packet> {
        let destination = self.dst.ip();
        let source = self.src.unwrap_or(match destination {
            IpAddr::V4(_) => IpAddr::from([10, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]),
        });
        ensure!(
            source.is_ipv4() == destination.is_ipv4(),
            "--src {source} and --dst {destination} are of different families; give both as IPv4 or as IPv6"
        );
        let path = if let Some(interface) = &self.arrives_on {
            Path::Incoming { interface: interface.clone() }
        } else {
            let local = destination.is_loopback() || destination == source;
            let interface = self.out.clone().unwrap_or_else(|| if local { "lo" } else { "eth0" }.to_owned());
            Path::Outgoing { interface, uid: self.uid, gid: self.gid, mark: self.mark }
        };
        let protocol = match self.protocol {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        Ok(Packet { protocol, source, source_port: 40_000, destination, port: self.dst.port(), path })
    }
}

fn verdict(outcome: Outcome) -> String {
    match outcome {
        Outcome::Pass => "goes where it wants to".to_owned(),
        Outcome::Redirect(port) => format!("redirected to port {port}"),
        Outcome::Tproxy(port) => format!("given to port {port}, addresses unchanged"),
        Outcome::Drop => "dropped".to_owned(),
    }
}

fn port(outcome: Outcome) -> Option<u16> {
    match outcome {
        Outcome::Redirect(port) | Outcome::Tproxy(port) => Some(port),
        Outcome::Pass | Outcome::Drop => None,
    }
}
