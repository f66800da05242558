//! What a namespace looks like from inside, as far as a capture depends on it.

use nix::net::if_::if_nameindex;

use super::{DatapathError, Interfaces};
use crate::{
    capture::Capture,
    netns::Netns,
    routes::{self, Route},
};

/// What a namespace looks like from inside.
pub(super) struct View {
    pub(super) routes: Vec<Route>,
    pub(super) interfaces: Interfaces,
    /// A sentence for each part of the capture that means nothing there yet.
    pub(super) shortfalls: Vec<String>,
}

impl View {
    pub(super) fn of(netns: &Netns, capture: &Capture) -> Result<Self, DatapathError> {
        netns.run(|| {
            let existing = if_nameindex().map_err(|errno| DatapathError::Interfaces { source: errno.into() })?;
            let mut shortfalls = Vec::new();
            let mut indices = |names: &[String]| {
                let mut indices = Vec::new();
                for name in names {
                    let before = indices.len();
                    let named = existing.iter().filter(|interface| is_named(&interface.name().to_string_lossy(), name));
                    indices.extend(named.map(nix::net::if_::Interface::index));
                    if indices.len() == before {
                        shortfalls.push(format!(
                            "the namespace has no interface {name}: what is said of it counts only once it exists \
                             and apply is run again"
                        ));
                    }
                }
                indices
            };
            let interfaces = Interfaces {
                excluded: indices(&capture.excluded_interfaces),
                rerouted: indices(&capture.rerouted_interfaces),
            };
            Ok(Self { routes: routes::read()?, interfaces, shortfalls })
        })?
    }
}

/// Whether an interface is meant by a name as iptables reads it: a final `+` stands for any ending.
fn is_named(interface: &str, name: &str) -> bool {
    name.strip_suffix('+').map_or_else(|| interface == name, |beginning| interface.starts_with(beginning))
}
