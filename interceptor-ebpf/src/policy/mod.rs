//! The decision: what becomes of a connection, and by which clause.
//!
//! Pure: it gets facts and a [`Tables`], and returns a [`Decision`]. The kernel, `explain` and the proof that it agrees
//! with the nat rules all run this one source. The order of clauses is the order of Istio's rules
//! (tools/istio-iptables/pkg/capture/run.go); the first that matches decides.

mod incoming;
mod outgoing;
mod reason;

pub use self::{
    incoming::{Incoming, incoming},
    outgoing::{DNS_PORT, Outgoing, Protocol, outgoing},
    reason::Reason,
};
use crate::abi::{Listener, Marks, Workload};

/// What a capture says, asked one subject at a time.
pub trait Tables {
    /// The capture's numbers and switches.
    fn workload(&self) -> &Workload;
    /// Marks of an outbound destination's port.
    fn outbound_port(&self, port: u16) -> Marks;
    /// Marks of an inbound destination's port.
    fn inbound_port(&self, port: u16) -> Marks;
    /// Marks of a user id.
    fn user(&self, user: u32) -> Marks;
    /// Marks of a group id.
    fn group(&self, group: u32) -> Marks;
    /// Marks of an interface.
    fn interface(&self, interface: u32) -> Marks;
}

/// What becomes of a connection, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The clause that decided.
    pub reason: Reason,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes where it wanted to.
    Pass,
    /// It goes to a listener of the proxy.
    Redirect(Listener),
}

#[inline(always)]
const fn pass(reason: Reason) -> Decision {
    Decision { verdict: Verdict::Pass, reason }
}

#[inline(always)]
const fn redirect(listener: Listener, reason: Reason) -> Decision {
    Decision { verdict: Verdict::Redirect(listener), reason }
}
