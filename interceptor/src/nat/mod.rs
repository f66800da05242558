//! Nat rules equivalent to a capture.
