//! Everything beside a plain `connect` to a proxy that lives: what of it is seen under iptables, and that under eBPF it
//! is the same, or what it is instead.

mod account;
mod again;
mod binding;
mod client;
mod dns;
mod fast_open;
mod half_close;
mod listeners;
mod mptcp;
mod not_kept;
mod options;
mod passed;
mod program32;
mod stage;
mod traps;
mod uring;
