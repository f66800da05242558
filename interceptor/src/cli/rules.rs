//! `interceptor rules`: the nat rules that mean the same as a capture.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::ValueEnum;
use interceptor::{
    capture::{CaptureArgs, Pod, PodReader},
    nat::{
        Family, Loaded, RuleSet, Table, generate,
        list::{self, Count, Style},
        nft, restore, save,
    },
};

use super::output;

/// Print the nat rules that mean the same as the given flags.
///
/// These are Istio's own rules; the iptables and nft backends load exactly them.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    capture: CaptureArgs,
    /// The form to print them in.
    #[arg(long, value_name = "FORM", default_value = "restore")]
    format: Format,
    /// Print the rules of one family only.
    #[arg(long, value_name = "FAMILY", default_value = "both")]
    family: Which,
    /// In a list, print names for ports and well-known addresses.
    #[arg(long)]
    names: bool,
    /// In a list, print counters and interfaces.
    #[arg(long, short = 'v')]
    verbose: bool,
    /// Print the rules that Istio would make for the pod of this manifest (YAML or JSON); flags win over it.
    #[arg(long, value_name = "FILE")]
    from_pod: Option<PathBuf>,
    /// Who reads the pod's manifest.
    #[arg(long, value_name = "WHO", default_value = "injector", requires = "from_pod")]
    pod_reader: PodReader,
    /// The network namespace whose addresses tell whether IPv6 is used [default: the caller's own].
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  What an injected pod gets:
    interceptor rules -i '*' -b '*' -d 15090,15021,15020 --ipv6 off
  As `iptables -t nat -vL` would list it:
    interceptor rules -i '*' -b '*' --ipv6 off --format list --names -v";

/// A form of the rules.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Input of iptables-restore and ip6tables-restore, as Istio writes it.
    Restore,
    /// What iptables-save prints once they are loaded.
    Save,
    /// What `iptables -t nat -nL` prints once they are loaded.
    List,
    /// Input of `nft -f`.
    Nft,
}

/// Families to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// IPv4, then IPv6.
    Both,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = match &args.from_pod {
        Some(path) => args.capture.clone().or(from_pod(path, args.pod_reader)?),
        None => args.capture.clone(),
    };
    let capture = super::capture(&settings, args.netns.as_deref())?;
    let rules = generate(&capture);
    if matches!(args.format, Format::Nft) {
        output::text(&nft::text(&rules))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for family in Family::ALL {
        let wanted = match family {
            Family::V4 => args.family != Which::V6,
            Family::V6 => args.family != Which::V4,
        };
        if wanted && !rules.family(family).is_empty() {
            text.push_str(&one_family(args, &rules, family));
        }
    }
    output::text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn from_pod(path: &Path, reader: PodReader) -> anyhow::Result<CaptureArgs> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let settings = Pod::read(&text).and_then(|pod| pod.settings(reader));
    settings.with_context(|| format!("cannot take a capture from {}", path.display()))
}

fn one_family(args: &Args, rules: &RuleSet, family: Family) -> String {
    let loaded = Loaded::of(rules.family(family));
    match args.format {
        Format::Restore | Format::Nft => restore::text(rules.family(family)),
        Format::Save => save::text(&loaded, family),
        Format::List => {
            let style = Style { names: args.names, verbose: args.verbose };
            list::text(&loaded, Table::Nat, family, style, |_, _| Count::default())
        }
    }
}
