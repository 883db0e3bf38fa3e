//! The schema of a `NodeConfig`.

use serde_json::{Map, Value, json};

use super::{constant, described, extend, integer, list, map, object, text};
use crate::claim::{layer, node_config};
use crate::model::IfName;

/// The schema of a `NodeConfig`: JSON Schema, draft 7.
pub fn node_config_schema() -> Value {
    let fields =
        [("apiVersion", constant(layer::API_VERSION)), ("kind", constant(node_config::KIND))];
    let profile = object("What replaces the same fields of the file.", &[], layer_fields());
    let profiles = map(
        "What holds on nodes whose label, called as the driver with /profile, names it.",
        node_config::MOST_PROFILES,
        &profile,
    );
    let mut schema = object(
        "What a node's driver offers, and whom it asks about devices.",
        &["apiVersion", "kind"],
        fields,
    );
    let mut more: Map<_, _> =
        layer_fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    more.insert("profiles".to_owned(), profiles);
    if let Some(properties) = schema.get_mut("properties") {
        extend(properties, Value::Object(more));
    }
    let head = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "NodeConfig of weir.dev/v1alpha1",
    });
    extend(&mut schema, head);
    schema
}

fn layer_fields() -> [(&'static str, Value); 3] {
    [("publish", publish()), ("sriov", sriov()), ("providers", providers())]
}

fn publish() -> Value {
    let patterns = |text| list(text, node_config::MOST_PATTERNS, &self::text());
    object(
        "What claims can ask for.",
        &[],
        [
            (
                "filter",
                json!({
                    "description": "CEL about `device`, as in a DeviceClass: what it is not true of is not offered.",
                    "type": "string", "minLength": 1, "maxLength": node_config::LONGEST_FILTER,
                }),
            ),
            (
                "include",
                patterns(
                    "Names of interfaces, with *, that are offered although they look like a container network's or are stacked on the way out.",
                ),
            ),
            (
                "exclude",
                patterns(
                    "Names of interfaces, with *, that are not offered; of devices without one, their RDMA devices, PCI addresses or published names.",
                ),
            ),
        ],
    )
}

fn sriov() -> Value {
    let name = json!({ "type": "string", "minLength": 1, "maxLength": IfName::MAX_LEN });
    let id = || json!({ "type": "string", "minLength": 4, "maxLength": 4 });
    let pf = object(
        "Which physical functions: by one of interface, pciAddress and vendor.",
        &[],
        [
            ("interface", described("The name of its interface.", name)),
            ("pciAddress", described("Its address, such as 0000:3b:00.0.", text())),
            ("vendor", described("Four hexadecimal digits, as in sysfs.", id())),
            ("device", described("The same, with vendor. Default: any.", id())),
        ],
    );
    let rule = object(
        "How many virtual functions a physical one shall have.",
        &["pf", "numVfs"],
        [("pf", pf), ("numVfs", integer(node_config::VFS))],
    );
    list("Virtual functions to make, once, at the start.", node_config::MOST_SRIOV_RULES, &rule)
}

fn providers() -> Value {
    let provider = object(
        "Somebody who knows more of the devices, by one of file and url.",
        &["name"],
        [
            ("name", described("What logs and errors call it: a DNS label.", text())),
            ("file", described("An absolute path, YAML or JSON.", text())),
            ("url", described("http, https, or unix with an absolute path.", text())),
            ("caFile", described("Whom to believe, with https: a file of certificates.", text())),
            (
                "refreshSeconds",
                described(
                    "How often it is asked. Default: 60.",
                    integer(node_config::REFRESH_SECONDS),
                ),
            ),
            (
                "timeoutSeconds",
                described(
                    "How long one answer may take, with url. Default: 5.",
                    integer(node_config::TIMEOUT_SECONDS),
                ),
            ),
        ],
    );
    list("Whom to ask about devices, in this order.", node_config::MOST_PROVIDERS, &provider)
}
