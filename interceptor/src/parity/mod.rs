//! Connections made live under two backends, and everything their ends can see compared.
//!
//! A [`scenario`] says who connects where under which capture. The [`runner`] builds a [`world`] of namespaces for it, lets a
//! [`backend`] intercept, has [`actor`]s connect, and writes down an [`observation`] per connection. The [`report`] sets the
//! observations of two backends side by side.

pub mod actor;
pub mod backend;
pub mod catalogue;
pub mod envoy;
pub mod exchange;
pub mod observation;
pub mod plan;
pub mod program;
pub mod proxy;
pub mod random;
pub mod report;
pub mod runner;
pub mod scenario;
mod stage;
pub mod world;
