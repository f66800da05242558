//! The faults: a piece of source that occurs once, what stands in its place, and the scenarios that must differ then.

use anyhow::{Result, ensure};

/// A fault to plant.
pub(super) struct Mutant {
    /// What is wrong with it in place.
    pub(super) name: &'static str,
    /// Its file, below `interceptor-ebpf/src`.
    pub(super) file: &'static str,
    /// The sound source.
    pub(super) sound: &'static str,
    /// The faulty one.
    pub(super) faulty: &'static str,
    /// Flags of `interceptor parity` that choose scenarios.
    pub(super) scenarios: &'static [&'static str],
}

impl Mutant {
    /// A file's text with the fault in it.
    pub(super) fn planted(&self, text: &str) -> Result<String> {
        let places = text.matches(self.sound).count();
        ensure!(places == 1, "{} has {places} places like {:?} instead of one", self.file, self.sound);
        Ok(text.replacen(self.sound, self.faulty, 1))
    }
}

const INJECTED: &[&str] = &["--set", "injected"];
const FAMILIES: &[&str] = &["--set", "families"];
const CAPTURES: &[&str] = &["--set", "captures"];
const BOUNDARIES: &[&str] = &["--set", "boundaries"];
const DNS: &[&str] = &["--set", "dns"];
const TPROXY: &[&str] = &["--set", "tproxy"];

const fn mutant(
    name: &'static str,
    file: &'static str,
    [sound, faulty]: [&'static str; 2],
    scenarios: &'static [&'static str],
) -> Mutant {
    Mutant { name, file, sound, faulty, scenarios }
}

/// Every fault, by the file it is in.
pub(super) const MUTANTS: [Mutant; 24] = [
    mutant(
        "the tunnel port is not exempt",
        "policy/incoming.rs",
        ["port == workload.tunnel_port &&", "port == 0 &&"],
        INJECTED,
    ),
    mutant(
        "excluded inbound ports are redirected",
        "policy/incoming.rs",
        ["if marks.has(Marks::EXCLUDED) {", "if marks.has(Marks::EXCLUDED) && port == 0 {"],
        INJECTED,
    ),
    mutant(
        "included inbound ports are not redirected",
        "policy/incoming.rs",
        ["|| marks.has(Marks::INCLUDED) {", "|| marks.has(Marks::INCLUDED) && port == 0 {"],
        CAPTURES,
    ),
    mutant(
        "IPv6 is intercepted although it is off",
        "policy/incoming.rs",
        ["if !facts.is_v4 && !switches.any(Switches::IPV6) {", "if facts.port == 0 {"],
        FAMILIES,
    ),
    mutant(
        "excluded outbound ports are redirected",
        "policy/outgoing.rs",
        ["if port.has(Marks::EXCLUDED) {", "if port.has(Marks::EXCLUDED) && facts.port == 0 {"],
        CAPTURES,
    ),
    mutant(
        "the proxy's calls to the application are redirected again",
        "policy/outgoing.rs",
        [
            "if exempts_source && marks.has(Marks::LOCAL) && facts.source.is_passthrough() {",
            "if exempts_source && facts.port == 0 && facts.source.is_passthrough() {",
        ],
        INJECTED,
    ),
    mutant(
        "loopback is redirected",
        "policy/outgoing.rs",
        ["if marks.has(Marks::LOOPBACK) {\n        return pass", "if facts.port == 0 {\n        return pass"],
        CAPTURES,
    ),
    mutant(
        "excluded addresses are redirected",
        "policy/outgoing.rs",
        ["if marks.has(Marks::EXCLUDED) {\n        return pass", "if facts.port == 0 {\n        return pass"],
        BOUNDARIES,
    ),
    mutant(
        "included outbound ports are not redirected",
        "policy/outgoing.rs",
        ["if tcp && port.has(Marks::INCLUDED) {", "if tcp && port.has(Marks::INCLUDED) && facts.port == 0 {"],
        CAPTURES,
    ),
    mutant(
        "the proxy's self calls pass",
        "policy/outgoing.rs",
        ["return proxy_call(to_itself && (!dns || facts.port != DNS_PORT));", "return proxy_call(false);"],
        INJECTED,
    ),
    mutant(
        "an application's local calls are redirected",
        "policy/outgoing.rs",
        [
            "if !first && others_stop {\n            return pass(Reason::LocalCall);\n        }\n        if first || \
             switches.any(Switches::MORE_USERS)",
            "if first || switches.any(Switches::MORE_USERS)",
        ],
        CAPTURES,
    ),
    mutant(
        "the proxy is not known by its group",
        "policy/outgoing.rs",
        [
            "if first || switches.any(Switches::MORE_GROUPS) && tables.group(facts.group).has(Marks::PROXY) {",
            "if facts.port == 0 {",
        ],
        CAPTURES,
    ),
    mutant(
        "owner groups to exclude are redirected",
        "policy/outgoing.rs",
        ["if switches.any(Switches::OWNER_GROUPS_EXCLUDED) &&", "if facts.port == 0 &&"],
        CAPTURES,
    ),
    mutant(
        "owner groups to include are not the only ones",
        "policy/outgoing.rs",
        ["if switches.any(Switches::OWNER_GROUPS_ONLY) &&", "if facts.port == 0 &&"],
        CAPTURES,
    ),
    mutant(
        "every DNS server is captured, not the listed ones",
        "policy/outgoing.rs",
        ["switches.any(Switches::DNS) && marks.has(Marks::DNS_SERVER));", "switches.any(Switches::DNS));"],
        DNS,
    ),
    mutant(
        "DNS over UDP is not captured",
        "policy/outgoing.rs",
        ["    if captures_dns {\n", "    if captures_dns && tcp {\n"],
        DNS,
    ),
    mutant(
        "the proxy's self calls are not marked in TPROXY mode",
        "policy/outgoing.rs",
        [
            "if tables.settled_flag(is_self_call) {",
            "if tables.settled_flag(is_self_call) && facts.port == 0 {",
        ],
        TPROXY,
    ),
    mutant(
        "the source is not bound",
        "hooks/connect.rs",
        ["let binds = tables.settled_flag(rewrites && call.bound.is_free());", "let binds = false;"],
        INJECTED,
    ),
    mutant(
        "an earlier source port is lost",
        "hooks/connect.rs",
        [
            "let target = Target(tables.forget().endpoint(&target.0));",
            "let target = Target(interceptor_ebpf::abi::Endpoint::new(tables.forget().endpoint(&target.0).address.loopback_of_family(), target.0.port));",
        ],
        INJECTED,
    ),
    mutant(
        "IPv4-mapped destinations are not IPv4",
        "kernel/call.rs",
        [
            "is_v4: tables.forget().flag(original.0.address.is_v4()),",
            "is_v4: tables.forget().flag(socket.is_v4()),",
        ],
        FAMILIES,
    ),
    mutant(
        "the client is told the target as its peer",
        "hooks/names.rs",
        [
            "if record.role == Role::REDIRECTED {",
            "if record.role == Role::REDIRECTED && record.listener_port == 0 {",
        ],
        FAMILIES,
    ),
    mutant(
        "the proxy is told the target as its own address",
        "hooks/names.rs",
        [
            "if record.original.is_known() {\n",
            "if record.original.is_known() && record.listener_port == 0 {\n",
        ],
        INJECTED,
    ),
    mutant(
        "the original destination has another port",
        "hooks/original_destination.rs",
        [
            "port: original.port.to_be(),\n        address: original.address.v4_word(),",
            "port: original.port.to_le(),\n        address: original.address.v4_word(),",
        ],
        INJECTED,
    ),
    mutant(
        "arriving connections are refused instead of redirected",
        "hooks/steer.rs",
        [
            "assign(&context, workload, listener) == SK_DROP);",
            "assign(&context, workload, listener) == SK_PASS);",
        ],
        INJECTED,
    ),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::MUTANTS;
    use crate::workspace;

    #[test]
    fn every_fault_has_its_place_in_the_sources() {
        for mutant in &MUTANTS {
            let path = workspace::root().join("interceptor-ebpf/src").join(mutant.file);
            let text = fs::read_to_string(&path).expect("the file is there");
            let planted = mutant.planted(&text).unwrap_or_else(|error| panic!("{}: {error}", mutant.name));
            assert_ne!(planted, text, "{}", mutant.name);
        }
    }

    #[test]
    fn no_two_faults_have_one_name() {
        let names: BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), MUTANTS.len());
    }
}
