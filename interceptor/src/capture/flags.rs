//! The command line that makes a capture.

use std::fmt;

use super::{
    Capture, Dns, InboundMode, InboundPorts, OutboundCidrs, OwnerGroups, Quirks, SelfCalls,
    quirks::self_calls_name,
};

/// Environment and flags that make a capture, wherever they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Variables, for what has no flag.
    pub environment: Vec<(&'static str, String)>,
    /// Flags.
    pub flags: Vec<String>,
}

impl Capture {
    /// The command line that makes this capture; everything detected otherwise is said.
    #[must_use]
    pub fn command_line(&self) -> CommandLine {
        let mut line = CommandLine { environment: Vec::new(), flags: Vec::new() };
        line.flag("-p", &self.outbound_port);
        line.flag("-z", &self.inbound_port);
        line.flag("-e", &self.tunnel_port);
        line.flag("-u", &present(&self.proxy_uids));
        line.flag("-g", &present(&self.proxy_gids));
        match self.inbound_mode {
            InboundMode::Redirect => line.flag("-m", "REDIRECT"),
            InboundMode::Tproxy => {
                line.flag("-m", "TPROXY");
                line.flag("-t", &self.tproxy_mark);
                line.flag("-r", &self.tproxy_table);
            }
        }
        match &self.inbound_ports {
            InboundPorts::None => line.flag("-b", ""),
            InboundPorts::AllExcept(ports) => {
                line.flag("-b", "*");
                line.list("-d", ports);
            }
            InboundPorts::Only(ports) => line.flag("-b", &present(ports)),
        }
        match &self.outbound_cidrs {
            OutboundCidrs::None => line.flag("-i", ""),
            OutboundCidrs::All => line.flag("-i", "*"),
            OutboundCidrs::Only(cidrs) => line.flag("-i", &present(cidrs)),
        }
        line.list("-x", &self.excluded_cidrs);
        line.list("-q", &self.included_ports);
        line.list("-o", &self.excluded_ports);
        line.list("-k", &self.rerouted_interfaces);
        line.list("-c", &self.excluded_interfaces);
        match &self.dns {
            Dns::Off => {}
            Dns::All => line.flags.extend(["--redirect-dns", "--capture-all-dns"].map(str::to_owned)),
            Dns::Servers(servers) => {
                line.flags.push("--redirect-dns".to_owned());
                line.flag("--dns-servers", &present(servers));
            }
        }
        line.switch(self.drop_invalid, "--drop-invalid");
        line.flag("--ipv6", if self.ipv6 { "on" } else { "off" });
        self.quirk_flags(&mut line);
        match &self.owner_groups {
            OwnerGroups::AllExcept(groups) if groups.is_empty() => {}
            OwnerGroups::AllExcept(groups) => {
                line.environment.push(("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", joined(groups)));
            }
            OwnerGroups::Only(groups) => {
                line.environment.push(("ISTIO_OUTBOUND_OWNER_GROUPS", joined(groups)));
            }
        }
        let loopback = self.loopback.to_string();
        if loopback != "127.0.0.1/32" {
            line.environment.push(("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", loopback));
        }
        line
    }

    fn quirk_flags(&self, line: &mut CommandLine) {
        let Quirks {
            self_calls,
            inbound_tunnel_exempt,
            self_call_tunnel_exempt,
            passthrough_source_exempt,
            udp_dns_first,
        } = self.quirks;
        if self_calls != SelfCalls::ProxyToInbound {
            line.flag("--self-calls", &self_calls_name(self_calls));
        }
        line.switch(!inbound_tunnel_exempt, "--intercept-inbound-tunnel");
        line.switch(!self_call_tunnel_exempt, "--intercept-self-call-tunnel");
        line.switch(!passthrough_source_exempt, "--intercept-passthrough-source");
        line.switch(udp_dns_first, "--udp-dns-first");
    }
}

impl<S: AsRef<str>> From<&[S]> for CommandLine {
    fn from(flags: &[S]) -> Self {
        let flags = flags.iter().map(|flag| flag.as_ref().to_owned()).collect();
        Self { environment: Vec::new(), flags }
    }
}

impl<S: AsRef<str>, const N: usize> From<&[S; N]> for CommandLine {
    fn from(flags: &[S; N]) -> Self {
        Self::from(flags.as_slice())
    }
}

impl From<&CommandLine> for CommandLine {
    fn from(line: &CommandLine) -> Self {
        line.clone()
    }
}

impl CommandLine {
    fn flag(&mut self, name: &str, value: &(impl ToString + ?Sized)) {
        self.flags.extend([name.to_owned(), value.to_string()]);
    }

    fn list(&mut self, name: &str, items: &[impl ToString]) {
        if !items.is_empty() {
            self.flag(name, &joined(items));
        }
    }

    fn switch(&mut self, on: bool, name: &str) {
        if on {
            self.flags.push(name.to_owned());
        }
    }
}

/// As a shell takes it.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No value of a capture holds the NUL byte, the one thing that cannot be quoted.
        let quoted =
            |text: &str| shlex::try_quote(text).map_or_else(|_| text.to_owned(), |quoted| quoted.to_string());
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", quoted(value))?;
        }
        f.write_str("interceptor apply")?;
        for flag in &self.flags {
            write!(f, " {}", quoted(flag))?;
        }
        Ok(())
    }
}

/// A list that is given but may be empty: a lone comma is a list without items, where empty text is no list.
fn present(items: &[impl ToString]) -> String {
    if items.is_empty() { ",".to_owned() } else { joined(items) }
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
