//! The configuration as a tree whose every node knows where it came from.
//!
//! Owns reading TOML text into that tree and laying overrides over it. Knows
//! nothing about which keys exist: that is `reader.rs` and the roles.
//! Invariant: each node's origin is the last place that set it, so that an
//! error names the line, the variable or the flag that has to be changed.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

/// Prefix of the environment variables that override keys.
pub const ENVIRONMENT_PREFIX: &str = "SALLYPORT__";

/// Deepest nesting that is followed; the deepest key that exists has four levels.
const DEPTH_MAX: usize = 8;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The file, at this line (from 1).
    Line(usize),
    /// An environment variable, by its name.
    Environment(String),
    /// `--set`, by its key: the value may be a secret.
    Flag(String),
    /// Nobody set it.
    Default,
}

/// A value without its origin.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string, or an override that is no other TOML value.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
    /// Something that no key takes (floats, dates); named for the error message.
    Other(&'static str),
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(BTreeMap<String, Node>),
}

/// A value and its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was set.
    pub origin: Origin,
    /// What an override said, letter by letter: a name like `007` stays one.
    pub raw: Option<String>,
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What, and what to do about it.
    pub message: String,
}

impl Value {
    /// What it is, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Other(kind) => kind,
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(path) => write!(f, "--set {path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Node {
    /// An empty table.
    pub fn empty(origin: Origin) -> Self {
        Self {
            value: Value::Table(BTreeMap::new()),
            origin,
            raw: None,
        }
    }

    /// Reads a TOML document. All syntax errors of it are collected.
    pub fn parse(text: &str) -> (Self, Vec<Problem>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut problems = Vec::new();
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            // toml's messages have two lines where they list what was expected.
            let message = error.message().trim().replace('\n', ", ");
            problems.push(Problem {
                origin: Origin::Line(line_at(text, at)),
                message,
            });
        }
        let root = Self {
            value: from_table(table.get_ref(), &|at| Origin::Line(line_at(text, at)), 0),
            origin: Origin::Line(1),
            raw: None,
        };
        (root, problems)
    }

    /// The node at a dotted path; numbers index arrays.
    pub fn at(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for step in path.split('.') {
            node = match &node.value {
                Value::Table(table) => table.get(step)?,
                Value::List(list) => list.get(step.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(node)
    }

    /// Lays one override over the tree; tables on the way are made.
    ///
    /// # Errors
    /// The path runs through something that is not a table or past the end of
    /// an array.
    pub fn set(&mut self, path: &str, raw: &str, origin: Origin) -> Result<(), Problem> {
        let wrong = |message: String| Problem {
            origin: origin.clone(),
            message,
        };
        let steps: Vec<&str> = path.split('.').collect();
        if steps.len() > DEPTH_MAX || steps.iter().any(|step| step.is_empty()) {
            return Err(wrong(format!("{path} is not a key: write section.key")));
        }
        let mut node = self;
        for (depth, step) in steps.iter().enumerate() {
            let here = steps[..depth].join(".");
            node = match &mut node.value {
                Value::Table(table) => table
                    .entry((*step).to_owned())
                    .or_insert_with(|| Self::empty(origin.clone())),
                Value::List(list) => {
                    let length = list.len();
                    step.parse::<usize>()
                        .ok()
                        .and_then(|index| list.get_mut(index))
                        .ok_or_else(|| {
                            wrong(format!(
                                "{here} is an array with {length} entries, counted from 0"
                            ))
                        })?
                }
                _ => {
                    return Err(wrong(format!(
                        "{here} is not a section, so {path} is not a key"
                    )));
                }
            };
        }
        *node = Self {
            value: parse_value(raw, &origin),
            origin,
            raw: Some(raw.to_owned()),
        };
        Ok(())
    }
}

/// An override's value: TOML where it is TOML, the text itself elsewhere.
fn parse_value(raw: &str, origin: &Origin) -> Value {
    match DeValue::parse(raw) {
        Ok(value) => from_value(value.get_ref(), &|_| origin.clone(), 0),
        Err(_) => Value::Text(raw.to_owned()),
    }
}

fn from_table(table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin, depth: usize) -> Value {
    let mut out = BTreeMap::new();
    for (key, value) in table {
        let node = Node {
            value: from_value(value.get_ref(), origin, depth + 1),
            origin: origin(key.span().start),
            raw: None,
        };
        out.insert(key.get_ref().to_string(), node);
    }
    Value::Table(out)
}

fn from_value(value: &DeValue<'_>, origin: &dyn Fn(usize) -> Origin, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Other("nested too deeply");
    }
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("an integer beyond 64 bits"), Value::Integer),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Float(_) => Value::Other("a float"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(list) => Value::List(
            list.iter()
                .map(|item| Node {
                    value: from_value(item.get_ref(), origin, depth + 1),
                    origin: origin(item.span().start),
                    raw: None,
                })
                .collect(),
        ),
        DeValue::Table(table) => from_table(table, origin, depth),
    }
}

fn line_at(text: &str, at: usize) -> usize {
    let end = at.min(text.len());
    text.as_bytes()[..end]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}
