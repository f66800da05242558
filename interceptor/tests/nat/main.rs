//! Captures and the nat rules they stand for.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its own data has failed")]

mod agreement;
mod captures;
mod golden;
mod goldens;
mod iptables;
mod loads;
mod proof;
