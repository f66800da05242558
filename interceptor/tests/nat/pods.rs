//! A pod's annotations become the capture that Istio would make of them.

use interceptor::{
    capture::{Capture, CaptureArgs, Detected, Pod, PodError, PodReader},
    nat::{generate, restore},
};

use crate::golden::Golden;

#[test]
fn a_bare_pod_gets_what_the_goldens_say() {
    for (reader, golden) in [(PodReader::Injector, "injected-pod"), (PodReader::Cni, "cni-defaults")] {
        let golden = Golden::all().into_iter().find(|case| case.name == golden).unwrap();
        let rules = generate(&capture("metadata: {name: web}", reader).unwrap());
        assert_eq!(restore::text(&rules.v4), golden.v4, "{}", golden.name);
    }
}

#[test]
fn every_annotation_has_its_flag() {
    let pod = r#"
metadata:
  annotations:
    sidecar.istio.io/interceptionMode: TPROXY
    traffic.sidecar.istio.io/includeOutboundIPRanges: 10.0.0.0/8,172.16.0.0/12
    traffic.sidecar.istio.io/excludeOutboundIPRanges: 10.9.0.0/16
    traffic.sidecar.istio.io/includeInboundPorts: "*"
    traffic.sidecar.istio.io/excludeInboundPorts: "9000, 9001"
    traffic.sidecar.istio.io/includeOutboundPorts: "80"
    traffic.sidecar.istio.io/excludeOutboundPorts: "25"
    istio.io/reroute-virtual-interfaces: vm0
    traffic.sidecar.istio.io/kubevirtInterfaces: ignored0
    traffic.sidecar.istio.io/excludeInterfaces: net1
    status.sidecar.istio.io/port: "0"
spec:
  containers:
  - name: istio-proxy
    env:
    - {name: INVALID_DROP, value: "true"}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
"#;
    let line = capture(pod, PodReader::Injector).unwrap().command_line();
    assert_eq!(
        line.flags.join(" "),
        "-p 15001 -z 15006 -e 15008 -u 1337 -g 1337 -m TPROXY -t 1337 -r 133 -b * \
         -d 15090,15021,9000,9001 -i 10.0.0.0/8,172.16.0.0/12 -x 10.9.0.0/16 -q 80 -o 25 -k vm0 -c net1 \
         --drop-invalid --ipv6 off"
    );
}

#[test]
fn the_plugin_takes_ids_and_dns_from_the_proxy_and_adds_its_ports_once() {
    let pod = r#"
metadata: {annotations: {traffic.sidecar.istio.io/excludeInboundPorts: "15021,22"}}
spec:
  initContainers:
  - name: istio-proxy
    securityContext: {runAsUser: 1000650001, runAsGroup: 0}
    env: [{name: ISTIO_META_DNS_CAPTURE, value: "true"}]
"#;
    let line = capture(pod, PodReader::Cni).unwrap().command_line().flags.join(" ");
    assert!(line.contains(" -u 1000650001 -g 1337 "), "{line}");
    assert!(line.contains(" -d 15021,22,15020,15090 "), "{line}");
    assert!(line.contains(" -o 15020 --redirect-dns --capture-all-dns "), "{line}");
}

#[test]
fn what_istio_refuses_is_refused_by_name() {
    for (annotation, value) in [
        ("traffic.sidecar.istio.io/includeInboundPorts", "80-90"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "0bad"),
        ("sidecar.istio.io/interceptionMode", "tproxy"),
    ] {
        let pod = format!("metadata: {{annotations: {{{annotation}: '{value}'}}}}");
        let error = capture(&pod, PodReader::Cni).unwrap_err().to_string();
        assert!(error.starts_with(&format!("annotation {annotation}: `{value}` is not")), "{error}");
    }
    let none = "metadata: {annotations: {sidecar.istio.io/interceptionMode: NONE}}";
    assert!(matches!(capture(none, PodReader::Injector), Err(PodError::ModeNone)));
    assert!(matches!(capture(none, PodReader::Cni), Err(PodError::Annotation { .. })));
}

fn capture(pod: &str, reader: PodReader) -> Result<Capture, PodError> {
    let args: CaptureArgs = Pod::read(pod)?.settings(reader)?;
    let detected = Detected {
        environment: std::collections::BTreeMap::new(),
        addresses: vec!["10.1.0.5".parse().unwrap()],
        resolv_conf: Ok(String::new()),
        user_id: |_| None,
        group_id: |_| None,
    };
    Ok(args.capture(&detected).unwrap())
}
