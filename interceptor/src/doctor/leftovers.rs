//! Nat rules of Istio and Linkerd that are still loaded.

use super::{DoctorError, Finding};
use crate::{
    nat::{
        Family,
        load::{Binary, Variant},
    },
    netns::Netns,
};

/// Beginning of the names of the chains that linkerd2-proxy-init makes.
const LINKERD: &str = "PROXY_INIT_";

/// A finding for each iptables that has rules of a mesh in the namespace.
pub(super) fn rules(netns: &Netns) -> Result<Vec<Finding>, DoctorError> {
    Ok(netns.run(|| {
        let families = Family::ALL.into_iter();
        let binaries = families
            .flat_map(|family| [Variant::Legacy, Variant::Nft].map(|kind| Binary::named(family, kind)));
        binaries.flatten().filter_map(|binary| of(&binary)).collect()
    })?)
}

fn of(binary: &Binary) -> Option<Finding> {
    let why = "interception is in force by nat rules";
    let loaded = match binary.loaded() {
        Ok(loaded) => loaded,
        Err(error) => {
            let advice = format!("read them with `{}-save`", binary.name);
            return Some(Finding::new(
                format!("{} has rules of an unknown kind: {error}", binary.name),
                why,
                advice,
            ));
        }
    };
    let mut chains = loaded.tables.values().flat_map(|table| table.chains.keys());
    let chain = chains.find(|chain| chain.is_istio() || chain.name().starts_with(LINKERD))?;
    let mesh = if chain.is_istio() { "Istio" } else { "Linkerd" };
    let advice = if chain.is_istio() {
        "remove them with `interceptor apply --cleanup-only`, if eBPF is to take over".to_owned()
    } else {
        format!("take the workload out of Linkerd, or remove the chains {LINKERD}* with {}", binary.name)
    };
    Some(Finding::new(format!("{} has rules of {mesh} (chain {})", binary.name, chain.name()), why, advice))
}
