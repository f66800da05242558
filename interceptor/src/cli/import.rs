//! `interceptor import`: from rules that are loaded somewhere to the flags that mean the same.

use std::{fs, io::Read as _, path::Path, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use interceptor::nat::{Loaded, import::import, parse};

use super::output;

/// Find the flags that mean the same as nat rules of Istio, from any release.
///
/// Reads what iptables-save, `iptables -t nat -S` or `iptables -t nat -L` (best with -nv) prints. If no flags mean
/// the same, names a connection that tells the difference and ends with 1.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The file with the IPv4 rules; `-` for standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    rules: PathBuf,
    /// The file with the IPv6 rules.
    #[arg(long, value_name = "FILE")]
    ipv6_rules: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  iptables-save | interceptor import
  interceptor import pod.rules --ipv6-rules pod.rules6";

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let v4 = read(&args.rules)?;
    let v6 = args.ipv6_rules.as_deref().map(read).transpose()?;
    let capture = import(&v4, v6.as_ref())?;
    output::line(capture.command_line())?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Loaded> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("cannot read the rules from standard input")?;
    } else {
        text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    let parsed =
        parse::any(&text).with_context(|| format!("{} does not hold iptables rules", path.display()))?;
    for assumption in parsed.assumptions {
        output::warning(assumption);
    }
    Ok(parsed.loaded)
}
