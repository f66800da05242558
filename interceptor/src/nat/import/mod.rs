//! From loaded rules back to the capture that means the same.

mod inbound;
mod outbound;

use std::ops::ControlFlow;

use super::{
    Chain, EvaluateError, Family, Loaded, Outcome, Packet, Rule, RuleAt, Table, Target, Test,
    classes::{Classes, tests},
    evaluate, generate,
    rules::PROXY_DNS_PORT,
};
use crate::capture::{Capture, Dns, InboundMode};

/// Why rules cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is nothing of Istio in them.
    #[error("there is no rule here that redirects connections to a proxy")]
    NoRedirect,
    /// They cannot be evaluated.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The nearest capture differs.
    #[error(
        "no capture means the same: {packet} ends as {theirs} by these rules ({rule}), but as {ours} by the capture \
         that comes nearest"
    )]
    Differs {
        /// A connection that tells them apart.
        packet: Box<Packet>,
        /// What the rules do with it.
        theirs: Outcome,
        /// The rule that decides so.
        rule: String,
        /// What the nearest capture does with it.
        ours: Outcome,
    },
}

/// The capture whose rules decide like `v4` and, where given, `v6` about every class of connection.
pub fn import(v4: &Loaded, v6: Option<&Loaded>) -> Result<Capture, ImportError> {
    let families: Vec<(Family, &Loaded)> =
        [(Family::V4, Some(v4)), (Family::V6, v6)].into_iter().filter_map(|(f, l)| Some((f, l?))).collect();
    let candidate = candidate(&families)?;
    let rules = generate(&candidate);
    for (family, theirs) in families {
        let ours = Loaded::of(rules.family(family));
        let classes = Classes::distinct(tests(theirs).chain(tests(&ours)));
        let found = classes.each(|packet| {
            if packet.family() != family {
                return ControlFlow::Continue(());
            }
            match differs(theirs, &ours, packet) {
                Ok(None) => ControlFlow::Continue(()),
                Ok(Some(difference)) => ControlFlow::Break(difference),
                Err(error) => ControlFlow::Break(error.into()),
            }
        });
        if let ControlFlow::Break(error) = found {
            return Err(error);
        }
    }
    Ok(candidate)
}

fn differs(theirs: &Loaded, ours: &Loaded, packet: &Packet) -> Result<Option<ImportError>, EvaluateError> {
    let (they, we) = (evaluate(theirs, packet)?, evaluate(ours, packet)?);
    if they.outcome == we.outcome {
        return Ok(None);
    }
    let rule = they.path.last().map_or_else(|| "no rule of theirs matches".to_owned(), RuleAt::to_string);
    Ok(Some(ImportError::Differs {
        packet: Box::new(packet.clone()),
        theirs: they.outcome,
        rule,
        ours: we.outcome,
    }))
}

/// The capture that the rules' shapes suggest; whether it means the same is for the caller to find out.
fn candidate(families: &[(Family, &Loaded)]) -> Result<Capture, ImportError> {
    let reader = Reader { families };
    let outbound_port = reader.redirect_port(&Chain::REDIRECT).ok_or(ImportError::NoRedirect)?;
    let tproxy = reader.rules(Table::Mangle).find_map(|(_, rule)| {
        if let Target::Tproxy { port, mark } = rule.target { Some((port, mark)) } else { None }
    });
    let mut capture = outbound::read(&reader, outbound_port);
    if let Some((port, mark)) = tproxy {
        capture.inbound_mode = InboundMode::Tproxy;
        capture.inbound_port = port;
        capture.tproxy_mark = mark;
    }
    capture.ipv6 = families.iter().any(|(family, loaded)| {
        let istios =
            |rules: &[Rule]| rules.iter().any(|rule| rule.target.jump().is_some_and(Chain::is_istio));
        *family == Family::V6 && istios(loaded.rules(Table::Nat, &Chain::OUTPUT))
    });
    capture.dns = dns(&reader);
    capture.drop_invalid = reader.rules(Table::Mangle).any(|(chain, _)| *chain == Chain::INVALID);
    inbound::read(&reader, &mut capture)?;
    Ok(capture)
}

/// DNS rules stand in a chain of their own since 1.25, in OUTPUT before.
fn dns(reader: &Reader<'_>) -> Dns {
    let mut servers = Vec::new();
    for (_, rule) in
        reader.rules(Table::Nat).filter(|(_, rule)| rule.target == Target::Redirect(PROXY_DNS_PORT))
    {
        let server = rule
            .matches
            .iter()
            .find_map(|part| if let Test::Destination(cidr) = &part.test { Some(cidr.addr()) } else { None });
        match server {
            Some(server) if servers.contains(&server) => {}
            Some(server) => servers.push(server),
            None => return Dns::All,
        }
    }
    if servers.is_empty() { Dns::Off } else { Dns::Servers(servers) }
}

/// The rules to import, of all families given.
struct Reader<'a> {
    families: &'a [(Family, &'a Loaded)],
}

impl<'a> Reader<'a> {
    /// Every rule of a table with its chain, family by family.
    fn rules(&self, table: Table) -> impl Iterator<Item = (&'a Chain, &'a Rule)> {
        let all = self.families.iter().flat_map(|(_, loaded)| loaded.all());
        all.filter(move |(at, ..)| *at == table).map(|(_, chain, _, rule)| (chain, rule))
    }

    /// The rules of one chain of nat, family by family.
    fn chain(&self, chain: &'a Chain) -> impl Iterator<Item = &'a Rule> {
        self.families.iter().flat_map(move |(_, loaded)| loaded.rules(Table::Nat, chain))
    }

    /// The port that a chain redirects TCP to.
    fn redirect_port(&self, chain: &'a Chain) -> Option<u16> {
        self.chain(chain)
            .find_map(|rule| if let Target::Redirect(port) = rule.target { Some(port) } else { None })
    }
}
