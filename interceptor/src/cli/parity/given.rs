//! The capture that scenarios are to answer for, when it is not the catalogue's.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use clap::Parser;
use interceptor::{
    capture::{Capture, CaptureArgs, Detected},
    nat::{
        self,
        load::{Binary, Variant},
    },
    netns::Netns,
};

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Flags {
    #[command(flatten)]
    capture: CaptureArgs,
}

/// The capture that a text of flags makes; `import` and shells put variables and a command before them.
pub(super) fn from_flags(text: &str) -> anyhow::Result<Capture> {
    let words = shlex::split(text).with_context(|| format!("a quotation does not end in {text:?}"))?;
    let is_variable = |word: &&String| word.contains('=') && !word.starts_with('-');
    let environment: BTreeMap<_, _> = words
        .iter()
        .take_while(is_variable)
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let flags =
        words[environment.len()..].iter().filter(|word| !["interceptor", "apply"].contains(&word.as_str()));
    let flags = Flags::try_parse_from(flags).context("--capture takes flags of `interceptor apply`")?;
    // What is not said is as in a pod of the scenarios: dual stack, if that is asked for.
    let addresses = ["10.77.1.2", "fd77:1::2"].iter().flat_map(|address| address.parse()).collect();
    let detected = Detected { environment, addresses, ..Detected::here()? };
    Ok(flags.capture.capture(&detected)?)
}

/// The capture that means the same as the rules in a namespace.
pub(super) fn from_netns(path: &Path) -> anyhow::Result<Capture> {
    let loaded = |family| -> anyhow::Result<Option<nat::Loaded>> {
        for variant in [Variant::Legacy, Variant::Nft, Variant::Plain] {
            let Some(binary) = Binary::named(family, variant)? else { continue };
            let loaded = binary.loaded()?;
            if loaded.all().next().is_some() {
                return Ok(Some(loaded));
            }
        }
        Ok(None)
    };
    let rules = Netns::open(path)?.run(|| {
        let [v4, v6] = nat::Family::ALL.map(loaded);
        anyhow::Ok((v4?, v6?))
    })??;
    let v4 = rules.0.with_context(|| format!("there are no iptables rules in {}", path.display()))?;
    nat::import::import(&v4, rules.1.as_ref())
        .with_context(|| format!("the rules of {} are no capture", path.display()))
}
