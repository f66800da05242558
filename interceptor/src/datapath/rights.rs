//! The rights the caller must have, told before anything is touched.

use std::fs;

use super::DatapathError;

/// Capability numbers of linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Checks the caller's capabilities.
pub(super) fn check() -> Result<(), DatapathError> {
    let missing = missing(effective_capabilities());
    if !missing.is_empty() {
        return Err(DatapathError::Rights { missing: missing.join(" and ") });
    }
    Ok(())
}

/// The caller's effective capabilities; all of them if they cannot be read, so that the kernel has the last word.
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(u64::MAX)
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective & (1 << capability) != 0;
    let mut missing = Vec::new();
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(missing(0), ["CAP_BPF", "CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << CAP_BPF), ["CAP_NET_ADMIN"]);
        assert!(missing(1 << CAP_BPF | 1 << CAP_NET_ADMIN).is_empty());
        assert!(missing(1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN).is_empty());
    }
}
