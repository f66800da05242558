//! Rules for TPROXY: inbound connections reach the proxy with their addresses unchanged.

use super::{Emission, TCP, on_lo};
use crate::{
    capture::InboundPorts,
    nat::model::{Chain, Match, Table, Target, Test},
};

/// Marks the proxy's own connections to local addresses, which PREROUTING could not tell from the application's.
pub(in crate::nat) const SELF_CALL_MARK: u32 = 1338;

/// Inbound connections go to the proxy by TPROXY.
pub(super) fn inbound(rules: &mut Emission<'_>) {
    let mark = rules.capture.tproxy_mark;
    rules.mangle(&Chain::DIVERT, [], Target::SetMark(mark));
    rules.mangle(&Chain::DIVERT, [], Target::Accept);
    let target = Target::Tproxy { port: rules.capture.inbound_port, mark };
    rules.mangle(&Chain::TPROXY, [rules.to_loopback().is_not(), TCP], target);
    rules.mangle(&Chain::PREROUTING, [TCP], Target::Jump(Chain::INBOUND));
    match &rules.capture.inbound_ports {
        InboundPorts::None => {}
        InboundPorts::AllExcept(excluded) => {
            for ports in excluded {
                rules.mangle(&Chain::INBOUND, [TCP, Test::DestinationPorts(*ports).is()], Target::Return);
            }
            rules.mangle(&Chain::INBOUND, [TCP, known()], Target::Jump(Chain::DIVERT));
            rules.mangle(&Chain::INBOUND, [TCP], Target::Jump(Chain::TPROXY));
        }
        InboundPorts::Only(included) => {
            for ports in included {
                let to_port = Test::DestinationPorts(*ports).is();
                let divert = [TCP, to_port.clone(), known()];
                rules.mangle(&Chain::INBOUND, divert, Target::Jump(Chain::DIVERT));
                rules.mangle(&Chain::INBOUND, [TCP, to_port], Target::Jump(Chain::TPROXY));
            }
        }
    }
}

/// Keeps the proxy's connections to the application, which bear the client's address, out of the proxy.
pub(super) fn tail(rules: &mut Emission<'_>) {
    let mark = rules.capture.tproxy_mark;
    let marked = || Test::Mark(mark.into()).is();
    rules.mangle(&Chain::PREROUTING, [TCP, marked()], Target::SaveMark);
    rules.mangle(&Chain::OUTPUT, [TCP, on_lo(), marked()], Target::Return);
    let uids = rules.capture.proxy_uids.iter().map(|uid| Test::Uid(*uid).is());
    let gids = rules.capture.proxy_gids.iter().map(|gid| Test::Gid(*gid).is());
    for owner in uids.chain(gids) {
        let matches = [rules.to_loopback().is_not(), TCP, on_lo(), owner];
        rules.mangle(&Chain::OUTPUT, matches, Target::SetMark(SELF_CALL_MARK));
    }
    let answer = Test::ConnectionMark(mark.into()).is();
    rules.mangle(&Chain::OUTPUT, [TCP, answer], Target::RestoreMark);

    let arriving_on_lo = Test::InInterface("lo".to_owned()).is();
    let not_a_self_call = Test::Mark(SELF_CALL_MARK.into()).is_not();
    let passed_over = [
        vec![TCP, marked()],
        vec![TCP, rules.passthrough_source(), arriving_on_lo.clone()],
        vec![TCP, arriving_on_lo, not_a_self_call],
    ];
    for (place, matches) in (1..).zip(passed_over) {
        rules.insert(Table::Mangle, &Chain::INBOUND, place, matches, Target::Return);
    }
}

fn known() -> Match {
    Test::ConntrackState(vec!["RELATED".to_owned(), "ESTABLISHED".to_owned()]).is()
}
