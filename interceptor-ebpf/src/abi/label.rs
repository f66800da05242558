//! What people call a workload.

use super::assert_size;

/// Where a workload's namespace was found when it was enrolled.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Inode of the namespace, as `/proc/<pid>/ns/net` shows it. Reused after the namespace is gone: never a key.
    pub inode: u64,
    /// Path given at enrolment, padded with zeros; a longer one keeps its end.
    pub path: [u8; 248],
}

assert_size!(Label, 256);
