//! The rules that a generated definition has for what people write, found by going through its schema.

use serde_json::{Value, json};

/// A step from an object to what is in it.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    /// The first item of a list.
    Item,
    /// The first value of a map.
    Entry,
}

/// A rule about one value: a bound, a choice, a pattern, a field that must be there, or items that differ.
#[derive(Clone, Debug)]
pub struct Bound {
    place: Vec<Step>,
    keyword: String,
    limit: Value,
}

/// All rules of a definition.
#[derive(Debug, Default)]
pub struct Rules {
    pub bounds: Vec<Bound>,
    /// The messages of the rules that are expressions.
    pub expressions: Vec<String>,
}

/// Keywords of a schema that refuse nothing, or that are gone through themselves. `format` is not looked at.
const NO_RULES: [&str; 11] = [
    "additionalProperties",
    "default",
    "description",
    "format",
    "items",
    "nullable",
    "properties",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];

impl Rules {
    /// The rules of a definition about names and specs. Statuses are written by the operator alone.
    pub fn of(definition: &Value) -> Self {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut rules = Self::default();
        rules.expressions(schema);
        rules.walk(&schema["properties"]["spec"], &[Step::Field("spec".into())]);
        rules
    }

    fn expressions(&mut self, schema: &Value) {
        let rules = schema["x-kubernetes-validations"].as_array();
        let message = |rule: &Value| rule["message"].as_str().expect("should have a message").to_owned();
        self.expressions.extend(rules.into_iter().flatten().map(message));
    }

    fn walk(&mut self, schema: &Value, place: &[Step]) {
        self.expressions(schema);
        let below = |step: Step| [place, &[step]].concat();
        for (keyword, limit) in schema.as_object().expect("should be a schema") {
            let bound = |limit: &Value| Bound {
                place: place.to_vec(),
                keyword: keyword.clone(),
                limit: limit.clone(),
            };
            match keyword.as_str() {
                "x-kubernetes-list-type" if limit == "atomic" => {}
                "enum"
                | "maxItems"
                | "maxLength"
                | "maxProperties"
                | "maximum"
                | "minItems"
                | "minLength"
                | "minimum"
                | "pattern"
                | "x-kubernetes-list-type" => self.bounds.push(bound(limit)),
                "required" => self.bounds.extend(limit.as_array().into_iter().flatten().map(bound)),
                known if NO_RULES.contains(&known) => {}
                unknown => panic!("{place:?}: this test does not know how to break {unknown}"),
            }
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            self.walk(field, &below(Step::Field(name.clone())));
        }
        for (keyword, step) in [("items", Step::Item), ("additionalProperties", Step::Entry)] {
            if schema[keyword].is_object() {
                self.walk(&schema[keyword], &below(step));
            }
        }
    }
}

impl Bound {
    /// Where it is, and what it is, for people.
    pub fn name(&self) -> String {
        let step = |step: &Step| match step {
            Step::Field(name) => format!(".{name}"),
            Step::Item => "[0]".to_owned(),
            Step::Entry => "{}".to_owned(),
        };
        format!("{}: {} {}", self.place.iter().map(step).collect::<String>(), self.keyword, self.limit)
    }

    /// The manifest, changed so that it breaks this rule. `None`: the manifest has nothing there that could break it.
    pub fn broken(&self, manifest: &Value) -> Option<Value> {
        let mut broken = manifest.clone();
        let mut value = &mut broken;
        for step in &self.place {
            value = match step {
                Step::Field(name) => value.get_mut(name)?,
                Step::Item => value.get_mut(0)?,
                Step::Entry => value.as_object_mut()?.values_mut().next()?,
            };
        }
        if self.keyword == "required" {
            value.as_object_mut()?.remove(self.limit.as_str()?)?;
        } else {
            *value = self.bad(value)?;
        }
        Some(broken)
    }

    /// The limit, if it is a number: definitions have whole ones alone, some of them written as `1.0`.
    fn number(&self) -> Option<i64> {
        self.limit.to_string().trim_end_matches(".0").parse().ok()
    }

    /// Whether what breaks this rule is refused for this reason too.
    pub fn breaks_along_with(&self, cause: &str) -> bool {
        // A list that is too long has the same item again and again.
        self.keyword == "maxItems" && cause.contains("Duplicate value")
    }

    /// What stands there instead of a good value.
    fn bad(&self, good: &Value) -> Option<Value> {
        let length = || usize::try_from(self.number()?).ok();
        let items = |number: usize| Some(Value::from(vec![good.get(0)?.clone(); number]));
        match self.keyword.as_str() {
            "minimum" => Some(json!(self.number()? - 1)),
            "maximum" => Some(json!(self.number()? + 1)),
            "minLength" => Some(json!("x".repeat(length()? - 1))),
            "maxLength" => Some(json!("x".repeat(length()? + 1))),
            "minItems" => items(length()? - 1),
            "maxItems" => items(length()? + 1),
            "x-kubernetes-list-type" => items(2),
            "maxProperties" => {
                let value = good.as_object()?.values().next()?;
                let entries = (0..=length()?).map(|number| (format!("k{number}"), value.clone()));
                Some(Value::Object(entries.collect()))
            }
            "enum" => Some(json!("NoneOfThem")),
            // No pattern has this letter, and it takes as much room as the letters that it replaces.
            "pattern" => Some(json!("é".repeat(good.as_str()?.chars().count()))),
            _ => None,
        }
    }

    /// Words of the API server when this rule is broken.
    pub fn words(&self) -> &'static str {
        match self.keyword.as_str() {
            "minimum" => "should be greater than or equal to",
            "maximum" => "should be less than or equal to",
            "minLength" => "should be at least",
            "maxLength" => "Too long",
            "minItems" => "should have at least",
            "maxItems" | "maxProperties" => "Too many",
            "enum" => "Unsupported value",
            "pattern" => "should match",
            "required" => "Required value",
            _ => "Duplicate value",
        }
    }
}
