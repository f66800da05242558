//! What nat rules need. The tools would load modules if one asked them, so the kernel's own lists are read instead.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    feature::{Check, Finding},
    host::Host,
};

/// A part of netfilter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// A function it has, whether it is built in or a loaded module.
    pub(super) function: &'static str,
    /// The module it is in where it is not built in.
    pub(super) module: &'static str,
}

/// Names of the kernel's functions, only those a [`Symbol`] may name.
pub(super) type Symbols = BTreeSet<String>;

const SYMBOLS: &str = "/proc/kallsyms";

/// Reads which functions the kernel has; none if it does not list them.
pub(super) fn read_symbols() -> Option<Symbols> {
    let all = fs::read_to_string(SYMBOLS).ok()?;
    let wanted = super::catalogue::FEATURES.iter().filter_map(|feature| {
        let Check::Netfilter(symbol) = feature.check else { return None };
        Some(symbol.function)
    });
    let wanted: BTreeSet<&str> = wanted.collect();
    // Address, type, name, and the module in brackets.
    let names = all.lines().filter_map(|line| line.split_ascii_whitespace().nth(2));
    Some(names.filter(|name| wanted.contains(name)).map(str::to_owned).collect())
}

/// Whether a part of netfilter is built in, loaded, or a module the kernel will load when rules ask for it.
pub(super) fn symbol(host: &Host, symbol: Symbol) -> Finding {
    let how = "read /proc/kallsyms";
    if host.symbols().is_some_and(|symbols| symbols.contains(symbol.function)) {
        return Finding::new(true, how, "");
    }
    let Some(modules) = modules() else {
        let detail = "not loaded, and the modules of this kernel are not listed here";
        return if host.symbols().is_some() {
            Finding::new(false, how, detail)
        } else {
            Finding::unknown(how, detail)
        };
    };
    let how = "read modules.dep of the running kernel";
    let file = format!("/{}.ko", symbol.module);
    let is_listed =
        modules.lines().filter_map(|line| line.split_once(':')).any(|(path, _)| path.contains(&file));
    Finding::new(is_listed, how, if is_listed { "loaded when rules ask for it" } else { "" })
}

/// The list of modules that can be loaded into the running kernel.
fn modules() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    fs::read_to_string(Path::new("/lib/modules").join(release.trim()).join("modules.dep")).ok()
}

/// Whether a program is in `PATH`, and what it says its version is.
pub(super) fn tool(name: &'static str) -> Finding {
    let how = format!("ran {name} --version");
    let Some(path) = find(name) else { return Finding::new(false, how, "not in PATH") };
    let output = Command::new(&path).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Finding::new(true, how, text.lines().next().unwrap_or_default().trim().to_owned())
        }
        Ok(output) => Finding::new(false, how, format!("{} fails: {}", path.display(), output.status)),
        Err(error) => Finding::new(false, how, format!("{}: {error}", path.display())),
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
