//! The nat rules that mean the same as a capture: Istio's, in every form that iptables and nft know.

pub mod classes;
pub mod evaluate;
pub mod import;
pub mod list;
pub mod load;
pub mod loaded;
pub mod model;
pub mod nft;
pub mod packet;
pub mod parse;
pub mod restore;
pub mod rules;
pub mod save;
mod services;
mod view;

pub use self::{
    evaluate::{EvaluateError, Evaluation, Outcome, RuleAt, evaluate},
    loaded::{Chains, Loaded},
    model::{Chain, Entry, Family, Match, Protocol, Rule, RuleSet, Table, Target, Test},
    packet::{Packet, Path},
    rules::generate,
    view::is_interface,
};
