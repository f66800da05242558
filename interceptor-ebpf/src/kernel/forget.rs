//! Keeping the verifier from following every way through a program to its end.
//!
//! The verifier takes up each way where it left off, with what it learnt on it: which constant a variable has there. Ways
//! that differ in such constants are checked to the end one by one, and their number grows with every choice: hundreds
//! of thousands of steps for a thousand instructions, against a limit of a million. What it forgets here is the same on
//! every way, so that all but the first end there.

use core::ptr;

use interceptor_ebpf::{abi::Workload, policy::Decision};

/// Hides values behind a number the verifier cannot know: one out of a map.
#[derive(Clone, Copy)]
pub(crate) struct Forget<'a>(pub(crate) &'a Workload);

impl Forget<'_> {
    /// The same word.
    #[inline(always)]
    pub(crate) fn word(self, value: u32) -> u32 {
        // SAFETY: the reference is valid, and no program or command changes an entry that is in a table.
        let number = || unsafe { ptr::read_volatile(&raw const self.0.proxy_user) };
        value ^ number() ^ number()
    }

    /// The same decision.
    #[inline(always)]
    pub(crate) fn decision(self, value: &Decision) -> Decision {
        const _: () = assert!(size_of::<Decision>() == size_of::<[u32; 2]>());
        // SAFETY: both are two words of 32 bits, and each word comes back as it was.
        unsafe {
            let [a, b] = ptr::from_ref(value).cast::<[u32; 2]>().read();
            ptr::from_ref(&[self.word(a), self.word(b)]).cast::<Decision>().read()
        }
    }
}
