//! Map keys and values.
