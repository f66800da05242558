//! From settings as text to a validated capture.

use ipnet::Ipv4Net;

use super::{
    Capture, CaptureArgs, CaptureError, Detected, Dns, InboundMode, InboundPorts, Ipv6, OutboundCidrs,
    OwnerGroups, Quirks, environment, file, lists,
};

/// The most groups one owner rule may name.
const MOST_OWNER_GROUPS: usize = 64;

impl CaptureArgs {
    /// The capture that these flags, `detected`'s environment and the `--config` file make, in this order of strength.
    pub fn capture(&self, detected: &Detected) -> Result<Capture, CaptureError> {
        Ok(self.settle(detected)?.0)
    }

    /// What the operator should be told on stderr about a capture that could be built: settings without effect.
    pub fn warnings(&self, detected: &Detected) -> Result<Vec<String>, CaptureError> {
        Ok(self.settle(detected)?.1)
    }

    /// All that these flags, `detected`'s environment and the `--config` file give, in one, with what only this caller
    /// can see written out: users by their ids, and DNS servers.
    pub fn gathered(&self, detected: &Detected) -> Result<Self, CaptureError> {
        let (capture, _) = self.settle(detected)?;
        let joined = |ids: &[u32]| Some(ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        let servers = match &capture.dns {
            Dns::Servers(servers) => {
                Some(servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            }
            Dns::Off | Dns::All => None,
        };
        let (given, _) = self.given(detected)?;
        Ok(Self {
            proxy_uid: joined(&capture.proxy_uids),
            proxy_gid: joined(&capture.proxy_gids),
            dns_servers: servers.or(given.dns_servers.clone()),
            ..given
        })
    }

    fn given(&self, detected: &Detected) -> Result<(Self, Vec<String>), CaptureError> {
        let (from_environment, warnings) = environment::settings(&detected.environment);
        let mut given = self.clone().or(from_environment);
        if let Some(path) = &self.config {
            given = given.or(file::settings(path)?);
        }
        Ok((given, warnings))
    }

    fn settle(&self, detected: &Detected) -> Result<(Capture, Vec<String>), CaptureError> {
        let (given, mut warnings) = self.given(detected)?;

        let (users, groups) = given.proxy_ids(detected)?;
        let (tproxy_mark, tproxy_table) = given.tproxy(&mut warnings)?;
        let capture = Capture {
            outbound_port: lists::port("--envoy-port", given.envoy_port.as_deref().unwrap_or("15001"))?,
            inbound_port: lists::port(
                "--inbound-capture-port",
                given.inbound_capture_port.as_deref().unwrap_or("15006"),
            )?,
            tunnel_port: lists::port(
                "--inbound-tunnel-port",
                given.inbound_tunnel_port.as_deref().unwrap_or("15008"),
            )?,
            proxy_uids: users,
            proxy_gids: groups,
            inbound_mode: given.inbound_mode(),
            inbound_ports: given.inbound_ports(&mut warnings)?,
            outbound_cidrs: match text(given.istio_service_cidr.as_ref()) {
                "" => OutboundCidrs::None,
                "*" => OutboundCidrs::All,
                list => OutboundCidrs::Only(lists::cidrs("--istio-service-cidr", list)?),
            },
            excluded_cidrs: match text(given.istio_service_exclude_cidr.as_ref()) {
                "*" => return Err(CaptureError::ExcludesEverything),
                list => lists::cidrs("--istio-service-exclude-cidr", list)?,
            },
            included_ports: lists::ports(
                "--istio-outbound-ports",
                text(given.istio_outbound_ports.as_ref()),
            )?,
            excluded_ports: lists::ports(
                "--istio-local-outbound-ports-exclude",
                text(given.istio_local_outbound_ports_exclude.as_ref()),
            )?,
            rerouted_interfaces: lists::interfaces(
                "--kube-virt-interfaces",
                text(given.kube_virt_interfaces.as_ref()),
            )?,
            excluded_interfaces: lists::interfaces(
                "--istio-exclude-interfaces",
                text(given.istio_exclude_interfaces.as_ref()),
            )?,
            tproxy_mark,
            tproxy_table,
            dns: given.dns(detected, &mut warnings)?,
            drop_invalid: given.drop_invalid.unwrap_or(false),
            owner_groups: given.owner_groups(detected)?,
            loopback: given.loopback()?,
            ipv6: match given.ipv6.unwrap_or_default() {
                Ipv6::On => true,
                Ipv6::Off => false,
                Ipv6::Auto => {
                    let dual_stack = given.dual_stack.unwrap_or(false);
                    detected.ipv6(dual_stack).ok_or(CaptureError::NoAddress)?
                }
            },
            quirks: Quirks {
                self_calls: given.self_calls.unwrap_or_default(),
                inbound_tunnel_exempt: !given.intercept_inbound_tunnel.unwrap_or(false),
                self_call_tunnel_exempt: !given.intercept_self_call_tunnel.unwrap_or(false),
                passthrough_source_exempt: !given.intercept_passthrough_source.unwrap_or(false),
                udp_dns_first: given.udp_dns_first.unwrap_or(false),
            },
        };
        if capture.is_empty() {
            warnings.push(
                "nothing is intercepted: add -i '*' for outbound and -b '*' for inbound connections"
                    .to_owned(),
            );
        }
        Ok((capture, warnings))
    }

    fn proxy_ids(&self, detected: &Detected) -> Result<(Vec<u32>, Vec<u32>), CaptureError> {
        let users = match text(self.proxy_uid.as_ref()) {
            "" => {
                let user = detected.environment.get("ENVOY_USER").map_or("istio-proxy", String::as_str);
                (detected.user_id)(user).unwrap_or(1337).to_string()
            }
            list => list.to_owned(),
        };
        let groups = match text(self.proxy_gid.as_ref()) {
            "" => &users,
            list => list,
        };
        Ok((
            lists::ids("--proxy-uid", &users, detected.user_id)?,
            lists::ids("--proxy-gid", groups, detected.group_id)?,
        ))
    }

    fn inbound_mode(&self) -> InboundMode {
        match text(self.istio_inbound_interception_mode.as_ref()) {
            "TPROXY" => InboundMode::Tproxy,
            _ => InboundMode::Redirect,
        }
    }

    fn inbound_ports(&self, warnings: &mut Vec<String>) -> Result<InboundPorts, CaptureError> {
        let excluded = text(self.istio_local_exclude_ports.as_ref());
        let included = text(self.istio_inbound_ports.as_ref());
        if included == "*" {
            return Ok(InboundPorts::AllExcept(lists::ports("--istio-local-exclude-ports", excluded)?));
        }
        if !excluded.is_empty() {
            warnings.push("--istio-local-exclude-ports is ignored: it only counts with -b '*'".to_owned());
        }
        match included {
            "" => Ok(InboundPorts::None),
            list => Ok(InboundPorts::Only(lists::ports("--istio-inbound-ports", list)?)),
        }
    }

    /// The mark and the table. Without TPROXY nothing reads them, so that a bad one is no error, as in Istio.
    fn tproxy(&self, warnings: &mut Vec<String>) -> Result<(u32, u32), CaptureError> {
        let mut number = |option, value: Option<&String>, default: u32| {
            let Some(value) = value else { return Ok(default) };
            match value.parse() {
                Ok(number) => Ok(number),
                Err(_) if self.inbound_mode() == InboundMode::Redirect => {
                    warnings.push(format!("{option} is ignored: `{value}` is not a decimal number"));
                    Ok(default)
                }
                Err(_) => Err(CaptureError::Tproxy { option, value: value.clone() }),
            }
        };
        Ok((
            number("--istio-inbound-tproxy-mark", self.istio_inbound_tproxy_mark.as_ref(), 1337)?,
            number(
                "--istio-inbound-tproxy-route-table",
                self.istio_inbound_tproxy_route_table.as_ref(),
                133,
            )?,
        ))
    }

    fn dns(&self, detected: &Detected, warnings: &mut Vec<String>) -> Result<Dns, CaptureError> {
        let all = self.capture_all_dns.unwrap_or(false);
        if !self.redirect_dns.unwrap_or(false) {
            if all {
                warnings.push("--capture-all-dns is ignored: it only counts with --redirect-dns".to_owned());
            }
            return Ok(Dns::Off);
        }
        if all {
            return Ok(Dns::All);
        }
        let servers = match &self.dns_servers {
            Some(list) => lists::addresses("--dns-servers", list)?,
            None => detected.dns_servers().map_err(CaptureError::ResolvConf)?,
        };
        if servers.is_empty() {
            warnings.push("DNS is not intercepted: no DNS server is known".to_owned());
            return Ok(Dns::Off);
        }
        Ok(Dns::Servers(servers))
    }

    fn owner_groups(&self, detected: &Detected) -> Result<OwnerGroups, CaptureError> {
        let included = self.owner_groups.as_deref().unwrap_or("*");
        if included == "*" {
            let excluded = text(self.owner_groups_exclude.as_ref());
            let option = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE";
            return Ok(OwnerGroups::AllExcept(lists::ids(option, excluded, detected.group_id)?));
        }
        let groups = lists::ids("ISTIO_OUTBOUND_OWNER_GROUPS", included, detected.group_id)?;
        if groups.len() > MOST_OWNER_GROUPS {
            return Err(CaptureError::TooManyOwnerGroups(groups.len()));
        }
        Ok(OwnerGroups::Only(groups))
    }

    fn loopback(&self) -> Result<Ipv4Net, CaptureError> {
        let text = self.loopback_cidr.as_deref().unwrap_or("127.0.0.1/32");
        let cidr = text.parse::<Ipv4Net>().ok();
        cidr.filter(|cidr| cidr.addr().is_loopback() && cidr.prefix_len() >= 8)
            .ok_or_else(|| CaptureError::LoopbackCidr(text.to_owned()))
    }
}

fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}
