//! Nat rules of Istio and Linkerd that are still loaded.

use super::{DoctorError, Finding};
use crate::{
    nat::{
        Family,
        load::{Binary, LoadError, Variant},
    },
    netns::Netns,
};

/// Beginning of the names of the chains that linkerd2-proxy-init makes.
const LINKERD: &str = "PROXY_INIT_";

/// A finding for each iptables that has rules of a mesh in the namespace.
pub(super) fn rules(netns: &Netns) -> Result<Vec<Finding>, DoctorError> {
    Ok(netns.run(|| {
        let mut findings = Vec::new();
        for family in Family::ALL {
            for variant in [Variant::Legacy, Variant::Nft] {
                match Binary::named(family, variant) {
                    Ok(binary) => findings.extend(binary.as_ref().and_then(of)),
                    Err(denied) => return vec![unseen(&denied)],
                }
            }
        }
        findings
    })?)
}

fn unseen(denied: &LoadError) -> Finding {
    Finding::new(
        format!("nat rules cannot be seen: {denied}"),
        "rules of a mesh may be in force beside eBPF",
        "run doctor as root".to_owned(),
    )
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
