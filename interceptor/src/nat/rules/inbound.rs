//! Rules for connections that arrive.

use super::{Emission, TCP};
use crate::{
    capture::{InboundMode, InboundPorts},
    nat::model::{Chain, Table, Target, Test},
};

/// Interfaces that are left alone, in both directions.
pub(super) fn excluded_interfaces(rules: &mut Emission<'_>) {
    let tables: &[Table] = match rules.capture.inbound_mode {
        InboundMode::Redirect => &[Table::Nat],
        InboundMode::Tproxy => &[Table::Nat, Table::Mangle],
    };
    for table in tables {
        for name in &rules.capture.excluded_interfaces {
            let inbound = Test::InInterface(name.clone()).is();
            rules.append(*table, &Chain::PREROUTING, [inbound], Target::Return);
            let outbound = Test::OutInterface(name.clone()).is();
            rules.append(*table, &Chain::OUTPUT, [outbound], Target::Return);
        }
    }
}

/// Whatever arrives from a virtual machine is outbound traffic: the inbound rules must not see it.
pub(super) fn rerouted_interfaces(rules: &mut Emission<'_>) {
    for name in &rules.capture.rerouted_interfaces {
        let arriving = Test::InInterface(name.clone()).is();
        rules.insert(Table::Nat, &Chain::PREROUTING, 1, [arriving], Target::Return);
    }
}

/// Packets that conntrack cannot place would reach the application unredirected.
pub(super) fn invalid(rules: &mut Emission<'_>) {
    if rules.capture.drop_invalid {
        let invalid = Test::ConntrackState(vec!["INVALID".to_owned()]).is();
        rules.mangle(&Chain::PREROUTING, [invalid], Target::Jump(Chain::INVALID));
        rules.mangle(&Chain::INVALID, [], Target::Drop);
    }
}

/// Inbound connections go to the proxy by REDIRECT.
pub(super) fn redirect(rules: &mut Emission<'_>) {
    rules.nat(&Chain::PREROUTING, [TCP], Target::Jump(Chain::INBOUND));
    match &rules.capture.inbound_ports {
        InboundPorts::None => {}
        InboundPorts::AllExcept(excluded) => {
            for ports in excluded {
                rules.nat(&Chain::INBOUND, [TCP, Test::DestinationPorts(*ports).is()], Target::Return);
            }
            rules.nat(&Chain::INBOUND, [TCP], Target::Jump(Chain::IN_REDIRECT));
        }
        InboundPorts::Only(included) => {
            for ports in included {
                let to_port = Test::DestinationPorts(*ports).is();
                rules.nat(&Chain::INBOUND, [TCP, to_port], Target::Jump(Chain::IN_REDIRECT));
            }
        }
    }
}
