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
    /// The same decision. The kernel's verifier is made to forget here which way led to it: ways to the same place
    /// that differ in what it knows are each followed to the end, and every choice would multiply them.
    #[inline(always)]
    #[must_use]
    fn settled(&self, decision: Decision) -> Decision {
        decision
    }
    /// The same answer, forgotten in the same way.
    #[inline(always)]
    #[must_use]
    fn settled_flag(&self, flag: bool) -> bool {
        flag
    }
}

/// What becomes of a connection, and why.
///
/// Not an enum with a payload: LLVM would copy the payload of a case that has none, which the verifier refuses as a
/// read of an uninitialised register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    listener: Listener,
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

impl Decision {
    /// What becomes of the connection.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.redirect().map_or(Verdict::Pass, Verdict::Redirect)
    }

    /// The listener it is redirected to, if it is.
    #[inline(always)]
    #[must_use]
    pub const fn redirect(&self) -> Option<Listener> {
        if self.passes() { None } else { Some(self.listener) }
    }

    /// Whether it goes where it wanted to.
    #[inline(always)]
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.listener.0 == Listener::NONE.0
    }

    /// The decision to let a connection go where it wants to.
    #[inline(always)]
    #[must_use]
    pub const fn pass(reason: Reason) -> Self {
        Self { listener: Listener::NONE, reason }
    }
}

#[inline(always)]
const fn pass(reason: Reason) -> Decision {
    Decision::pass(reason)
}

#[inline(always)]
const fn redirect(listener: Listener, reason: Reason) -> Decision {
    Decision { listener, reason }
}
