//! Trials: small programs, maps and links offered to the kernel, to see whether it takes them.
//!
//! Nothing is attached, and everything made is closed again at once.

mod maps;
mod types;

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use nix::libc;

pub(crate) use self::maps::{Shape, map, map_of_maps, socket_storage};
pub(crate) use super::sys::AttachType as Hook;
use super::sys::{bpf, descriptor};

/// Whether the kernel takes something; an error if that could not be found out.
pub(crate) type Answer = io::Result<bool>;

/// Number of the helper `bpf_set_retval` in linux/bpf.h.
pub(crate) const SET_RETVAL: u16 = 187;

/// Number of the helper `bpf_get_current_pid_tgid`.
pub(crate) const CURRENT_PROCESS: u16 = 14;

/// Number of the helper `bpf_get_current_comm`.
pub(crate) const CURRENT_COMMAND: u16 = 16;

/// One instruction, as the kernel reads it on a little-endian machine.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Instruction(u64);

impl Instruction {
    /// Makes 1 the result, which every hook here may return.
    const ALLOW: Self = Self::new(0xb7, 0, 0, 1);
    const EXIT: Self = Self::new(0x95, 0, 0, 0);
    /// Makes zero of the last word on the stack.
    const CLEAR: Self = Self::new(0x62, 10, 0xfffc, 0);
    /// Points the first argument at the word that [`Self::CLEAR`] wrote.
    const POINT: [Self; 2] = [Self::new(0xbf, 0xa1, 0, 0), Self::new(0x07, 1, 0, 0xffff_fffc)];

    const fn call(helper: u16) -> Self {
        Self::new(0x85, 0, 0, helper as u32)
    }

    /// Calls the function that begins so many instructions after the next.
    const fn call_function(distance: u32) -> Self {
        Self::new(0x85, 0x10, 0, distance)
    }

    /// Reads a word of the context, which is register 1 when a program starts.
    const fn read_context(offset: u16) -> Self {
        Self::new(0x61, 0x10, offset, 0)
    }

    const fn new(code: u8, registers: u8, offset: u16, immediate: u32) -> Self {
        Self(code as u64 | (registers as u64) << 8 | (offset as u64) << 16 | (immediate as u64) << 32)
    }
}

/// Whether a program that does nothing loads for a hook.
pub(crate) fn hook(hook: Hook) -> Answer {
    answer(load(hook, &[Instruction::ALLOW, Instruction::EXIT]))
}

/// Whether programs of a hook may call a helper, by its number in linux/bpf.h.
pub(crate) fn helper(hook: Hook, helper: u16) -> Answer {
    // The verifier says this before it looks at the arguments, of which there are none here.
    const UNKNOWN: [&str; 3] = ["unknown func", "invalid func", "program of this type cannot use helper"];
    match load(hook, &[Instruction::call(helper), Instruction::ALLOW, Instruction::EXIT]) {
        Err(refusal) if !refusal.log.is_empty() => {
            Ok(!UNKNOWN.iter().any(|reason| refusal.log.contains(reason)))
        }
        outcome => answer(outcome),
    }
}

/// Whether programs of a hook may read the word of their context at an offset.
pub(crate) fn context_word(hook: Hook, offset: u16) -> Answer {
    answer(load(hook, &[Instruction::read_context(offset), Instruction::ALLOW, Instruction::EXIT]))
}

/// Whether functions that the verifier follows by themselves may be given memory.
pub(crate) fn memory_for_functions() -> Answer {
    let [point, at_last_word] = Instruction::POINT;
    let program = [
        Instruction::CLEAR,
        point,
        at_last_word,
        Instruction::call_function(2),
        Instruction::ALLOW,
        Instruction::EXIT,
        Instruction::ALLOW,
        Instruction::EXIT,
    ];
    match types::functions() {
        Ok((types, [main, called])) => {
            let functions = Functions { types, starts: vec![[0, main], [6, called]] };
            answer(load_described(Hook::Connect4, &program, Some(&functions)))
        }
        Err(error) => taken(Err(error)),
    }
}

/// Whether a link can attach a program of a hook, with flags of linux/bpf.h.
///
/// There is no target: a kernel that knows such links says that first, any other refuses the request as a whole.
pub(crate) fn link(hook: Hook, flags: u32) -> Answer {
    #[repr(C)]
    struct Request {
        program: RawFd,
        target: RawFd,
        attach: u32,
        flags: u32,
    }
    let program = load(hook, &[Instruction::ALLOW, Instruction::EXIT]).map_err(|refusal| refusal.error)?;
    let request = Request { program: program.as_raw_fd(), target: -1, attach: hook as u32, flags };
    missing_target(bpf(BPF_LINK_CREATE, &request))
}

/// Whether the program of a link can be replaced.
pub(crate) fn link_update() -> Answer {
    #[repr(C)]
    struct Request {
        link: RawFd,
        program: RawFd,
        flags: u32,
        old_program: RawFd,
    }
    missing_target(bpf(BPF_LINK_UPDATE, &Request { link: -1, program: -1, flags: 0, old_program: 0 }))
}

/// Whether the kernel takes a description of types.
pub(crate) fn type_information() -> Answer {
    taken(types::int())
}

const BPF_PROG_LOAD: u32 = 5;
const BPF_LINK_CREATE: u32 = 28;
const BPF_LINK_UPDATE: u32 = 29;

/// Why a program did not load: what bpf(2) said, and what the verifier wrote if it came that far.
struct Refusal {
    error: io::Error,
    log: String,
}

/// What a program's functions are described by.
struct Functions {
    types: OwnedFd,
    /// Where each begins, by its instruction's number, and the number of its type (`bpf_func_info`).
    starts: Vec<[u32; 2]>,
}

fn load(hook: Hook, instructions: &[Instruction]) -> Result<OwnedFd, Refusal> {
    load_described(hook, instructions, None)
}

/// Loads a program of functions that have descriptions.
fn load_described(
    hook: Hook,
    instructions: &[Instruction],
    functions: Option<&Functions>,
) -> Result<OwnedFd, Refusal> {
    #[repr(C)]
    struct Request {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach: u32,
        types: RawFd,
        function_size: u32,
        functions: u64,
        function_count: u32,
        line_size: u32,
    }
    let mut log = vec![0_u8; 4096];
    let request = Request {
        kind: hook.program_type(),
        count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: 4096,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        interface: 0,
        attach: hook as u32,
        types: functions.map_or(0, |functions| functions.types.as_raw_fd()),
        function_size: if functions.is_some() { 8 } else { 0 },
        functions: functions.map_or(0, |functions| functions.starts.as_ptr() as u64),
        function_count: functions
            .map_or(0, |functions| u32::try_from(functions.starts.len()).unwrap_or(u32::MAX)),
        line_size: 0,
    };
    bpf(BPF_PROG_LOAD, &request).and_then(descriptor).map_err(|error| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        Refusal { error, log: String::from_utf8_lossy(&log[..end]).into_owned() }
    })
}

/// A refused program is a no, unless the caller's rights or something else kept the kernel from looking at it.
fn answer(loaded: Result<OwnedFd, Refusal>) -> Answer {
    match loaded {
        Ok(_) => Ok(true),
        Err(Refusal { error, log }) if log.is_empty() => taken(Err(error)),
        Err(_) => Ok(false),
    }
}

/// `EINVAL` and `E2BIG` stand for something the kernel does not know.
fn taken(made: io::Result<OwnedFd>) -> Answer {
    match made {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::E2BIG)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn missing_target(outcome: io::Result<i32>) -> Answer {
    match outcome {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(true),
        Err(error) => taken(Err(error)),
        Ok(made) => descriptor(made).map(|_| true),
    }
}
