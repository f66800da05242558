//! What a runtime asks: environment and network configuration, checked and understood.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Environment, VERSIONS, annotations,
    error::{CniError, Code},
};
use crate::{
    agent::{WorkloadId, WorkloadSpec, default_run_folder},
    capture::CaptureArgs,
    datapath,
};

/// The capability by which containerd and CRI-O hand over a pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// A request, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The configuration's version of the specification.
    pub version: String,
    /// The state folder.
    pub state: PathBuf,
    /// The agent's run folder.
    pub run: PathBuf,
    /// What to do.
    pub action: Action,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Enrol the pod, then hand the previous result on.
    Add(WorkloadId, Box<WorkloadSpec>, Value),
    /// This pod is not to be intercepted: hand the previous result on.
    Pass(Value),
    /// Release the pod. Its namespace may be gone.
    Delete(WorkloadId, Option<PathBuf>),
    /// See whether the pod is under interception.
    Check(WorkloadId, PathBuf),
    /// This pod is not to be intercepted: there is nothing to check.
    Nothing,
    /// See whether pods can be added.
    Status,
    /// Release every pod but these.
    Collect(Vec<WorkloadId>),
    /// Tell the versions spoken.
    Version,
}

/// The part of a network configuration that is ours, and the parts that every plugin gets.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    cni_version: Option<String>,
    #[serde(default)]
    prev_result: Option<Value>,
    #[serde(default)]
    runtime_config: BTreeMap<String, Value>,
    #[serde(default)]
    state_dir: Option<PathBuf>,
    #[serde(default)]
    run_dir: Option<PathBuf>,
    #[serde(default)]
    workloads: Workloads,
    #[serde(default)]
    capture: CaptureArgs,
    #[serde(default = "kube_system")]
    exclude_namespaces: Vec<String>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Vec<Attachment>,
}

/// Which pods are intercepted.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Workloads {
    /// Those with an injected sidecar, as their annotations say.
    #[default]
    Injected,
    /// All.
    All,
}

#[derive(Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container: String,
}

impl Request {
    /// Understands a request, or says what is wrong with it.
    pub fn parse(environment: &Environment, configuration: &[u8]) -> Result<Self, CniError> {
        let command = required(environment, "CNI_COMMAND")?;
        let configuration = match (command, configuration.trim_ascii()) {
            ("VERSION", b"") => b"{}",
            (_, given) => given,
        };
        let configuration: Configuration = serde_json::from_slice(configuration).map_err(|error| {
            CniError::new(Code::Decode, format!("the network configuration on standard input: {error}"))
        })?;
        let newest = VERSIONS[VERSIONS.len() - 1];
        let version = configuration.cni_version.clone().unwrap_or_else(|| newest.to_owned());
        let spoken = VERSIONS.iter().position(|spoken| *spoken == version);
        let request = |action| {
            let state = configuration.state_dir.clone().unwrap_or_else(datapath::default_state_folder);
            let run = configuration.run_dir.clone().unwrap_or_else(|| default_run_folder(&state));
            Self { version: version.clone(), state, run, action }
        };
        let at_version = |error: CniError| error.at(&version);
        if command == "VERSION" {
            return Ok(request(Action::Version));
        }
        let Some(spoken) = spoken else {
            let message = format!("cniVersion {version} is not spoken: write one of {}", VERSIONS.join(", "));
            return Err(CniError::new(Code::Version, message));
        };
        let since = |oldest: &str| VERSIONS.iter().position(|known| *known == oldest) <= Some(spoken);
        let action = match command {
            "ADD" => add(environment, &configuration),
            "DEL" => id(environment).map(|id| {
                Action::Delete(
                    id,
                    environment.get("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from),
                )
            }),
            "CHECK" if since("0.4.0") => check(environment, &configuration),
            "STATUS" if since("1.1.0") => Ok(Action::Status),
            "GC" if since("1.1.0") => collect(&configuration),
            other => Err(CniError::new(
                Code::Environment,
                format!("CNI_COMMAND is `{other}`, which cniVersion {version} does not have"),
            )),
        };
        action.map(request).map_err(at_version)
    }
}

fn add(environment: &Environment, configuration: &Configuration) -> Result<Action, CniError> {
    let id = id(environment)?;
    required(environment, "CNI_IFNAME")?;
    let netns = PathBuf::from(required(environment, "CNI_NETNS")?);
    let result = previous(configuration)?;
    let pod = arguments(environment)?;
    let namespace = pod.get("K8S_POD_NAMESPACE");
    if namespace.is_some_and(|namespace| configuration.exclude_namespaces.contains(namespace)) {
        return Ok(Action::Pass(result));
    }
    let defaults = configuration.capture.clone();
    let capture = match (pod_annotations(configuration)?, configuration.workloads) {
        (None, Workloads::All) => defaults,
        (None, Workloads::Injected) => {
            return Err(CniError::new(
                Code::Configuration,
                format!(
                    "the runtime hands over no annotations, so it is not known which pods have a sidecar: add \
                     \"capabilities\": {{\"{ANNOTATIONS}\": true}} to this plugin, or \"workloads\": \"all\""
                ),
            ));
        }
        (Some(annotations), Workloads::Injected) if !annotations::is_injected(&annotations) => {
            return Ok(Action::Pass(result));
        }
        (Some(annotations), Workloads::All | Workloads::Injected) => {
            annotations::capture(&annotations, defaults)?
        }
    };
    let spec = WorkloadSpec { netns: Some(netns), capture, ..WorkloadSpec::default() };
    Ok(Action::Add(id, Box::new(spec), result))
}

fn check(environment: &Environment, configuration: &Configuration) -> Result<Action, CniError> {
    // Whether it should be intercepted is decided as at ADD.
    let Action::Add(id, spec, _) = add(environment, configuration)? else { return Ok(Action::Nothing) };
    Ok(Action::Check(id, spec.netns.unwrap_or_default()))
}

fn collect(configuration: &Configuration) -> Result<Action, CniError> {
    let valid = configuration.valid_attachments.iter().map(|attachment| of_container(&attachment.container));
    Ok(Action::Collect(valid.collect::<Result<_, _>>()?))
}

/// The workload's name: the container's, marked as ours.
fn id(environment: &Environment) -> Result<WorkloadId, CniError> {
    of_container(required(environment, "CNI_CONTAINERID")?)
}

fn of_container(container: &str) -> Result<WorkloadId, CniError> {
    format!("cni-{container}")
        .parse()
        .map_err(|error| CniError::new(Code::Environment, format!("the container id: {error}")))
}

fn required<'e>(environment: &'e Environment, name: &str) -> Result<&'e str, CniError> {
    let value = environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
    value.ok_or_else(|| CniError::new(Code::Environment, format!("{name} is not set")))
}

fn previous(configuration: &Configuration) -> Result<Value, CniError> {
    let result = configuration.prev_result.clone().filter(Value::is_object);
    result.ok_or_else(|| {
        CniError::new(
            Code::Configuration,
            "there is no prevResult: chain this plugin after the one that makes the pod's interface",
        )
    })
}

/// `CNI_ARGS`: `NAME=VALUE`, separated by semicolons.
fn arguments(environment: &Environment) -> Result<BTreeMap<String, String>, CniError> {
    let given = environment.get("CNI_ARGS").map_or("", String::as_str);
    given
        .split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(CniError::new(
                Code::Environment,
                format!("CNI_ARGS has `{pair}`, which is not NAME=VALUE"),
            )),
        })
        .collect()
}

/// The pod's annotations; none if the runtime hands over none, which is not the same as a pod without any.
fn pod_annotations(configuration: &Configuration) -> Result<Option<BTreeMap<String, String>>, CniError> {
    match configuration.runtime_config.get(ANNOTATIONS) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(BTreeMap::new())),
        Some(given) => serde_json::from_value(given.clone())
            .map(Some)
            .map_err(|error| CniError::new(Code::Decode, format!("runtimeConfig, {ANNOTATIONS}: {error}"))),
    }
}

fn kube_system() -> Vec<String> {
    vec!["kube-system".to_owned()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let usual = [("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/c1"), ("CNI_IFNAME", "eth0")];
        usual.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn ask(command: &str, pairs: &[(&str, &str)], configuration: &Value) -> Result<Action, Code> {
        let mut environment = environment(pairs);
        environment.insert("CNI_COMMAND".to_owned(), command.to_owned());
        Request::parse(&environment, configuration.to_string().as_bytes())
            .map(|request| request.action)
            .map_err(|error| error.code())
    }

    fn with_annotations(annotations: &Value) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "n", "type": "interceptor-cni", "prevResult": {"ips": []},
            "runtimeConfig": {ANNOTATIONS: annotations},
        })
    }

    #[test]
    fn a_pod_with_a_sidecar_is_enrolled_and_one_without_is_not() {
        let injected = with_annotations(&json!({"sidecar.istio.io/status": "{}"}));
        assert!(matches!(ask("ADD", &[], &injected), Ok(Action::Add(..))));
        for plain in [
            Value::Null,
            json!({}),
            json!({"sidecar.istio.io/status": "{}", "sidecar.istio.io/inject": "false"}),
        ] {
            assert_eq!(ask("ADD", &[], &with_annotations(&plain)), Ok(Action::Pass(json!({"ips": []}))));
        }
        let system = [("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system")];
        assert!(matches!(ask("ADD", &system, &injected), Ok(Action::Pass(_))));
    }

    #[test]
    fn a_runtime_that_hands_over_no_annotations_is_no_reason_to_let_pods_pass() {
        let configuration = json!({"cniVersion": "1.0.0", "prevResult": {}});
        assert_eq!(ask("ADD", &[], &configuration), Err(Code::Configuration));
        let all = json!({"cniVersion": "1.0.0", "prevResult": {}, "workloads": "all"});
        assert!(matches!(ask("ADD", &[], &all), Ok(Action::Add(..))));
    }

    #[test]
    fn what_is_missing_or_wrong_has_the_specifications_number() {
        let alone = json!({"cniVersion": "1.0.0", "workloads": "all"});
        assert_eq!(ask("ADD", &[], &alone), Err(Code::Configuration));
        assert_eq!(ask("ADD", &[("CNI_NETNS", "")], &with_annotations(&json!({}))), Err(Code::Environment));
        assert_eq!(
            ask("ADD", &[("CNI_CONTAINERID", "../x")], &with_annotations(&json!({}))),
            Err(Code::Environment)
        );
        assert_eq!(ask("ADD", &[], &json!({"cniVersion": "9.0.0"})), Err(Code::Version));
        assert_eq!(ask("ADD", &[], &json!([])), Err(Code::Decode));
        assert_eq!(ask("JUMP", &[], &json!({"cniVersion": "1.1.0"})), Err(Code::Environment));
        assert_eq!(ask("STATUS", &[], &json!({"cniVersion": "1.0.0"})), Err(Code::Environment));
        assert_eq!(ask("STATUS", &[], &json!({"cniVersion": "1.1.0"})), Ok(Action::Status));
    }

    #[test]
    fn deleting_needs_no_namespace() {
        let configuration = json!({"cniVersion": "1.0.0"});
        let deleted = ask("DEL", &[("CNI_NETNS", "")], &configuration);
        assert_eq!(deleted, Ok(Action::Delete("cni-c1".parse().unwrap(), None)));
    }

    proptest! {
        #[test]
        fn no_input_makes_the_plugin_panic(
            command in "ADD|DEL|CHECK|STATUS|GC|VERSION|.{0,8}",
            arguments in ".{0,40}",
            configuration in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let environment = environment(&[("CNI_COMMAND", &command), ("CNI_ARGS", &arguments)]);
            let _any = Request::parse(&environment, &configuration);
        }

        #[test]
        fn no_json_makes_the_plugin_panic(
            key in "cniVersion|prevResult|runtimeConfig|capture|workloads|excludeNamespaces|cni.dev/valid-attachments",
            value in "null|true|1|\"x\"|\\[\\]|\\{\\}|\\[\\{\\}\\]|\\{\"io.kubernetes.cri.pod-annotations\": \\[\\]\\}",
        ) {
            let environment = environment(&[("CNI_COMMAND", "ADD")]);
            let configuration = format!("{{\"cniVersion\": \"1.1.0\", \"{key}\": {value}}}");
            let _any = Request::parse(&environment, configuration.as_bytes());
        }
    }
}
