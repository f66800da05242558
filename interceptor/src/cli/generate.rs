//! `interceptor generate`: shell completions and man pages, from the very description the command line is parsed by.

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Subcommand;
use clap_complete::Shell;

/// Print shell completions, or write man pages.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Print a shell's completions, e.g. for /usr/share/bash-completion/completions/interceptor.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write a man page for each command.
    Man {
        /// The folder to write them to, e.g. /usr/share/man/man1.
        folder: PathBuf,
    },
}

pub(super) fn run(args: &Args, command: &mut clap::Command) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Completions { shell } => {
            // Written at once: who reads may stop reading, and that is an error to report and not to panic at.
            let mut script = Vec::new();
            clap_complete::generate(*shell, command, "interceptor", &mut script);
            io::Write::write_all(&mut io::stdout().lock(), &script)?;
        }
        What::Man { folder } => {
            clap_mangen::generate_to(command.clone(), folder)
                .with_context(|| format!("cannot write man pages to {}", folder.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
