//! The contract between kernel and userspace: map layouts ([`abi`]) and the interception decision ([`policy`]).
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a BPF program is one function: what is not inlined the verifier may not follow"
)]

pub mod abi;
pub mod policy;
