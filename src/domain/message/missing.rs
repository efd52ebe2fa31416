//! Which parameters a message uses that recipients do not have.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use minijinja::ErrorKind;

use super::{BoundedText, MessageError, MessageTemplate};

/// Parameters that are named; of more, the number is.
const MAX_NAMED: usize = 5;
/// Characters of a name that are shown.
const MAX_SHOWN: usize = 64;
/// Sets of absent parameters that are looked at for each part: recipients lack the same ones as a rule, and each look makes a text for
/// every one that is absent.
const MAX_LOOKS: usize = 100;

/// Names of parameters, each with the first part of the message that uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing(BTreeMap<String, String>);

impl Missing {
    pub(super) fn add(&mut self, part: &str, variable: String) {
        self.0.entry(variable).or_insert_with(|| part.to_owned());
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// One of them, for an example.
    #[must_use]
    pub fn example(&self) -> String {
        self.names().next().unwrap_or_default().chars().take(MAX_SHOWN).collect()
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (variable, part)) in self.0.iter().take(MAX_NAMED).enumerate() {
            let name: String = variable.chars().take(MAX_SHOWN).collect();
            let comma = if index == 0 { "" } else { ", " };
            write!(out, "{comma}{{{{ {name} }}}} in {part}")?;
        }
        match self.0.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(out, " and {more} more"),
        }
    }
}

/// Collects what the recipients of one audience lack.
pub(super) struct Lacking<'a> {
    template: &'a MessageTemplate,
    parts: Vec<Part>,
    missing: Missing,
    rows: usize,
    first_row: usize,
    /// The part that cannot be made for the first of them.
    first_part: String,
}

/// A part of the message, and what it may use.
struct Part {
    name: String,
    variables: Vec<String>,
    /// What was absent when it was looked at, by the places of variables.
    looked_at: HashSet<Vec<usize>>,
}

impl<'a> Lacking<'a> {
    pub(super) fn of(template: &'a MessageTemplate) -> Self {
        let part = |name: String| Part {
            variables: template.variables(&name).into_iter().collect(),
            name,
            looked_at: HashSet::new(),
        };
        let parts = template.parts().into_iter().map(part).collect();
        Self {
            template,
            parts,
            missing: Missing::default(),
            rows: 0,
            first_row: 0,
            first_part: String::new(),
        }
    }

    /// Takes in a recipient of which the message could not be made. Rows are counted from 0.
    pub(super) fn add(&mut self, row: usize, params: &BTreeMap<String, String>) {
        if self.rows == 0 {
            self.first_row = row + 1;
            let undefined = self.parts.iter().find(|part| self.template.is_undefined(&part.name, params));
            self.first_part = undefined.map_or_else(String::new, |part| part.name.clone());
        }
        self.rows += 1;
        for part in &mut self.parts {
            let places = part.variables.iter().enumerate();
            let absent: Vec<usize> =
                places.filter(|(_, name)| !params.contains_key(*name)).map(|(place, _)| place).collect();
            let is_new = part.looked_at.len() < MAX_LOOKS && !part.looked_at.contains(&absent);
            if is_new && self.template.is_undefined(&part.name, params) {
                let absent_names: Vec<&String> = absent.iter().map(|place| &part.variables[*place]).collect();
                for variable in self.template.needed(&part.name, &absent_names, params) {
                    self.missing.add(&part.name, variable);
                }
                part.looked_at.insert(absent);
            }
        }
    }

    /// What they lack.
    pub(super) fn error(self) -> MessageError {
        let Self { missing, rows, first_row, first_part, .. } = self;
        if missing.0.is_empty() {
            // They have all columns: it is a part of a value.
            let problem = "uses something that is not defined".into();
            return MessageError::UnsendableText { part: first_part, row: first_row, problem };
        }
        MessageError::MissingParameter { missing, rows, first_row }
    }
}

impl MessageTemplate {
    /// Those of the absent parameters without which a part cannot be made for a recipient. Those with a default are not among them.
    fn needed(&self, part: &str, absent: &[&String], params: &BTreeMap<String, String>) -> Vec<String> {
        let mut filled = params.clone();
        filled.extend(absent.iter().map(|name| ((*name).clone(), "x".to_owned())));
        let mut needed = Vec::new();
        for variable in absent {
            filled.remove(*variable);
            if self.is_undefined(part, &filled) {
                needed.push((*variable).clone());
            }
            filled.insert((*variable).clone(), "x".to_owned());
        }
        needed
    }

    fn is_undefined(&self, part: &str, params: &BTreeMap<String, String>) -> bool {
        let Ok(template) = self.environment.get_template(part) else { return false };
        let made = template.render_captured_to(params, &mut BoundedText::default());
        made.is_err_and(|error| error.kind() == ErrorKind::UndefinedError)
    }

    /// The parameters that a part may use.
    fn variables(&self, part: &str) -> BTreeSet<String> {
        let Ok(template) = self.environment.get_template(part) else { return BTreeSet::new() };
        let functions: HashSet<&str> = self.environment.globals().map(|(name, _)| name).collect();
        let used = template.undeclared_variables(false).into_iter();
        used.filter(|name| !functions.contains(name.as_str())).collect()
    }
}
