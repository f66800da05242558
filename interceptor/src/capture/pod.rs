//! What Istio's injector or its CNI plugin would ask for on behalf of a pod: annotations, mesh defaults, environment.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{CaptureArgs, args::go_bool, lists};

/// A pod's manifest, as far as it says what to intercept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pod {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: String,
    env: Vec<Variable>,
    security_context: SecurityContext,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: Option<u32>,
    run_as_group: Option<u32>,
}

/// Who reads the pod: the two do not agree in everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Reader {
    /// The injector, which writes an init container (istio-init).
    Injector,
    /// The CNI plugin (istio-cni).
    Cni,
}

/// Why a pod gives no capture.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// It is not a manifest of a pod.
    #[error("not a pod's manifest: {0}")]
    NotAPod(String),
    /// An annotation has a value that Istio refuses.
    #[error("annotation {annotation}: `{value}` is not {expected}")]
    Annotation {
        /// The annotation.
        annotation: String,
        /// Its value.
        value: String,
        /// What is accepted there.
        expected: &'static str,
    },
    /// Nothing is to be intercepted, on purpose.
    #[error("the pod has interception mode NONE: nothing is intercepted")]
    ModeNone,
}

impl Pod {
    /// Reads a manifest in YAML or JSON.
    pub fn read(text: &str) -> Result<Self, PodError> {
        serde_saphyr::from_str(text).map_err(|error| PodError::NotAPod(error.to_string()))
    }

    /// The settings that `reader` would make for the pod, with the mesh's defaults.
    pub fn settings(&self, reader: Reader) -> Result<CaptureArgs, PodError> {
        let mut args = CaptureArgs {
            envoy_port: Some("15001".to_owned()),
            istio_service_cidr: Some(self.ranges(
                "traffic.sidecar.istio.io/includeOutboundIPRanges",
                "*",
                true,
            )?),
            istio_service_exclude_cidr: Some(self.ranges(
                "traffic.sidecar.istio.io/excludeOutboundIPRanges",
                "",
                false,
            )?),
            istio_inbound_ports: Some(self.ports(
                "traffic.sidecar.istio.io/includeInboundPorts",
                "*",
                true,
            )?),
            istio_outbound_ports: self.given_ports("traffic.sidecar.istio.io/includeOutboundPorts")?,
            istio_local_outbound_ports_exclude: self
                .given_ports("traffic.sidecar.istio.io/excludeOutboundPorts")?,
            kube_virt_interfaces: self.interfaces(&[
                "istio.io/reroute-virtual-interfaces",
                "traffic.sidecar.istio.io/kubevirtInterfaces",
            ])?,
            istio_exclude_interfaces: self.interfaces(&["traffic.sidecar.istio.io/excludeInterfaces"])?,
            istio_inbound_interception_mode: Some(self.mode(reader)?),
            ..CaptureArgs::default()
        };
        let excluded = "traffic.sidecar.istio.io/excludeInboundPorts";
        match reader {
            Reader::Injector => {
                args.proxy_uid = Some("1337".to_owned());
                let status = self.annotation("status.sidecar.istio.io/port").unwrap_or("15020");
                let status = if status == "0" { "" } else { status };
                let user = self.ports(excluded, "", false)?;
                let ports = ["15090", "15021", user.as_str(), status];
                args.istio_local_exclude_ports =
                    Some(ports.into_iter().filter(|ports| !ports.is_empty()).collect::<Vec<_>>().join(","));
                self.proxy_metadata(&mut args);
            }
            Reader::Cni => {
                let ids = self.proxy().map_or(SecurityContext::default(), |proxy| proxy.security_context);
                let id = |id: Option<u32>| Some(id.filter(|id| *id != 0).unwrap_or(1337).to_string());
                args.proxy_uid = id(ids.run_as_user);
                args.proxy_gid = id(ids.run_as_group);
                args.istio_local_exclude_ports = Some(with_own_ports(&self.ports(excluded, "15020", false)?));
                args.istio_local_outbound_ports_exclude.get_or_insert_with(|| "15020".to_owned());
                let dns = self.switch("ISTIO_META_DNS_CAPTURE");
                args.redirect_dns = Some(dns);
                // The pod's resolv.conf cannot be read from the node.
                args.capture_all_dns = Some(dns);
                args.dual_stack = Some(self.switch("ISTIO_DUAL_STACK"));
                args.drop_invalid = Some(self.switch("INVALID_DROP"));
            }
        }
        Ok(args)
    }

    /// What proxyMetadata puts into the environment of init container and proxy alike.
    fn proxy_metadata(&self, args: &mut CaptureArgs) {
        args.redirect_dns = Some(self.switch("ISTIO_META_DNS_CAPTURE"));
        args.dual_stack = Some(self.switch("ISTIO_DUAL_STACK"));
        args.drop_invalid = Some(self.switch("INVALID_DROP"));
        args.owner_groups = self.variable("ISTIO_OUTBOUND_OWNER_GROUPS");
        args.owner_groups_exclude = self.variable("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE");
        args.loopback_cidr = self.variable("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR");
    }

    fn mode(&self, reader: Reader) -> Result<String, PodError> {
        let annotation = "sidecar.istio.io/interceptionMode";
        match (self.annotation(annotation).unwrap_or("REDIRECT"), reader) {
            (mode @ ("REDIRECT" | "TPROXY"), _) => Ok(mode.to_owned()),
            ("NONE", Reader::Injector) => Err(PodError::ModeNone),
            (mode, _) => Err(refused(annotation, mode, "an interception mode; write REDIRECT or TPROXY")),
        }
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.get(name).map(String::as_str)
    }

    fn proxy(&self) -> Option<&Container> {
        let mut containers = self.spec.containers.iter().chain(&self.spec.init_containers);
        containers.find(|container| container.name == "istio-proxy")
    }

    fn variable(&self, name: &str) -> Option<String> {
        let variable = self.proxy()?.env.iter().find(|variable| variable.name == name)?;
        Some(variable.value.clone())
    }

    fn switch(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| go_bool(&value).unwrap_or(false))
    }

    /// A list of single ports; Istio takes no ranges in annotations.
    fn ports(&self, name: &str, default: &str, star: bool) -> Result<String, PodError> {
        let text = self.annotation(name).unwrap_or(default);
        if star && text == "*" {
            return Ok(text.to_owned());
        }
        let items: Vec<&str> = lists::items(text).map(str::trim).collect();
        match items.iter().find(|item| item.parse::<u16>().is_err()) {
            Some(_) => Err(refused(name, text, "a list of ports from 0 to 65535")),
            None => Ok(items.join(",")),
        }
    }

    fn given_ports(&self, name: &str) -> Result<Option<String>, PodError> {
        self.annotation(name).map(|_| self.ports(name, "", false)).transpose()
    }

    fn ranges(&self, name: &str, default: &str, star: bool) -> Result<String, PodError> {
        let text = self.annotation(name).unwrap_or(default);
        if !(star && text == "*") && lists::items(text).any(|item| item.parse::<ipnet::IpNet>().is_err()) {
            return Err(refused(name, text, "a list of address ranges such as 10.0.0.0/8"));
        }
        Ok(text.to_owned())
    }

    /// The first annotation that is there; names must be as Kubernetes has them, so without wildcards.
    fn interfaces(&self, names: &[&str]) -> Result<Option<String>, PodError> {
        let Some((name, text)) = names.iter().find_map(|name| Some((*name, self.annotation(name)?))) else {
            return Ok(None);
        };
        let legal = |item: &str| {
            item.len() <= 15
                && item.starts_with(|first: char| first.is_ascii_alphabetic())
                && item.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        };
        if lists::items(text).all(legal) {
            Ok(Some(text.to_owned()))
        } else {
            Err(refused(name, text, "a list of interface names"))
        }
    }
}

/// The plugin's own ports behind the user's, each once.
fn with_own_ports(ports: &str) -> String {
    let mut all: Vec<&str> = Vec::new();
    for port in lists::items(ports).chain(["15020", "15021", "15090"]) {
        if !all.contains(&port) {
            all.push(port);
        }
    }
    all.join(",")
}

fn refused(annotation: &str, value: &str, expected: &'static str) -> PodError {
    PodError::Annotation { annotation: annotation.to_owned(), value: value.to_owned(), expected }
}
