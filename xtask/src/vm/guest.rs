//! What runs inside a machine: Debian's tools, the kernel's modules, our binaries and the jobs, as one archive in
//! memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;

use super::{debian::Apt, folder, kernels::Kernel, programs::Programs};
use crate::workspace;

/// What worlds of namespaces and rules of nat need, where they are modules. A kernel without one has it built in, or
/// not at all, which its probe then tells.
const MODULES: [&str; 37] = [
    "veth",
    "dummy",
    "inet_diag",
    "tcp_diag",
    "tls",
    "nf_conntrack",
    "nf_nat",
    "nf_tables",
    "nft_chain_nat",
    "nft_compat",
    "nft_counter",
    "nft_nat",
    "nft_redir",
    "nft_ct",
    "nft_tproxy",
    "nft_socket",
    "xt_REDIRECT",
    "xt_owner",
    "xt_tcpudp",
    "xt_multiport",
    "xt_comment",
    "xt_CT",
    "xt_TPROXY",
    "xt_socket",
    "xt_conntrack",
    "xt_mark",
    "xt_connmark",
    "xt_MASQUERADE",
    "nft_masq",
    "iptable_nat",
    "ip6table_nat",
    "iptable_filter",
    "ip6table_filter",
    "iptable_mangle",
    "ip6table_mangle",
    "iptable_raw",
    "ip6table_raw",
];
/// Programs inside. All are unpacked with the libraries they need.
const TOOLS: [&str; 5] = ["busybox-static", "dash", "iproute2", "iptables", "nftables"];

/// What the tests take from busybox; not its shell, which would take its own `ip` for every `ip`.
const APPLETS: [&str; 8] = ["sed", "kill", "cat", "sleep", "env", "grep", "true", "unshare"];

/// Debian's tools, unpacked: for use inside, and busybox for use here.
pub(super) struct Tools {
    folder: PathBuf,
}

impl Tools {
    pub(super) fn fetch(progress: &ProgressBar) -> Result<Self> {
        let tools = Self { folder: folder().join("tools") };
        let (wanted, note) = (TOOLS.join(" "), folder().join("tools.list"));
        if fs::read_to_string(&note).ok().as_ref() != Some(&wanted) {
            if tools.folder.exists() {
                fs::remove_dir_all(&tools.folder).context("cannot remove older tools")?;
            }
            Apt::open(false, progress)?.unpack_with_dependencies(&TOOLS, &tools.folder, progress)?;
            fs::write(&note, wanted).context("cannot note the tools")?;
        }
        Ok(tools)
    }

    fn busybox(&self) -> Command {
        let mut busybox = Command::new(self.folder.join("usr/bin/busybox"));
        busybox.stdin(Stdio::null());
        busybox
    }
}

/// A command that runs inside, by the name its output is found under.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// One word.
    pub(super) name: String,
    /// A line for the shell.
    pub(super) command: String,
}

/// Writes the archive a machine boots with.
pub(super) fn archive(
    target: &Path,
    tools: &Tools,
    kernel: &Kernel,
    programs: &Programs,
    jobs: &[Job],
) -> Result<()> {
    let staging = tempfile::tempdir_in(folder()).context("cannot make a folder for the archive")?;
    let root = staging.path();
    for part in ["proc", "sys", "dev", "run", "tmp", "root", "etc", "modules", "usr/bin", "t/debug/deps"] {
        fs::create_dir_all(root.join(part)).with_context(|| format!("cannot make {part}"))?;
    }
    let folders = [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];
    for (link, to) in folders {
        symlink(to, root.join(link)).context("cannot make a link")?;
    }
    for applet in APPLETS {
        symlink("busybox", root.join("usr/bin").join(applet)).context("cannot make a link")?;
    }
    symlink("dash", root.join("usr/bin/sh")).context("cannot make a link")?;
    // The tests look names up; nothing may be loaded into a static program for that.
    let names = [
        ("nsswitch.conf", "passwd: files\ngroup: files\n"),
        ("passwd", "root:x:0:0::/root:/bin/sh\n"),
        ("group", "root:x:0:\n"),
    ];
    for (name, text) in names {
        fs::write(root.join("etc").join(name), text).with_context(|| format!("cannot write /etc/{name}"))?;
    }
    let init = root.join("init");
    fs::write(&init, include_str!("init.sh")).context("cannot write /init")?;
    fs::set_permissions(&init, Permissions::from_mode(0o755)).context("cannot make /init executable")?;
    put_modules(&root.join("modules"), tools, &kernel.modules)?;
    programs.put(&root.join("t/debug"))?;
    put_goldens(root)?;
    let lines: Vec<_> = jobs.iter().map(|job| format!("{} {}\n", job.name, job.command)).collect();
    fs::write(root.join("jobs"), lines.concat()).context("cannot write the jobs")?;

    let mut archive = File::create(target).with_context(|| format!("cannot write {}", target.display()))?;
    pack(tools, &tools.folder, &mut archive)?;
    pack(tools, root, &mut archive)
}

/// Copies the golden texts to where the tests know them: the paths of this system are built into them.
fn put_goldens(root: &Path) -> Result<()> {
    let here = workspace::root();
    let inside = |part: &str| root.join(here.strip_prefix("/").unwrap_or(here)).join(part);
    // The path leads through the folder of the tests' own package.
    fs::create_dir_all(inside("interceptor")).context("cannot make the package's folder")?;
    fs::create_dir_all(inside("tests/golden")).context("cannot make the golden texts' folder")?;
    let listed = fs::read_dir(here.join("tests/golden")).context("cannot list the golden texts")?;
    for entry in listed {
        let entry = entry.context("cannot list the golden texts")?;
        if entry.path().is_file() {
            fs::copy(entry.path(), inside("tests/golden").join(entry.file_name()))
                .context("cannot copy the golden texts")?;
        }
    }
    Ok(())
}

/// Appends a folder to the archive. The kernel takes several archives after one another.
fn pack(tools: &Tools, folder: &Path, archive: &mut File) -> Result<()> {
    let mut list = tools.busybox();
    // What only documents is left out: the archive lies in the machine's memory.
    list.args(["find", ".", "-path", "./usr/share", "-prune", "-o", "-print"])
        .current_dir(folder)
        .stdout(Stdio::piped());
    let mut list = list.spawn().context("cannot run busybox")?;
    let names = list.stdout.take().context("busybox has no output")?;
    let mut pack = tools.busybox();
    pack.args(["cpio", "--create", "--format", "newc", "--quiet"]).current_dir(folder);
    let output = archive.try_clone().context("cannot share the archive")?;
    let packed = pack.stdin(names).stdout(output).status().context("cannot run busybox")?;
    let listed = list.wait().context("cannot wait for busybox")?;
    ensure!(packed.success() && listed.success(), "cannot pack {}", folder.display());
    Ok(())
}

/// Copies the modules wanted and what they depend on, unpacked, with a list of them in an order that loads.
fn put_modules(target: &Path, tools: &Tools, all: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    find_modules(all, &mut files)?;
    let mut order = Order { tools, files: &files, target, done: BTreeSet::new(), list: String::new() };
    for module in MODULES {
        order.add(module)?;
    }
    fs::write(target.join("order"), order.list).context("cannot write the list of modules")
}

struct Order<'a> {
    tools: &'a Tools,
    files: &'a BTreeMap<String, PathBuf>,
    target: &'a Path,
    done: BTreeSet<String>,
    list: String,
}

impl Order<'_> {
    fn add(&mut self, module: &str) -> Result<()> {
        let Some(file) = self.files.get(module) else { return Ok(()) };
        if !self.done.insert(module.to_owned()) {
            return Ok(());
        }
        let content = self.read(file)?;
        for dependency in dependencies(&content) {
            self.add(&dependency)?;
        }
        let name = format!("{module}.ko");
        fs::write(self.target.join(&name), content).with_context(|| format!("cannot write {name}"))?;
        self.list.push_str(&name);
        self.list.push('\n');
        Ok(())
    }

    fn read(&self, file: &Path) -> Result<Vec<u8>> {
        if file.extension().is_none_or(|extension| extension != "xz") {
            return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        }
        let output = self.tools.busybox().args(["xzcat"]).arg(file).output().context("cannot run busybox")?;
        ensure!(output.status.success(), "cannot unpack {}", file.display());
        Ok(output.stdout)
    }
}

/// Every module below a folder by its name, in which `-` and `_` are one.
fn find_modules(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let kind = entry.file_type().with_context(|| format!("cannot look at {}", entry.path().display()))?;
        if kind.is_dir() {
            find_modules(&entry.path(), found)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            found.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

/// The modules one depends on, from the text its build left in it.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn dependencies_are_read_from_a_modules_own_words() {
        let module = b"\x7fELF..\0license=GPL\0depends=nf_nat,nf-conntrack\0name=nft_redir\0";
        assert_eq!(dependencies(module), ["nf_nat", "nf_conntrack"]);
        assert!(dependencies(b"\0depends=\0name=veth\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }
}
