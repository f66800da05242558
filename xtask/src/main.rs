//! Commands of this repository: `cargo xtask setup`, `test`, `demo`.

fn main() {}
