//! Everything that others see of a node's network, to be compared as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use driver::sys::ethtool::Ethtool;
use driver::sys::netlink::Netlink;
use serde_json::{Value, json};

use crate::config::stage::ip;

/// What a namespace has, by what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Snapshot(BTreeMap<String, Value>);

impl Snapshot {
    /// Of the calling thread's namespace.
    pub(crate) fn take() -> Self {
        let mut seen = BTreeMap::new();
        for link in list(&["link", "show"]) {
            let name = link["ifname"].as_str().unwrap().to_owned();
            seen.insert(format!("{name}, addresses"), addresses(&name));
            for family in ["ipv4", "ipv6"] {
                seen.insert(format!("{name}, {family} settings"), settings(family, &name));
            }
            seen.insert(format!("{name}, driver"), driver_of(&name));
            seen.insert(name, lasting(link));
        }
        for family in ["-4", "-6"] {
            let routes = list(&[family, "route", "show", "table", "all"]);
            seen.insert(format!("{family} routes"), sorted(routes.into_iter().map(route)));
            seen.insert(format!("{family} rules"), ip(&[family, "rule"]));
            let neighbors = list(&[family, "neigh", "show", "nud", "permanent"]);
            seen.insert(format!("{family} neighbours"), sorted(neighbors.into_iter()));
        }
        Self(seen)
    }

    /// What is otherwise now, each thing as it was and as it is.
    pub(crate) fn changes(&self) -> Vec<String> {
        let now = Self::take();
        let names = self.0.keys().chain(now.0.keys().filter(|name| !self.0.contains_key(*name)));
        let differing = names.filter(|name| self.0.get(*name) != now.0.get(*name));
        differing
            .map(|name| format!("{name}: {:?} is now {:?}", self.0.get(name), now.0.get(name)))
            .collect()
    }

    #[track_caller]
    pub(crate) fn is_as_now(&self) {
        let changes = self.changes();
        assert!(changes.is_empty(), "{}", changes.join("\n"));
    }
}

fn list(arguments: &[&str]) -> Vec<Value> {
    ip(arguments).as_array().unwrap().clone()
}

fn sorted(values: impl Iterator<Item = Value>) -> Value {
    let mut values: Vec<_> = values.collect();
    values.sort_by_key(ToString::to_string);
    Value::Array(values)
}

/// In their order, in which the first of a network is its primary one.
fn addresses(name: &str) -> Value {
    ip(&["addr", "show", "dev", name])[0]["addr_info"].take()
}

/// Whether there is a carrier shows a little later than the link is up.
fn route(mut route: Value) -> Value {
    if let Some(flags) = route["flags"].as_array_mut() {
        flags.retain(|flag| flag != "linkdown");
    }
    route
}

/// An interface without what changes by and by, and without its index, which it may lose.
fn lasting(mut link: Value) -> Value {
    // The permanent address of a virtual function is what its driver heard last from the physical one.
    let of_the_moment =
        ["operstate", "qdisc", "link_index", "link_netnsid", "link", "ifindex", "permaddr"];
    link.as_object_mut().unwrap().retain(|key, _| !of_the_moment.contains(&key.as_str()));
    let passing = ["LOWER_UP", "NO-CARRIER", "M-DOWN"];
    let is_lasting = |flag: &Value| !passing.contains(&flag.as_str().unwrap_or_default());
    link["flags"].as_array_mut().unwrap().retain(is_lasting);
    link
}

/// Every setting of a family for an interface that can be read.
fn settings(family: &str, name: &str) -> Value {
    let directory = Path::new("/proc/sys/net").join(family).join("conf").join(name);
    let mut settings = BTreeMap::new();
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        // `stable_secret` cannot be read before somebody has written it.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let setting = entry.file_name().into_string().unwrap();
        settings.insert(setting, text.trim_end().to_owned());
    }
    json!(settings)
}

fn driver_of(name: &str) -> Value {
    let name = driver::model::By::Name(name.parse().unwrap());
    let index = Netlink::open().unwrap().link(&name).unwrap().unwrap().index;
    json!(Ethtool::open().unwrap().state(index).unwrap())
}
