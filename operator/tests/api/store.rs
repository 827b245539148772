//! What the API server keeps: objects as JSON, by resource, namespace and name, and what happened to
//! them of late.
//!
//! As the real one has it: a version that counts up with every change, a generation that counts up
//! with every change of `spec`, `status` as a part of its own, conflicts by version and uid,
//! finalizers that hold up a deletion. Not as the real one has it: no schemas, and an apply replaces
//! the whole of `spec` or `status`, which is what it comes to where one writer owns all of it.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The resources that the operator asks for.
const RESOURCES: &[(&str, &str, &str)] = &[
    ("configmaps", "v1", "ConfigMap"),
    ("controllerrevisions", "apps/v1", "ControllerRevision"),
    ("daemonsets", "apps/v1", "DaemonSet"),
    ("events", "events.k8s.io/v1", "Event"),
    ("fleets", "edict.dev/v1alpha1", "Fleet"),
    ("leases", "coordination.k8s.io/v1", "Lease"),
    ("nodeconfigs", "edict.dev/v1alpha1", "NodeConfig"),
    ("nodes", "v1", "Node"),
    ("nodestates", "edict.dev/v1alpha1", "NodeState"),
    ("pods", "v1", "Pod"),
    ("secrets", "v1", "Secret"),
    ("serviceaccounts", "v1", "ServiceAccount"),
    ("services", "v1", "Service"),
];
/// So much of what happened is remembered.
const LOG_MAX: usize = 1000;

/// The version and kind of a resource.
pub fn kind(resource: &str) -> (&'static str, &'static str) {
    let known = RESOURCES.iter().find(|(name, ..)| *name == resource);
    known.map_or(("", ""), |(_, version, kind)| (*version, *kind))
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

/// What a list or a watch is about.
#[derive(Clone, Debug)]
pub struct Scope {
    pub resource: String,
    pub namespace: String,
    /// A label with its value, where only objects with that are meant.
    pub label: Option<(String, String)>,
}

impl Scope {
    fn has(&self, key: &Key, object: &Value) -> bool {
        let labelled = self.label.as_ref().is_none_or(|(name, value)| {
            object["metadata"]["labels"][name].as_str() == Some(value.as_str())
        });
        key.resource == self.resource
            && (self.namespace.is_empty() || key.namespace == self.namespace)
            && labelled
    }
}

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub struct Happened {
    pub version: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub what: &'static str,
    key: Key,
    pub object: Value,
}

/// Why something is not done: status, reason and message.
pub type Refused = (u16, &'static str, String);

/// How an object is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// JSON merge patch, RFC 7386; a strategic one comes to the same for what is asked here.
    Merge,
    /// Server-side apply.
    Apply,
    /// The whole object.
    Replace,
}

#[derive(Default)]
pub struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    log: VecDeque<Happened>,
    /// Up to which version it is forgotten what happened, by resource.
    forgotten: BTreeMap<String, u64>,
}

impl Store {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub fn list(&self, scope: &Scope) -> Vec<Value> {
        let all = self.objects.iter();
        let named = all.filter(|(key, object)| scope.has(key, object));
        named.map(|(_, object)| object.clone()).collect()
    }

    /// The first thing that happened after `version`; `Err` where that is forgotten.
    pub fn after(&self, scope: &Scope, version: u64) -> Result<Option<&Happened>, ()> {
        let forgotten = self.forgotten.get(&scope.resource).copied().unwrap_or(0);
        if version < forgotten {
            return Err(());
        }
        let mut later = self.log.iter().filter(|one| one.version > version);
        Ok(later.find(|one| scope.has(&one.key, &one.object)))
    }

    /// Every object that there was of `resource`, as it was at each time.
    pub fn history(&self, resource: &str) -> Vec<Value> {
        let log = self.log.iter().filter(|one| one.key.resource == resource);
        log.map(|one| one.object.clone()).collect()
    }

    /// Forgets what happened to `resource`, as a compaction does.
    pub fn forget(&mut self, resource: &str) {
        self.version += 1;
        self.forgotten.insert(resource.to_owned(), self.version);
    }

    pub fn create(&mut self, key: &Key, mut object: Value) -> Result<Value, Refused> {
        if self.objects.contains_key(key) {
            let message = format!("{} {:?} already exists", key.resource, key.name);
            return Err((409, "AlreadyExists", message));
        }
        let (version, kind) = kind(&key.resource);
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        let uid = format!("{:08x}-0000-4000-8000-000000000000", self.version + 1);
        let metadata = &mut object["metadata"];
        metadata["name"] = key.name.clone().into();
        metadata["uid"] = uid.into();
        metadata["generation"] = 1.into();
        metadata["creationTimestamp"] = now().into();
        if !key.namespace.is_empty() {
            metadata["namespace"] = key.namespace.clone().into();
        }
        Ok(self.put(key, object, "ADDED"))
    }

    /// Changes an object, or its status alone.
    pub fn change(
        &mut self,
        key: &Key,
        change: Change,
        status: bool,
        given: &Value,
    ) -> Result<Value, Refused> {
        let Some(before) = self.objects.get(key).cloned() else {
            let asks_for = given["metadata"]["uid"].as_str();
            return match (change, status, asks_for) {
                (Change::Apply, false, None) => self.create(key, given.clone()),
                (Change::Apply, false, Some(uid)) => Err(conflict(key, &format!("no uid {uid}"))),
                _ => Err(missing(key)),
            };
        };
        for field in ["uid", "resourceVersion"] {
            let asked = given["metadata"][field].as_str();
            if let Some(asked) = asked.filter(|asked| before["metadata"][field] != **asked) {
                return Err(conflict(key, &format!("{field} is not {asked}")));
            }
        }
        let mut after = before.clone();
        match change {
            Change::Merge => merge(&mut after, given),
            Change::Replace => after = given.clone(),
            Change::Apply => {
                let parts = given.as_object().into_iter().flatten();
                for (name, part) in parts {
                    if name == "metadata" {
                        merge(&mut after[name], part);
                    } else {
                        after[name] = part.clone();
                    }
                }
            }
        }
        if status {
            let said = after["status"].take();
            after = before.clone();
            after["status"] = said;
        } else if before.get("status").is_some() {
            after["status"] = before["status"].clone();
        }
        Ok(self.keep(key, &before, after))
    }

    /// Changes an object as somebody else may, status and all.
    pub fn edit(&mut self, key: &Key, edit: impl FnOnce(&mut Value)) {
        let before = self.objects[key].clone();
        let mut after = before.clone();
        edit(&mut after);
        self.keep(key, &before, after);
    }

    pub fn delete(&mut self, key: &Key, uid: Option<&str>) -> Result<Value, Refused> {
        let before = self.objects.get(key).cloned().ok_or_else(|| missing(key))?;
        if let Some(uid) = uid.filter(|uid| before["metadata"]["uid"] != **uid) {
            return Err(conflict(key, &format!("uid is not {uid}")));
        }
        let mut after = before.clone();
        if before["metadata"]["deletionTimestamp"].is_null() {
            after["metadata"]["deletionTimestamp"] = now().into();
            after["metadata"]["generation"] = (generation(&before) + 1).into();
        }
        Ok(self.keep(key, &before, after))
    }

    fn keep(&mut self, key: &Key, before: &Value, mut after: Value) -> Value {
        // Nobody writes these.
        for field in ["name", "namespace", "uid", "creationTimestamp"] {
            after["metadata"][field] = before["metadata"][field].clone();
        }
        after["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
        let leaving = after["metadata"]["deletionTimestamp"].is_string();
        prune(&mut after);
        if after == *before && !leaving {
            return after;
        }
        if after.get("spec") != before.get("spec") {
            after["metadata"]["generation"] = (generation(before) + 1).into();
        }
        let held = after["metadata"]["finalizers"].as_array();
        let held = held.is_some_and(|finalizers| !finalizers.is_empty());
        if leaving && !held {
            self.objects.remove(key);
            return self.note(key, after, "DELETED");
        }
        if after == *before {
            return after;
        }
        self.put(key, after, "MODIFIED")
    }

    fn put(&mut self, key: &Key, object: Value, what: &'static str) -> Value {
        let object = self.note(key, object, what);
        self.objects.insert(key.clone(), object.clone());
        object
    }

    fn note(&mut self, key: &Key, mut object: Value, what: &'static str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.log.push_back(Happened {
            version: self.version,
            what,
            key: key.clone(),
            object: object.clone(),
        });
        if self.log.len() > LOG_MAX
            && let Some(oldest) = self.log.pop_front()
        {
            self.forgotten.insert(oldest.key.resource, oldest.version);
        }
        object
    }
}

fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(0)
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn missing(key: &Key) -> Refused {
    let message = format!("{} {:?} not found", key.resource, key.name);
    (404, "NotFound", message)
}

fn conflict(key: &Key, why: &str) -> Refused {
    let message = format!("{} {:?} has been modified: {why}", key.resource, key.name);
    (409, "Conflict", message)
}

/// JSON merge patch, RFC 7386.
pub fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().expect("it was made one just now");
    for (name, part) in change {
        if part.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), part);
        }
    }
}

/// Takes away what says null at the top and in the metadata: it is as if it were not there.
fn prune(object: &mut Value) {
    let present = |map: &mut Map<String, Value>| map.retain(|_, part| !part.is_null());
    object.as_object_mut().map(present);
    object["metadata"].as_object_mut().map(present);
}
