//! `interceptor explain`: what becomes of a connection, by which clause of the policy and by which nat rule.

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use interceptor::{
    capture::CaptureArgs,
    decide::{Policy, outcome},
    nat::{Loaded, Outcome, Packet, Path, Protocol, evaluate, generate},
};
use serde::Serialize;

use super::output;

/// Tell what becomes of a connection, and why.
///
/// Prints the verdict of the policy that runs in the kernel and its reason, and the nat rules that say the same.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    capture: CaptureArgs,
    /// Where it goes.
    #[arg(long, value_name = "ADDRESS:PORT")]
    dst: SocketAddr,
    /// Where it comes from; a port is only needed for rules about it [default: an address of the same family].
    #[arg(long, value_name = "ADDRESS")]
    src: Option<IpAddr>,
    /// The user that made the socket.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    uid: u32,
    /// The group that made the socket.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    gid: u32,
    /// The socket's firewall mark.
    #[arg(long, value_name = "MARK", default_value_t = 0)]
    mark: u32,
    /// Its transport protocol.
    #[arg(long, value_name = "NAME", default_value = "tcp")]
    protocol: Transport,
    /// It arrives from elsewhere, on this interface, instead of being made here.
    #[arg(long = "in", value_name = "INTERFACE", conflicts_with_all = ["uid", "gid", "mark", "out"])]
    arrives_on: Option<String>,
    /// The interface it leaves by [default: lo if --dst is a loopback address or --src itself, else eth0].
    #[arg(long, value_name = "INTERFACE")]
    out: Option<String>,
    /// The network namespace whose addresses tell whether IPv6 is used [default: the caller's own].
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  An application calls a service:
    interceptor explain -i '*' -b '*' --ipv6 off --uid 1000 --dst 10.96.0.1:443
  The proxy calls its own pod:
    interceptor explain -i '*' -b '*' --ipv6 off --uid 1337 --src 10.1.0.5 --dst 10.1.0.5:8080";

/// A transport protocol.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

#[derive(Serialize)]
struct Explanation {
    connection: String,
    verdict: String,
    reason: &'static str,
    rules: Vec<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let capture = super::capture(&args.capture, args.netns.as_deref())?;
    let packet = packet(args)?;
    let (Path::Outgoing { interface, .. } | Path::Incoming { interface }) = &packet.path;
    let decision = Policy::new(&capture, &[interface]).decide(&packet);
    let (decided, reason) = match decision {
        Some(decision) => (outcome(decision, &capture), decision.reason.name()),
        None => (Outcome::Pass, "not-tcp"),
    };
    let loaded = Loaded::of(generate(&capture).family(packet.family()));
    let evaluation = evaluate(&loaded, &packet).context("the nat rules cannot be evaluated")?;
    let rules: Vec<String> = evaluation.path.iter().map(ToString::to_string).collect();
    let explanation =
        Explanation { connection: packet.to_string(), verdict: verdict(decided), reason, rules };
    if args.json {
        output::json(&explanation)?;
    } else {
        show(&explanation)?;
    }
    if port(decided) != port(evaluation.outcome) {
        bail!(
            "the nat rules say otherwise: {}; this is an error in interceptor, please report it",
            verdict(evaluation.outcome)
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn packet(args: &Args) -> anyhow::Result<Packet> {
    let destination = args.dst.ip();
    let source = args.src.unwrap_or(match destination {
        IpAddr::V4(_) => IpAddr::from([10, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]),
    });
    if source.is_ipv4() != destination.is_ipv4() {
        bail!(
            "--src {source} and --dst {destination} are of different families; give both as IPv4 or as IPv6"
        );
    }
    let path = if let Some(interface) = &args.arrives_on {
        Path::Incoming { interface: interface.clone() }
    } else {
        let local = destination.is_loopback() || destination == source;
        let interface = args.out.clone().unwrap_or_else(|| if local { "lo" } else { "eth0" }.to_owned());
        Path::Outgoing { interface, uid: args.uid, gid: args.gid, mark: args.mark }
    };
    let protocol = match args.protocol {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    Ok(Packet { protocol, source, source_port: 40_000, destination, port: args.dst.port(), path })
}

fn show(explanation: &Explanation) -> anyhow::Result<()> {
    let Explanation { connection, verdict, reason, rules } = explanation;
    output::line(format_args!("connection  {connection}"))?;
    output::line(format_args!("verdict     {verdict}"))?;
    output::line(format_args!("reason      {reason}"))?;
    if rules.is_empty() {
        return output::line("nat rule    none: it reaches the end of the rules");
    }
    for (place, rule) in rules.iter().enumerate() {
        output::line(format_args!("{:<11} {rule}", if place == 0 { "nat rules" } else { "" }))?;
    }
    Ok(())
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
