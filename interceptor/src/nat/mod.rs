//! The nat rules that mean the same as a capture: Istio's, in every form that iptables and nft know.

pub mod model;
pub mod restore;
pub mod rules;

pub use self::{
    model::{Chain, Entry, Family, Match, Protocol, Rule, RuleSet, Table, Target, Test},
    rules::generate,
};
