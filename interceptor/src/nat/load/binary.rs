//! Which iptables to use: the one whose rules are there already, else the one that works.

use super::command::{LoadError, run};
use crate::nat::{Family, Loaded, parse};

/// Which iptables to use (`--force-iptables-binary`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    /// Find out.
    #[default]
    Detect,
    /// This one or none.
    Only(Variant),
}

/// The two implementations of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The kernel's own tables of xtables.
    Legacy,
    /// xtables' rules in tables of nftables.
    Nft,
    /// Whatever the plain name stands for on this host.
    Plain,
}

/// An iptables that works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Whose rules it makes.
    pub family: Family,
    /// Its name without `-save` or `-restore`.
    pub name: String,
    /// Legacy ones from 1.6.2 on take `--wait` for the lock they share.
    waits: bool,
}

/// A harmless rule: no packet has this protocol number.
const TEST_RULE: [&str; 5] = ["INPUT", "-p", "255", "-j", "RETURN"];

impl Binary {
    /// The iptables to use for `family`, as Istio chooses it.
    pub fn find(family: Family, force: Force) -> Result<Self, LoadError> {
        let none = || LoadError::NoBinary(base(family));
        if let Force::Only(variant) = force {
            return Self::probe(family, variant)?.ok_or_else(none);
        }
        // Rules come first: trying the legacy variant out would make its tables, of which `iptables-nft` then warns.
        if let Some(legacy) = Self::named(family, Variant::Legacy)?
            && legacy.has_rules()?
            && let Some(legacy) = Self::probe(family, Variant::Legacy)?
        {
            return Ok(legacy);
        }
        for variant in [Variant::Nft, Variant::Plain] {
            if let Some(binary) = Self::probe(family, variant)? {
                return Ok(binary);
            }
        }
        Err(none())
    }

    /// The variant, if it can read rules here. Missing rights are an error: the rules may be there, unseen.
    pub fn named(family: Family, variant: Variant) -> Result<Option<Self>, LoadError> {
        let name = match variant {
            Variant::Legacy => format!("{}-legacy", base(family)),
            Variant::Nft => format!("{}-nft", base(family)),
            Variant::Plain => base(family).to_owned(),
        };
        let Ok(version) = run(&format!("{name}-save"), &["--version"], "") else { return Ok(None) };
        let waits = !version.contains("nf_tables") && is_at_least(&version, [1, 6, 2]);
        let binary = Self { family, name, waits };
        match binary.save() {
            Ok(_) => Ok(Some(binary)),
            Err(error) if error.is_denied() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The variant, if it can read and write rules here.
    pub fn probe(family: Family, variant: Variant) -> Result<Option<Self>, LoadError> {
        let Some(binary) = Self::named(family, variant)? else { return Ok(None) };
        let write = |action| binary.run(&[&["-t", "nat", action], TEST_RULE.as_slice()].concat());
        Ok((write("-A").is_ok() && write("-D").is_ok()).then_some(binary))
    }

    /// The rules that are loaded.
    pub fn loaded(&self) -> Result<Loaded, LoadError> {
        let unreadable = |error: parse::ParseError| LoadError::Unreadable {
            program: self.save_name(),
            why: error.to_string(),
        };
        Ok(parse::save(&self.save()?).map_err(unreadable)?.loaded)
    }

    /// Gives `text` to the restore command, which takes each table as a whole or not at all.
    pub fn restore(&self, text: &str) -> Result<(), LoadError> {
        let program = format!("{}-restore", self.name);
        let wait: &[&str] = if self.waits { &["--wait=30"] } else { &[] };
        run(&program, &[&["--noflush"], wait].concat(), text).map(drop)
    }

    fn run(&self, args: &[&str]) -> Result<(), LoadError> {
        let wait: &[&str] = if self.waits { &["--wait=30"] } else { &[] };
        run(&self.name, &[args, wait].concat(), "").map(drop)
    }

    fn save(&self) -> Result<String, LoadError> {
        run(&self.save_name(), &[], "")
    }

    fn save_name(&self) -> String {
        format!("{}-save", self.name)
    }

    fn has_rules(&self) -> Result<bool, LoadError> {
        Ok(self.save()?.lines().any(|line| line.starts_with("-A")))
    }
}

fn base(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// Reads `iptables-save v1.8.9 (legacy)`.
fn is_at_least(version: &str, wanted: [u32; 3]) -> bool {
    let Some((_, number)) = version.split_once(" v") else { return false };
    let number = number.split_whitespace().next().unwrap_or_default();
    let parts: Vec<u32> = number.split('.').filter_map(|part| part.parse().ok()).collect();
    parts.as_slice() >= wanted.as_slice()
}

#[cfg(test)]
mod tests {
    use super::is_at_least;

    #[test]
    fn versions_compare_by_number() {
        assert!(is_at_least("iptables-save v1.8.9 (legacy)", [1, 6, 2]));
        assert!(is_at_least("iptables-save v1.10.0", [1, 6, 2]));
        assert!(!is_at_least("iptables-save v1.4.21", [1, 6, 2]));
        assert!(!is_at_least("unrecognized option", [1, 6, 2]));
    }
}
