//! The contract between kernel and userspace: map layouts ([`abi`]) and the interception decision ([`policy`]).
#![no_std]

pub mod abi;
pub mod policy;
