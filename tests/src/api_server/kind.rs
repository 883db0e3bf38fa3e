//! The kinds that this server knows, and what differs between them.

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::api::events::v1::Event as NewEvent;
use k8s_openapi::api::resource::v1::{
    DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scope {
    Cluster,
    Namespaced,
}

/// One kind of object.
#[derive(Debug)]
pub(super) struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub name: &'static str,
    pub plural: &'static str,
    pub scope: Scope,
    /// Whether `status` is written through a path of its own.
    pub has_status: bool,
    /// Reads an object as the real server does: wrong types are errors, unknown fields are dropped.
    pub decode: fn(Value) -> Result<Value, serde_json::Error>,
}

fn through<T: DeserializeOwned + Serialize>(value: Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(value)?)
}

const CORE: &str = "";
const RESOURCE: &str = "resource.k8s.io";

macro_rules! kind {
    ($group:expr, $kind:literal, $plural:literal, $scope:ident, $has_status:literal, $type:ty) => {
        Kind {
            group: $group,
            version: "v1",
            name: $kind,
            plural: $plural,
            scope: Scope::$scope,
            has_status: $has_status,
            decode: through::<$type>,
        }
    };
}

/// Everything that can be stored.
pub(super) static KINDS: [Kind; 9] = [
    kind!(CORE, "Namespace", "namespaces", Cluster, true, Namespace),
    kind!(CORE, "Node", "nodes", Cluster, true, Node),
    kind!(CORE, "Pod", "pods", Namespaced, true, Pod),
    kind!(CORE, "Event", "events", Namespaced, false, Event),
    kind!("events.k8s.io", "Event", "events", Namespaced, false, NewEvent),
    kind!(RESOURCE, "DeviceClass", "deviceclasses", Cluster, false, DeviceClass),
    kind!(RESOURCE, "ResourceClaim", "resourceclaims", Namespaced, true, ResourceClaim),
    kind!(
        RESOURCE,
        "ResourceClaimTemplate",
        "resourceclaimtemplates",
        Namespaced,
        false,
        ResourceClaimTemplate
    ),
    kind!(RESOURCE, "ResourceSlice", "resourceslices", Cluster, false, ResourceSlice),
];

impl Kind {
    pub(super) fn by_plural(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        KINDS.iter().find(|k| k.group == group && k.version == version && k.plural == plural)
    }

    /// The kind of an object as its `apiVersion` and `kind` name it.
    pub(super) fn of(object: &Value) -> Option<&'static Self> {
        let api_version = object.get("apiVersion")?.as_str()?;
        let kind = object.get("kind")?.as_str()?;
        KINDS.iter().find(|k| k.api_version() == api_version && k.name == kind)
    }

    /// `v1`, or `group/v1`.
    pub(super) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// As error texts name it: `resourceslices.resource.k8s.io`.
    pub(super) fn qualified(&self, name: &str) -> String {
        match self.group {
            "" => name.to_owned(),
            group => format!("{name}.{group}"),
        }
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.name) == (other.group, other.name)
    }
}

impl Eq for Kind {}
