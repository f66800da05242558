//! The flags of istio-iptables about its validation, and carrying it out.

use std::{fmt::Display, process::ExitCode, time::Duration};

use anyhow::Context as _;
use interceptor::{
    capture::{Capture, Detected, go_bool},
    netns::Netns,
    validate::{ValidateError, validate},
};

use super::{duration::go_duration, output};

/// What Istio's validation container ends with when interception does not work; its repair controller looks for it.
const NOT_INTERCEPTED: u8 = 126;

/// Flags about validation.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Validation (also from the environment, as for the capture)")]
pub(super) struct ValidationArgs {
    /// Afterwards, find out by connections of our own whether interception works; exit code 126 if it does not.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    run_validation: Option<bool>,
    /// Put nothing under interception; for --run-validation where somebody else has.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    skip_rule_apply: Option<bool>,
    /// Port that validation connects to [default: 15002].
    #[arg(long, value_name = "PORT", value_parser = probe_port)]
    iptables_probe_port: Option<u16>,
    /// How long validation may take, as Go writes it: 5s, 500ms, 1m30s [default: 5s].
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    probe_timeout: Option<Duration>,
}

/// What is to be validated, from flags and environment.
pub(super) struct Validation {
    pub(super) runs: bool,
    pub(super) skips_apply: bool,
    probe_port: u16,
    timeout: Duration,
}

impl ValidationArgs {
    pub(super) fn settle(&self, detected: &Detected) -> Validation {
        let switch = |name| from_environment(detected, name, go_bool);
        Validation {
            runs: self.run_validation.or_else(|| switch("RUN_VALIDATION")).unwrap_or(false),
            skips_apply: self.skip_rule_apply.or_else(|| switch("SKIP_RULE_APPLY")).unwrap_or(false),
            probe_port: self
                .iptables_probe_port
                .or_else(|| from_environment(detected, "IPTABLES_PROBE_PORT", probe_port))
                .unwrap_or(15002),
            timeout: self
                .probe_timeout
                .or_else(|| from_environment(detected, "PROBE_TIMEOUT", go_duration))
                .unwrap_or(Duration::from_secs(5)),
        }
    }
}

impl Validation {
    /// Validates if that is wanted. Everything else must be done by now.
    pub(super) fn run(&self, netns: &Netns, capture: &Capture) -> anyhow::Result<ExitCode> {
        if !self.runs {
            return Ok(ExitCode::SUCCESS);
        }
        match netns.run(|| validate(capture, self.probe_port, self.timeout))? {
            Ok(()) => {
                output::line(format_args!("{}: interception works", netns.path().display()))?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error @ ValidateError::NotIntercepted { .. }) => {
                output::error(&error.into());
                Ok(ExitCode::from(NOT_INTERCEPTED))
            }
            Err(error) => Err(error).context("validation cannot run"),
        }
    }

    /// Tells that nothing is validated, if that was wanted.
    pub(super) fn forgo(&self, because: impl Display) {
        if self.runs {
            output::warning(format_args!("--run-validation is ignored: {because}"));
        }
    }
}

/// As Istio, which lets a variable that cannot be parsed have no effect; but not in silence.
fn from_environment<T>(
    detected: &Detected,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let text = detected.environment.get(name)?;
    let refused =
        |why| output::warning(format_args!("the environment variable {name} is ignored: `{text}`; {why}"));
    parse(text).map_err(refused).ok()
}

fn probe_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| "write a port from 1 to 65535".to_owned())
}
