//! Errors in the form the specification gives them.

use serde_json::{Value, json};

/// What went wrong, by the numbers of the specification; from 100 on they are the plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// The configuration's version is not spoken.
    Version = 1,
    /// The environment lacks something, or something in it is wrong.
    Environment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration is not what one looks like.
    Decode = 6,
    /// The configuration says something that cannot be.
    Configuration = 7,
    /// It may work later.
    TryAgain = 11,
    /// The plugin is not ready to add anything.
    NotAvailable = 50,
    /// The pod could not be enrolled or released.
    Failed = 100,
    /// The pod is not under interception as it was added.
    NotInForce = 101,
}

/// An error for the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    version: String,
    code: Code,
    message: String,
}

impl CniError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        let newest = super::VERSIONS[super::VERSIONS.len() - 1];
        Self { version: newest.to_owned(), code, message: message.into() }
    }

    /// The error as an answer of this version.
    pub(super) fn at(self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self }
    }

    /// What went wrong.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The answer for the runtime.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "cniVersion": self.version, "code": self.code as u32, "msg": self.message })
    }
}
