use std::fs;

use rstest::rstest;
use serde_json::{Value, json};

use super::Outcome::{NotValid, Skipped, Valid};
use super::*;

mod files;

const HEAD: &str = "apiVersion: weir.dev/v1alpha1\nkind: ";

/// What is said of files with these texts, the first called `0`, and of their place nothing.
fn said(texts: &[&str]) -> (Vec<Report>, String) {
    let directory = tempfile::tempdir().unwrap();
    let write = |(nth, text): (usize, &&str)| {
        let file = directory.path().join(nth.to_string());
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let files: Vec<_> = texts.iter().enumerate().map(write).collect();
    let reports = reports(&files, "weir.dev");
    let place = format!("{}/", directory.path().display());
    let text = text(&reports, "weir.dev").replace(&place, "");
    (reports, text)
}

/// A claim with one request, of class `nic`, that has this configuration.
fn claim(parameters: &Value) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": { "devices": {
            "requests": [{ "name": "r", "exactly": { "deviceClassName": "nic" } }],
            "config": [{ "requests": ["r"], "opaque": { "driver": "weir.dev", "parameters": parameters } }],
        }},
    })
}

fn class(parameters: &Value) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": "nic" },
        "spec": { "config": [{ "opaque": { "driver": "weir.dev", "parameters": parameters } }] },
    })
}

fn config(ebpf: &Value) -> Value {
    json!({ "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig", "ebpf": ebpf })
}

fn ingress(rules: &Value) -> Value {
    json!({ "filter": { "ingress": { "rules": rules } } })
}

#[test]
fn every_problem_of_every_document_has_its_place() {
    let claim = "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: nics}
spec:
  spec:
    devices:
      requests:
      - name: a
        firstAvailable:
        - {name: fast, deviceClassName: nic}
        - {name: slow, deviceClassName: nic}
      config:
      - opaque:
          driver: gpu.example.com
          parameters: {}
      - requests: [a/slow]
        opaque:
          driver: weir.dev
          parameters:
            apiVersion: weir.dev/v1alpha1
            kind: NetworkConfig
            interface:
              mtu: 40
            ebpf:
              filter:
                ingress:
                  rules:
                  - {name: a, action: deny}
                  - name: b
                    action: deny
                    protocol: udp
                    ports: [53,
                            70000]
";
    let policy = format!("{HEAD}NodePolicy\nfilter:\n  egress: {{stateful: true}}\n");
    let config = format!("{HEAD}NetworkConfig\nebpf: {{hook: xdp}}\n");
    let (reports, text) = said(&[claim, &policy, "a: [", &config]);
    let base = "spec.spec.devices.config[1].opaque.parameters";
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "0:1: Pod default/web: skipped, nothing in it is for weir.dev");
    assert_eq!(lines[1], format!("0:27: {base}.interface.mtu: 40 is below 68"));
    let port = "ebpf.filter.ingress.rules[1].ports[1]: 70000 is not a port (1 to 65535)";
    assert_eq!(lines[2], format!("0:37: {base}.{port}"));
    let stateful = "filter.egress.stateful: unknown field, known are defaultAction, rules";
    assert_eq!(lines[3], format!("1:4: {stateful}"));
    assert!(lines[4].starts_with("2:1: is no YAML: "), "{text}");
    assert_eq!(lines[5..], ["1 valid, 3 not valid, 1 skipped"]);

    let outcomes: Vec<_> = reports.iter().map(|report| report.outcome).collect();
    assert_eq!(outcomes, [Skipped, NotValid, NotValid, NotValid, Valid]);
    let json = serde_json::to_value(&reports[1]).unwrap();
    assert_eq!((&json["outcome"], &json["name"]), (&json!("notValid"), &json!("nics")));
    assert_eq!(json["problems"][0]["line"], 27);
}

/// The filters that nobody can mean, as prepare refuses them.
#[rstest]
#[case("rules: 4097 rules are more than 4096", json!(
    (0..4097).map(|n| json!({ "name": format!("r{n}"), "action": "deny" })).collect::<Vec<_>>()))]
#[case("rules[0].ports[0]: 90 is above 80",
    json!([{ "name": "r", "action": "deny", "protocol": "tcp", "ports": ["90-80"] }]))]
#[case("rules[0].cidrs[0]: \"10.0.0.0/33\"",
    json!([{ "name": "r", "action": "deny", "cidrs": ["10.0.0.0/33"] }]))]
#[case("rules[0].protocol: \"tpc\" is not one of tcp, udp, sctp, icmp, icmpv6",
    json!([{ "name": "r", "action": "deny", "protocol": "tpc" }]))]
#[case("rules[0].rateLimit.packetsPerSecond: 0 is below 1",
    json!([{ "name": "r", "action": "rateLimit", "rateLimit": { "packetsPerSecond": 0 } }]))]
fn a_bad_filter_is_told_wherever_it_stands(#[case] problem: &str, #[case] rules: Value) {
    let parameters = config(&ingress(&rules));
    let policy = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NodePolicy",
        "filter": { "ingress": { "rules": rules } },
    });
    for (document, place) in [
        (&parameters, "ebpf.filter"),
        (&policy, "filter"),
        (&claim(&parameters), "spec.devices.config[0].opaque.parameters.ebpf.filter"),
        (&class(&parameters), "spec.config[0].opaque.parameters.ebpf.filter"),
    ] {
        let (_, text) = said(&[&document.to_string()]);
        let line = format!("0:1: {place}.ingress.{problem}");
        assert!(text.lines().any(|it| it.starts_with(&line)), "{line} is not in: {text}");
    }
}

#[test]
fn a_claim_is_judged_with_the_class_that_it_names() {
    let flows = config(&json!({ "flows": { "entries": 1024 } }));
    let on = config(&json!({ "telemetry": "flows" }));
    // The class may switch them on, unless it is seen that it does not.
    let alone = said(&[&claim(&flows).to_string()]).1;
    assert_eq!(alone, "1 valid, 0 not valid, 0 skipped\n");
    let (_, text) = said(&[&claim(&flows).to_string(), &class(&config(&json!({}))).to_string()]);
    assert_eq!(
        text,
        "0:1: spec.devices.config[0].opaque.parameters.ebpf.flows: go with telemetry: flows only\n\
         1 valid, 1 not valid, 0 skipped\n"
    );
    let (_, text) = said(&[&claim(&flows).to_string(), &class(&on).to_string()]);
    assert_eq!(text, "2 valid, 0 not valid, 0 skipped\n");

    let none = config(&json!({ "hook": "none" }));
    let (_, text) = said(&[&claim(&none).to_string(), &class(&on).to_string()]);
    assert_eq!(
        text,
        "1:1: spec.config[0].opaque.parameters.ebpf.telemetry: flows need a program, but hook is \
         none (ebpf.hook in config[0] of the claim) (for claim default/web)\n1 valid, 1 not valid, 0 skipped\n"
    );
}

#[test]
fn what_the_api_server_would_refuse_is_told_too() {
    let rule = |n| json!({ "name": format!("r{n}"), "action": "deny" });
    let many = config(&ingress(&(0..400).map(rule).collect()));
    let bytes = many.to_string().len();
    let (_, text) = said(&[&claim(&many).to_string()]);
    let line = format!("0:1: spec.devices.config[0].opaque.parameters: has {bytes} bytes, ");
    assert!(text.starts_with(&line), "{text}");

    let mut astray = claim(&config(&json!({ "hook": "tc" })));
    astray["spec"]["devices"]["config"][0]["requests"] = json!(["s"]);
    let (_, text) = said(&[&astray.to_string()]);
    assert!(text.contains(".ebpf.hook: \"tc\" is not one of"), "{text}");
    assert!(text.contains("config[0].requests: name no request of this claim"), "{text}");
    astray["spec"]["devices"]["config"] = json!([{ "opaque": {} }]);
    let driver = "0:1: spec.devices.config[0].opaque.driver: is required\n";
    assert!(said(&[&astray.to_string()]).1.starts_with(driver));
    astray["spec"]["devices"]["config"] = json!({});
    assert!(said(&[&astray.to_string()]).1.contains("spec.devices.config: is not a list"));
}

#[test]
fn only_what_is_surely_for_others_is_skipped() {
    let others = "apiVersion: net.example.com/v1\nkind: NetworkConfig\n---\nkind: ConfigMap\n";
    assert!(said(&[others]).1.ends_with("0 valid, 0 not valid, 2 skipped\n"));
    let (_, text) = said(&["a: 1\n---\napiVersion: weir.dev/v1alpha1\nkind: NetworkConf\n"]);
    assert_eq!(
        text,
        "0:1: kind: is required\n\
         0:4: kind: \"NetworkConf\" is not NetworkConfig, NodeConfig or NodePolicy\n\
         0 valid, 2 not valid, 0 skipped\n"
    );
    let (_, text) = said(&[&json!({ "kind": "List", "items": [claim(&json!(1))] }).to_string()]);
    let problem = "items[0].spec.devices.config[0].opaque.parameters: is a number, not an object";
    assert!(text.contains(problem), "{text}");
}
