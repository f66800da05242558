//! Captures and the nat rules they stand for.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its own data has failed")]
#![expect(clippy::print_stdout, reason = "a test says why it is skipped and how much it compared")]

mod agreement;
mod golden;
mod goldens;
mod imports;
mod iptables;
mod loading;
mod loads;
mod pods;
mod proof;
