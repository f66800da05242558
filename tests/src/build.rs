//! Another build of the command: the same source with other BPF programs.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use object::{Architecture, File, Object as _, ObjectSection as _, SectionKind};

/// Length of an instruction.
const INSTRUCTION: usize = 8;
/// `rN = NUMBER` of 64 bits, and of 32 bits with zeros above: the same for a number that is not negative.
const MOVE_64: u8 = 0xb7;
const MOVE_32: u8 = 0xb4;

/// Makes a copy of the command in `folder` in which every BPF program has one instruction in another form. They do the
/// same, but to the kernel they are other programs.
pub fn other_build(command: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let mut bytes = fs::read(command).with_context(|| format!("cannot read {}", command.display()))?;
    let start = embedded_object(&bytes).context("the command has no BPF object")?;
    let programs: Vec<(String, u64, u64)> = File::parse(&bytes[start..])?
        .sections()
        .filter(|section| section.kind() == SectionKind::Text && section.name() != Ok(".text"))
        .filter_map(|section| {
            let (offset, size) = section.file_range()?;
            Some((section.name().ok()?.to_owned(), offset, size))
        })
        .collect();
    ensure!(programs.len() >= 9, "the BPF object has only {programs:?}");
    for (name, offset, size) in programs {
        let first = start + usize::try_from(offset)?;
        let program = &mut bytes[first..first + usize::try_from(size)?];
        let instructions = program.as_chunks_mut::<INSTRUCTION>().0;
        let instruction = instructions.iter_mut().find(|instruction| {
            instruction[0] == MOVE_64 && instruction[1] < 0x0b && instruction[7] & 0x80 == 0
        });
        instruction.with_context(|| format!("{name} moves no number"))?[0] = MOVE_32;
    }
    let other = folder.join("interceptor");
    fs::write(&other, bytes)?;
    fs::set_permissions(&other, Permissions::from_mode(0o755))?;
    Ok(other)
}

/// Where the BPF object begins in the command.
fn embedded_object(command: &[u8]) -> Option<usize> {
    const MAGIC: &[u8] = b"\x7fELF\x02\x01\x01";
    let mut places = command.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    places.find_map(|(place, _)| {
        let object = File::parse(command.get(place..)?).ok()?;
        (object.architecture() == Architecture::Bpf).then_some(place)
    })
}
