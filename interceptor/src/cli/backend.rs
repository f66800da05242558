//! Who enforces a capture, and the flags of istio-iptables about its nat rules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use interceptor::{
    capture::{Capture, Detected, go_bool},
    datapath::{check_reach, default_state_folder},
    nat::{
        generate,
        load::{self, Force, LoadError, Loaded, Options, Variant},
        nft, restore,
    },
    netns::Netns,
    probe::{Backend, choose},
};

use super::output;

/// Flags about the backend.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Backend (switches also from the environment, as for the capture)")]
pub(super) struct BackendArgs {
    /// Who enforces the capture [default: auto].
    #[arg(long, value_name = "NAME")]
    backend: Option<Wanted>,
    /// Fail where --backend auto would take another one.
    #[arg(long, value_name = "NAME")]
    require: Option<Backend>,
    /// As --backend nft.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    native_nftables: Option<bool>,
    /// With --backend iptables, the variant to use instead of finding out: legacy or nft.
    #[arg(long, value_name = "VARIANT")]
    force_iptables_binary: Option<String>,
    /// With --backend iptables, replace other rules of Istio that are loaded.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    reconcile: Option<bool>,
    /// With --backend iptables, load the rules even if they are there.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    force_apply: Option<bool>,
    /// Remove all nat rules of Istio, and add nothing.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    cleanup_only: Option<bool>,
    /// With --backend iptables, be a CNI plugin's: the host's tools work on a pod, so that the pods must not wait for
    /// each other's lock, nor for the host's name services.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    cni_mode: Option<bool>,
    /// Only print the rules that say the same, also into the file that `DRY_RUN_FILE_PATH` names.
    #[arg(short = 'n', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    dry_run: Option<bool>,
}

/// Who is to enforce a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// The best that works here; `interceptor probe` shows why.
    Auto,
    /// eBPF programs at the socket.
    Ebpf,
    /// nat rules by iptables.
    Iptables,
    /// nat rules by nft.
    Nft,
}

/// What is to be done, from flags and environment.
pub(super) struct Plan {
    wanted: Wanted,
    require: Option<Backend>,
    pub(super) cleanup_only: bool,
    pub(super) dry_run: bool,
    dry_run_file: Option<PathBuf>,
    cni_mode: bool,
    options: Options,
}

impl BackendArgs {
    pub(super) fn plan(&self, detected: &Detected) -> anyhow::Result<Plan> {
        let switch = |flag: Option<bool>, name: &str| {
            let (value, warning) = detected.switch(name);
            // As Istio, which lets a variable that cannot be parsed have no effect.
            if let Some(warning) = warning {
                output::warning(warning);
            }
            flag.or(value).unwrap_or(false)
        };
        let variable = detected.environment.get("FORCE_IPTABLES_BINARY").map(String::as_str);
        let force = match self.force_iptables_binary.as_deref().or(variable).unwrap_or_default() {
            "" => Force::Detect,
            "legacy" => Force::Only(Variant::Legacy),
            "nft" => Force::Only(Variant::Nft),
            other => {
                anyhow::bail!("--force-iptables-binary: `{other}` is not a variant; write legacy or nft")
            }
        };
        let native_nftables = switch(self.native_nftables, "NATIVE_NFTABLES");
        Ok(Plan {
            wanted: self.backend.unwrap_or(if native_nftables { Wanted::Nft } else { Wanted::Auto }),
            require: self.require,
            cleanup_only: switch(self.cleanup_only, "CLEANUP_ONLY"),
            dry_run: switch(self.dry_run, "DRY_RUN"),
            dry_run_file: detected
                .environment
                .get("DRY_RUN_FILE_PATH")
                .filter(|path| !path.is_empty())
                .map(Into::into),
            cni_mode: switch(self.cni_mode, "CNI_MODE"),
            options: Options {
                force,
                reconcile: switch(self.reconcile, "RECONCILE"),
                force_apply: switch(self.force_apply, "FORCE_APPLY"),
            },
        })
    }
}

impl Plan {
    /// Prints the rules that say the same, and writes them into the file of `DRY_RUN_FILE_PATH` as well.
    pub(super) fn print_rules(&self, capture: &Capture) -> anyhow::Result<()> {
        let rules = generate(capture);
        let text = if self.wanted == Wanted::Nft {
            nft::text(&rules)
        } else {
            restore::text(&rules.v4) + &restore::text(&rules.v6)
        };
        if let Some(path) = &self.dry_run_file {
            fs::write(path, &text)
                .with_context(|| format!("DRY_RUN_FILE_PATH: cannot write {}", path.display()))?;
        }
        output::text(&text)
    }

    /// Removes all nat rules of Istio from the namespace; says whether there were any.
    pub(super) fn clean_up(&self, netns: &Netns) -> anyhow::Result<bool> {
        self.iptables(netns, load::remove)
    }

    /// Has the host's iptables do something inside the namespace.
    fn iptables<T: Send>(
        &self,
        netns: &Netns,
        work: impl FnOnce() -> Result<T, LoadError> + Send,
    ) -> anyhow::Result<T> {
        let done = netns.run(|| {
            if self.cni_mode
                && let Err(error) = load::isolate()
            {
                // As Istio, which rather waits for a lock than leaves a pod without interception.
                output::warning(format_args!("--cni-mode: {error}; iptables runs with the host's files"));
            }
            work()
        });
        Ok(done??)
    }

    /// The backend to use. Says why if it had to choose.
    pub(super) fn backend(&self, state: &Path, capture: &Capture) -> anyhow::Result<Backend> {
        let named = match self.wanted {
            Wanted::Auto => None,
            Wanted::Ebpf => Some(Backend::Ebpf),
            Wanted::Iptables => Some(Backend::Iptables),
            Wanted::Nft => Some(Backend::Nft),
        };
        if let (Some(named), Some(required)) = (named, self.require) {
            ensure!(named == required, "--backend {named} is not what --require {required} allows");
        }
        let backend = match named.or(self.require) {
            // The tools of nat find out by themselves what works.
            Some(nat @ (Backend::Iptables | Backend::Nft)) => nat,
            Some(Backend::Ebpf) => choose(state, &[Backend::Ebpf])?.backend,
            None => Self::choose(state, capture)?,
        };
        Ok(backend)
    }

    /// What `auto` takes, said in one line with the reason.
    fn choose(state: &Path, capture: &Capture) -> anyhow::Result<Backend> {
        if let Err(out_of_reach) = check_reach(capture) {
            let choice = choose(state, &[Backend::Iptables, Backend::Nft])?;
            output::line(format_args!("backend {}: {out_of_reach}", choice.backend))?;
            return Ok(choice.backend);
        }
        let choice = choose(state, &Backend::ALL)?;
        // A folder of the operator's own choice that cannot be used is a mistake to be told, not a feature missing.
        if choice.decided_by == Some("bpffs") && state != default_state_folder() {
            return Ok(Backend::Ebpf);
        }
        output::line(format_args!("backend {choice}"))?;
        Ok(choice.backend)
    }
}

/// Loads the rules of a nat backend, and says what that did.
pub(super) fn load(
    backend: Backend,
    netns: &Netns,
    capture: &Capture,
    plan: &Plan,
) -> anyhow::Result<&'static str> {
    if backend == Backend::Nft {
        netns.run(|| load::nftables(capture))??;
        return Ok("under interception by nft rules");
    }
    Ok(match plan.iptables(netns, || load::iptables(capture, plan.options))? {
        Loaded::New => "under interception by iptables rules",
        Loaded::Same => "under interception by the same iptables rules already, nothing changed",
        Loaded::Replaced => "under interception by iptables rules, other rules of Istio are replaced",
    })
}

/// Removes all nat rules of Istio from the namespace; says whether there were any.
pub(super) fn remove_rules(netns: &Netns) -> anyhow::Result<bool> {
    Ok(netns.run(load::remove)??)
}
