//! The custom resource definitions, as they are applied: made from the types, with what the derive gets wrong for the
//! API server put right.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value};

use super::{
    Broadcast, BroadcastBatch, BroadcastCampaign, BroadcastChannel, BroadcastJournal, BroadcastSuppression,
};

/// The six definitions as JSON values, in the order in which they are printed.
///
/// # Panics
/// Never: the types are fixed at compile time, and a test runs this.
#[must_use]
pub fn values() -> Vec<Value> {
    let definitions = [
        Broadcast::crd(),
        BroadcastChannel::crd(),
        BroadcastBatch::crd(),
        BroadcastJournal::crd(),
        BroadcastCampaign::crd(),
        BroadcastSuppression::crd(),
    ];
    definitions.iter().map(to_value).collect()
}

/// Names of the six definitions, as `<plural>.<group>`.
#[must_use]
pub fn names() -> [&'static str; 6] {
    [
        Broadcast::crd_name(),
        BroadcastChannel::crd_name(),
        BroadcastBatch::crd_name(),
        BroadcastJournal::crd_name(),
        BroadcastCampaign::crd_name(),
        BroadcastSuppression::crd_name(),
    ]
}

/// The six definitions as one YAML stream.
///
/// # Panics
/// Never: see [`values`].
#[must_use]
pub fn yaml() -> String {
    values().iter().map(document).collect::<Vec<_>>().join("---\n")
}

/// One definition as a YAML document.
///
/// # Panics
/// Never: see [`values`].
#[must_use]
pub fn document(definition: &Value) -> String {
    let yaml = serde_yaml::to_string(definition).expect("should write a definition as YAML");
    if yaml.ends_with('\n') { yaml } else { yaml + "\n" }
}

fn to_value(definition: &CustomResourceDefinition) -> Value {
    let mut value = serde_json::to_value(definition).expect("should write a definition as JSON");
    conform(&mut value);
    value
}

/// `nullable` would make kubectl keep an explicit null instead of applying the default; numeric formats that the API
/// server does not know are noise.
fn conform(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            drop_unknown_format(map);
            drop_null_enum(map);
            map.values_mut().for_each(conform);
        }
        Value::Array(items) => items.iter_mut().for_each(conform),
        _ => {}
    }
}

fn drop_unknown_format(map: &mut Map<String, Value>) {
    let known = ["int32", "int64", "date-time", "date"];
    if map.contains_key("type")
        && map.get("format").and_then(Value::as_str).is_some_and(|f| !known.contains(&f))
    {
        map.remove("format");
    }
}

fn drop_null_enum(map: &mut Map<String, Value>) {
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(path: &str, value: &Value, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
        match value {
            Value::Object(map) => {
                visit(path, map);
                for (key, child) in map {
                    walk(&format!("{path}.{key}"), child, visit);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(path, item, visit)),
            _ => {}
        }
    }

    fn schemas(visit: &mut impl FnMut(&str, &Map<String, Value>)) {
        for definition in values() {
            let kind = definition["spec"]["names"]["kind"].as_str().expect("kind");
            walk(kind, &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"], visit);
        }
    }

    #[test]
    fn schemas_have_no_float_no_unsigned_and_no_nullable() {
        schemas(&mut |path, map| {
            assert!(!map.contains_key("nullable"), "{path} is nullable");
            assert_ne!(map.get("type"), Some(&Value::from("number")), "{path} is a float");
            let format = map.get("format").and_then(Value::as_str).unwrap_or_default();
            assert!(!format.starts_with("uint"), "{path} is unsigned");
        });
    }

    #[test]
    fn every_string_and_list_is_bounded() {
        schemas(&mut |path, map| {
            let bounded = ["maxLength", "enum", "format"].iter().any(|key| map.contains_key(*key));
            match map.get("type").and_then(Value::as_str) {
                Some("string") => assert!(bounded, "{path} has no maxLength"),
                Some("array") => {
                    assert!(map.contains_key("maxItems"), "{path} has no maxItems");
                    assert!(map.contains_key("x-kubernetes-list-type"), "{path} has no list type");
                }
                _ => {}
            }
        });
    }

    #[test]
    fn every_field_is_documented() {
        schemas(&mut |path, map| {
            if let Some(Value::Object(fields)) = map.get("properties") {
                for (field, schema) in fields {
                    assert!(schema.get("description").is_some(), "{path}.{field} has no description");
                }
            }
        });
    }
}
