//! What is stored, and the rules of writing it: identity, versions, generations, parts.
//!
//! Every write is one function call under one lock, so a test never sees half of one. Each change
//! is kept in a log, from which watches are fed.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::kind::{Kind, Scope};
use super::merge;
use super::quantities;
use super::refusal::Refusal;
use super::selector::Selector;
use super::validate;

/// Where an object is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    group: &'static str,
    plural: &'static str,
    namespace: String,
    pub name: String,
}

impl Key {
    pub(super) fn new(kind: &Kind, namespace: Option<&str>, name: &str) -> Self {
        let namespace = namespace.unwrap_or_default().to_owned();
        Self { group: kind.group, plural: kind.plural, namespace, name: name.to_owned() }
    }

    pub(super) fn is_in(&self, kind: &Kind, namespace: Option<&str>) -> bool {
        (self.group, self.plural) == (kind.group, kind.plural)
            && namespace.is_none_or(|namespace| self.namespace == namespace)
    }
}

/// Which part of an object a request writes. The rest of what it sends is ignored.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Part {
    /// All but the status, where the kind has one.
    Main,
    Status,
    /// Both: what no client may do, and seeding does.
    Whole,
}

/// One change, with both ends: what stops matching a selector is gone for the watcher.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub version: u64,
    pub key: Key,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// Everything that the server remembers.
#[derive(Debug, Default)]
pub(super) struct Store {
    version: u64,
    /// Changes up to this version are forgotten.
    oldest: u64,
    objects: BTreeMap<Key, Value>,
    log: Vec<Change>,
    /// What each manager applied last, for taking out what it applies no longer.
    applied: HashMap<(Key, String, Part), Value>,
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn read(&self, kind: &Kind, key: &Key) -> Result<Value, Refusal> {
        self.objects.get(key).cloned().ok_or_else(|| Refusal::not_found(kind, &key.name))
    }

    pub(super) fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &Selector,
    ) -> Vec<Value> {
        let mut found = Vec::new();
        for (key, object) in &self.objects {
            if key.is_in(kind, namespace) && selector.matches(object) {
                found.push(object.clone());
            }
        }
        found
    }

    /// The changes after `version`, or 410 where some of them are forgotten.
    pub(super) fn changes_after(&self, version: u64) -> Result<&[Change], Refusal> {
        if version < self.oldest {
            return Err(Refusal::expired(version, self.oldest));
        }
        let first = self.log.partition_point(|change| change.version <= version);
        Ok(&self.log[first..])
    }

    /// Forgets all changes so far, as etcd's compaction does.
    pub(super) fn compact(&mut self) {
        self.oldest = self.version;
        self.log.clear();
    }

    pub(super) fn create(
        &mut self,
        kind: &'static Kind,
        namespace: Option<&str>,
        mut object: Value,
        part: Part,
    ) -> Result<Value, Refusal> {
        let metadata = metadata(&mut object)?;
        if metadata.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
            let Some(stem) = metadata.get("generateName").and_then(Value::as_str) else {
                let wrong = "metadata.name: Required value: name or generateName is required";
                return Err(Refusal::invalid(kind, "", &[wrong.to_owned()]));
            };
            let name = format!("{stem}{}", &unique_id()?[..5]);
            metadata.insert("name".to_owned(), name.into());
        }
        let key = located(kind, namespace, &mut object)?;
        if self.objects.contains_key(&key) {
            return Err(Refusal::already_exists(kind, &key.name));
        }
        if kind.has_status && part == Part::Main {
            object.as_object_mut().map(|fields| fields.remove("status"));
        }
        object["metadata"]["uid"] = unique_id()?.into();
        // Whole seconds, as `metav1.Time` goes over the wire.
        let now = Timestamp::now();
        let now = now.checked_sub(SignedDuration::from_nanos(now.subsec_nanosecond().into()));
        let now = now.map_err(|error| Refusal::new(500, error.to_string()))?;
        object["metadata"]["creationTimestamp"] = now.to_string().into();
        if object.get("spec").is_some() {
            object["metadata"]["generation"] = 1.into();
        }
        let object = admit(kind, None, object)?;
        Ok(self.commit(key, None, object))
    }

    pub(super) fn update(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        mut object: Value,
        part: Part,
    ) -> Result<Value, Refusal> {
        let existing = self.read(kind, key)?;
        let sent = metadata(&mut object)?;
        for field in ["resourceVersion", "uid"] {
            let sent = sent.get(field).and_then(Value::as_str).unwrap_or_default();
            let stored = existing["metadata"][field].as_str().unwrap_or_default();
            if !sent.is_empty() && sent != stored {
                let why = match field {
                    "uid" => format!(
                        "Precondition failed: UID in precondition: {sent}, \
                         UID in object meta: {stored}"
                    ),
                    _ => "the object has been modified; please apply your changes to the latest \
                          version and try again"
                        .to_owned(),
                };
                return Err(Refusal::conflict(kind, &key.name, &why));
            }
        }
        keep_identity(&existing, &mut object);
        keep_other_part(kind, part, &existing, &mut object);
        let mut object = admit(kind, Some(&existing), object)?;
        // A write that changes nothing is not a write: no version, no event.
        if object == existing {
            return Ok(existing);
        }
        if object.get("spec") != existing.get("spec")
            && let Some(generation) = existing["metadata"]["generation"].as_i64()
        {
            object["metadata"]["generation"] = (generation + 1).into();
        }
        let is_finished = object["metadata"].get("deletionTimestamp").is_some()
            && object["metadata"].get("finalizers").is_none();
        if is_finished {
            return Ok(self.forget(key, existing));
        }
        Ok(self.commit(key.clone(), Some(existing), object))
    }

    pub(super) fn merge_patch(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        patch: &Value,
        part: Part,
    ) -> Result<Value, Refusal> {
        let mut object = self.read(kind, key)?;
        merge::merge_patch(&mut object, patch);
        self.update(kind, key, object, part)
    }

    /// Server-side apply. Creates the object where there is none, except through a status path.
    pub(super) fn apply(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        manager: &str,
        applied: &Value,
        part: Part,
    ) -> Result<(Value, bool), Refusal> {
        let owner = (key.clone(), manager.to_owned(), part);
        let result = match self.objects.get(key) {
            None if part == Part::Status => return Err(Refusal::not_found(kind, &key.name)),
            None => {
                let namespace = (!key.namespace.is_empty()).then_some(key.namespace.as_str());
                (self.create(kind, namespace, applied.clone(), part)?, true)
            }
            Some(existing) => {
                let mut object = existing.clone();
                merge::apply(&mut object, self.applied.get(&owner), applied);
                (self.update(kind, key, object, part)?, false)
            }
        };
        self.applied.insert(owner, applied.clone());
        Ok(result)
    }

    /// Removes an object; where finalizers hold it, marks it and leaves the rest to them.
    pub(super) fn delete(
        &mut self,
        kind: &Kind,
        key: &Key,
        preconditions: &Value,
    ) -> Result<Value, Refusal> {
        let existing = self.read(kind, key)?;
        for field in ["uid", "resourceVersion"] {
            if let Some(wanted) = preconditions.get(field).and_then(Value::as_str)
                && existing["metadata"][field] != wanted
            {
                let why = format!("Precondition failed: {field} in precondition: {wanted}");
                return Err(Refusal::conflict(kind, &key.name, &why));
            }
        }
        if existing["metadata"].get("finalizers").is_none() {
            return Ok(self.forget(key, existing));
        }
        let mut marked = existing.clone();
        if marked["metadata"].get("deletionTimestamp").is_some() {
            return Ok(existing);
        }
        marked["metadata"]["deletionTimestamp"] = Timestamp::now().to_string().into();
        Ok(self.commit(key.clone(), Some(existing), marked))
    }

    fn commit(&mut self, key: Key, before: Option<Value>, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(key.clone(), object.clone());
        let after = Some(object.clone());
        self.log.push(Change { version: self.version, key, before, after });
        object
    }

    fn forget(&mut self, key: &Key, existing: Value) -> Value {
        self.version += 1;
        self.objects.remove(key);
        self.applied.retain(|(owned, _, _), _| owned != key);
        let mut last = existing;
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        let before = Some(last.clone());
        self.log.push(Change { version: self.version, key: key.clone(), before, after: None });
        last
    }
}

/// The key of an object that is to be created; fills the namespace in from the request's path.
fn located(kind: &Kind, namespace: Option<&str>, object: &mut Value) -> Result<Key, Refusal> {
    let api_version = kind.api_version();
    for (field, wanted) in [("apiVersion", api_version.as_str()), ("kind", kind.name)] {
        match object.get(field).and_then(Value::as_str) {
            Some(found) if found == wanted => {}
            Some(found) => {
                let message = format!("{field} {found:?} of the object is not {wanted:?}");
                return Err(Refusal::bad_request(message));
            }
            // Typed clients may leave it out; the path says it already.
            None => object[field] = wanted.into(),
        }
    }
    let metadata = metadata(object)?;
    let named = metadata.get("namespace").and_then(Value::as_str).filter(|n| !n.is_empty());
    if named.is_some() && named != namespace {
        let message = "the namespace of the provided object does not match the request";
        return Err(Refusal::bad_request(message));
    }
    if let (Scope::Namespaced, Some(namespace)) = (kind.scope, namespace) {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
    Ok(Key::new(kind, namespace, name))
}

fn metadata(object: &mut Value) -> Result<&mut serde_json::Map<String, Value>, Refusal> {
    let fields =
        object.as_object_mut().ok_or_else(|| Refusal::bad_request("the body is not an object"))?;
    fields
        .entry("metadata")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| Refusal::bad_request("metadata is not an object"))
}

/// What no write can change.
fn keep_identity(existing: &Value, object: &mut Value) {
    for field in ["apiVersion", "kind"] {
        object[field] = existing[field].clone();
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "resourceVersion",
    ] {
        if let Some(value) = existing["metadata"].get(field) {
            object["metadata"][field] = value.clone();
        }
    }
}

fn keep_other_part(kind: &Kind, part: Part, existing: &Value, object: &mut Value) {
    let kept: &[&str] = match part {
        Part::Main if kind.has_status => &["status"],
        Part::Status => &["spec", "metadata"],
        Part::Main | Part::Whole => &[],
    };
    for field in kept {
        match (existing.get(*field), object.as_object_mut()) {
            (Some(value), _) => object[*field] = value.clone(),
            (None, Some(fields)) => drop(fields.remove(*field)),
            (None, None) => {}
        }
    }
}

/// Reads the object as its type and checks the rules of its kind.
fn admit(kind: &Kind, existing: Option<&Value>, object: Value) -> Result<Value, Refusal> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut object = (kind.decode)(object)
        .map_err(|error| Refusal::bad_request(format!("{} cannot be read: {error}", kind.name)))?;
    // Empty lists and maps are left out by the real server; that makes comparing simple.
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }
    let wrongs = validate::wrongs(kind, existing, &object);
    quantities::write(&mut object);
    if wrongs.is_empty() { Ok(object) } else { Err(Refusal::invalid(kind, &name, &wrongs)) }
}

fn unique_id() -> Result<String, Refusal> {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map(|uuid| uuid.trim().to_owned())
        .map_err(|error| Refusal::new(500, format!("make a UID: {error}")))
}
