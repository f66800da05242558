//! The restore text of every golden case, byte for byte.

use interceptor::nat::{generate, restore};

use crate::golden::Golden;

#[test]
fn restore_text_is_istios() {
    for golden in Golden::all() {
        let rules = generate(&golden.capture().unwrap());
        assert_eq!(restore::text(&rules.v4), golden.v4, "{} in IPv4", golden.name);
        assert_eq!(restore::text(&rules.v6), golden.v6, "{} in IPv6", golden.name);
    }
}
