//! Typed reading of keys: each call names a key, its default and its range.
//!
//! Owns the list of what was asked for, from which unknown keys, suggestions
//! and the effective configuration follow, so that a key's name, default and
//! bounds stand in one place. Invariant: reading never stops at the first
//! problem; what a failed read returns is only a placeholder, and
//! [`Reader::finish`] then refuses the whole configuration.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use gateway::shard::{ALL_VERSIONS, Versions};
use ipnet::IpNet;
use uplink::PublicKey;

use super::tree::{Node, Origin, Problem, Value};
use super::values::{HostPort, quoted};

/// Most entries of any list in a configuration (keys, groups, instances): a
/// gateway with more peers than this is a mistake in the file.
pub const LIST_LENGTH_MAX: usize = 1024;

/// Texts are names, addresses and paths; a longer one is a mistake.
const TEXT_BYTES_MAX: usize = 4096;

/// Suggest a known key only when it is this similar (0 to 1).
const SIMILARITY_MIN: f64 = 0.7;

/// The name of a key and how it behaves.
#[derive(Debug, Clone)]
pub struct Key {
    path: String,
    reloadable: bool,
    secret: bool,
}

/// A key that needs a restart to change.
pub fn key(path: impl Into<String>) -> Key {
    Key {
        path: path.into(),
        reloadable: false,
        secret: false,
    }
}

/// A key that SIGHUP can change in the running process.
pub fn live(path: impl Into<String>) -> Key {
    Key {
        path: path.into(),
        reloadable: true,
        secret: false,
    }
}

/// The same for one whose value is never printed.
pub fn live_secret(path: impl Into<String>) -> Key {
    Key {
        path: path.into(),
        reloadable: true,
        secret: true,
    }
}

/// One key with the value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Dotted path.
    pub path: String,
    /// The value as TOML; secrets in the clear, see [`Entry::shown`].
    pub value: String,
    /// Who set it.
    pub origin: Origin,
    /// Whether SIGHUP can change it.
    pub reloadable: bool,
    /// Whether it must not be printed.
    pub secret: bool,
}

impl Entry {
    /// The value as it may be printed.
    pub fn shown(&self) -> &str {
        if self.secret {
            "\"<redacted>\""
        } else {
            &self.value
        }
    }
}

/// Reads typed keys out of a tree.
pub struct Reader<'a> {
    root: &'a Node,
    directory: &'a Path,
    entries: Vec<Entry>,
    known: Vec<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// `directory` is where relative paths start: that of the file.
    pub fn new(root: &'a Node, directory: &'a Path) -> Self {
        Self {
            root,
            directory,
            entries: Vec::new(),
            known: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// An integer within `range`.
    pub fn integer(&mut self, key: Key, default: Option<u64>, range: RangeInclusive<u64>) -> u64 {
        let Some(node) = self.find(&key, default.map(|value| value.to_string())) else {
            return default.unwrap_or(*range.start());
        };
        let (low, high) = (*range.start(), *range.end());
        match node.value {
            Value::Integer(number) => match u64::try_from(number) {
                Ok(number) if range.contains(&number) => {
                    self.record(&key, number.to_string(), &node.origin);
                    return number;
                }
                _ => self.problem(
                    &node.origin,
                    format!(
                        "{}: {number} is out of range: allowed are {low} to {high}",
                        key.path
                    ),
                ),
            },
            _ => self.wrong_type(&key, node, &format!("an integer from {low} to {high}")),
        }
        low
    }

    /// The same for what fits into 32 bits.
    pub fn integer32(&mut self, key: Key, default: Option<u32>, range: RangeInclusive<u32>) -> u32 {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        // The range was 32 bits wide, so the conversion cannot fail.
        u32::try_from(self.integer(key, default.map(u64::from), wide)).unwrap_or(*range.start())
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: Key, default: bool) -> bool {
        let Some(node) = self.find(&key, Some(default.to_string())) else {
            return default;
        };
        if let Value::Boolean(flag) = node.value {
            self.record(&key, flag.to_string(), &node.origin);
            return flag;
        }
        self.wrong_type(&key, node, "true or false");
        default
    }

    /// One of a closed list of words.
    pub fn choice<T: Copy>(&mut self, key: Key, default: &str, choices: &[(&str, T)]) -> T {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let allowed = format!("one of {}", words.join(", "));
        let text = self.parsed(key, Some(default), |text| {
            words
                .contains(&text)
                .then(|| text.to_owned())
                .ok_or_else(|| allowed.clone())
        });
        let chosen = text.as_deref().unwrap_or(default);
        let index = words.iter().position(|word| *word == chosen).unwrap_or(0);
        choices[index].1
    }

    /// A name: letters, digits, `-`, `_` and `.`, at most 64 of them, so that it
    /// can stand in logs and metrics as it is.
    pub fn name(&mut self, key: Key, default: Option<&str>) -> String {
        self.parsed(key, default, |text| {
            let good = (1..=64).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            good.then(|| text.to_owned())
                .ok_or_else(|| "1 to 64 letters, digits, '-', '_' or '.'".to_owned())
        })
        .unwrap_or_default()
    }

    /// Any text that is not empty.
    pub fn text(&mut self, key: Key, default: &str) -> String {
        self.parsed(key, Some(default), |text| {
            (!text.is_empty())
                .then(|| text.to_owned())
                .ok_or_else(|| "a text".to_owned())
        })
        .unwrap_or_default()
    }

    /// A text that may be absent.
    pub fn optional_text(&mut self, key: Key) -> Option<String> {
        self.known.push(key.path.clone());
        self.root.at(&key.path)?;
        self.parsed(key, None, |text| {
            (!text.is_empty())
                .then(|| text.to_owned())
                .ok_or_else(|| "a text".to_owned())
        })
    }

    /// An address to listen on: IP and port.
    pub fn socket(&mut self, key: Key, default: &str) -> SocketAddr {
        self.parsed(key, Some(default), |text| {
            text.parse().map_err(|_| {
                "an IP address and a port, such as \"127.0.0.1:7000\" or \"[::]:7000\"".to_owned()
            })
        })
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// An address to connect to: host name or IP, and port.
    pub fn address(&mut self, key: Key) -> HostPort {
        self.parsed(key, None, str::parse).unwrap_or_default()
    }

    /// A public key.
    pub fn public_key(&mut self, key: Key) -> PublicKey {
        self.parsed(key, None, parse_public_key)
            .unwrap_or(PublicKey([0; 32]))
    }

    /// A list of public keys, none of them twice.
    pub fn public_keys(&mut self, key: Key) -> Vec<PublicKey> {
        self.list(key, parse_public_key)
    }

    /// A path; relative ones start at the directory of the file.
    pub fn path(&mut self, key: Key, default: &str) -> PathBuf {
        let directory = self.directory;
        self.parsed(key, Some(default), |text| parse_path(directory, text))
            .unwrap_or_default()
    }

    /// A path that may be absent.
    pub fn optional_path(&mut self, key: Key) -> Option<PathBuf> {
        self.known.push(key.path.clone());
        self.root.at(&key.path)?;
        let directory = self.directory;
        self.parsed(key, None, |text| parse_path(directory, text))
    }

    /// A list of paths.
    pub fn paths(&mut self, key: Key) -> Vec<PathBuf> {
        let directory = self.directory;
        self.list(key, |text| parse_path(directory, text))
    }

    /// A list of networks; an address alone is a network of one.
    pub fn networks(&mut self, key: Key, default: &[&str]) -> Vec<IpNet> {
        self.list_or(key, default, |text| {
            text.parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| {
                    "networks, such as \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\""
                        .to_owned()
                })
        })
    }

    /// A range of versions; every version where there is none.
    pub fn versions(&mut self, key: Key) -> Versions {
        let range = |text: &str| {
            let (from, to) = text.split_once("..")?;
            let from = if from.is_empty() {
                0
            } else {
                from.parse().ok()?
            };
            let to = match to {
                "" => u32::MAX,
                to => to.strip_prefix('=')?.parse().ok()?,
            };
            (from <= to).then_some(from..=to)
        };
        self.parsed(key, Some(".."), |text| {
            range(text).ok_or_else(|| {
                "a range of versions, such as \"10..=19\", \"20..\" or \"..=9\"".to_owned()
            })
        })
        .unwrap_or(ALL_VERSIONS)
    }

    /// A list of origins of web pages.
    pub fn origins(&mut self, key: Key) -> Vec<String> {
        self.list(key, |text| {
            let host = text
                .strip_prefix("https://")
                .or_else(|| text.strip_prefix("http://"));
            let good = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ']));
            good.then(|| text.to_owned()).ok_or_else(|| {
                "origins, such as \"https://game.example\" or \"http://localhost:8080\"".to_owned()
            })
        })
    }

    /// How many entries the array of tables at `path` has.
    pub fn tables(&mut self, path: &str) -> usize {
        let Some(node) = self.root.at(path) else {
            return 0;
        };
        match &node.value {
            Value::List(list) if list.is_empty() => {
                self.known.push(path.to_owned());
                0
            }
            Value::List(list) if list.len() <= LIST_LENGTH_MAX => list.len(),
            Value::List(list) => {
                let message = format!("{path}: {} entries, at most {LIST_LENGTH_MAX}", list.len());
                self.problem(&node.origin, message);
                0
            }
            _ => {
                self.known.push(path.to_owned());
                let found = node.value.kind();
                self.problem(
                    &node.origin,
                    format!(
                        "{path}: this is {found}, expected an array of tables: write [[{path}]]"
                    ),
                );
                0
            }
        }
    }

    /// A problem that concerns a key that was read, for checks across keys.
    pub fn problem_at(&mut self, path: &str, message: String) {
        let origin = self
            .root
            .at(path)
            .map_or(Origin::Default, |node| node.origin.clone());
        self.problem(&origin, format!("{path}: {message}"));
    }

    /// Whether nothing is wrong so far: a rule between keys that were misread would only name
    /// what vanishes with the mistake.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// All keys with their values, or everything that is wrong, in the order of
    /// the file.
    pub fn finish(mut self) -> Result<Vec<Entry>, Vec<Problem>> {
        self.unknown("", self.root);
        if self.problems.is_empty() {
            return Ok(self.entries);
        }
        self.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        self.problems.dedup();
        Err(self.problems)
    }

    fn parsed<T>(
        &mut self,
        key: Key,
        default: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(node) = self.find(&key, default.map(quoted)) else {
            return default.and_then(|text| parse(text).ok());
        };
        let Some(text) = text_of(node) else {
            let expected = parse("").err().unwrap_or_else(|| "a string".to_owned());
            self.wrong_type(&key, node, &expected);
            return None;
        };
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("{}: at most {TEXT_BYTES_MAX} bytes are allowed", key.path);
            self.problem(&node.origin, message);
            return None;
        }
        match parse(text) {
            Ok(value) => {
                self.record(&key, quoted(text), &node.origin);
                Some(value)
            }
            Err(expected) => {
                let shown = if key.secret {
                    "the value".to_owned()
                } else {
                    quoted(text)
                };
                let message = format!("{}: {shown} is not allowed: expected {expected}", key.path);
                self.problem(&node.origin, message);
                None
            }
        }
    }

    fn list<T: PartialEq>(
        &mut self,
        key: Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.list_or(key, &[], parse)
    }

    fn list_or<T: PartialEq>(
        &mut self,
        key: Key,
        default: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let shown: Vec<String> = default.iter().map(|text| quoted(text)).collect();
        let Some(node) = self.find(&key, Some(format!("[{}]", shown.join(", ")))) else {
            return default.iter().flat_map(|text| parse(text)).collect();
        };
        // An override may say `a,b` for `["a", "b"]`.
        let split: Vec<Node>;
        let items = match (&node.value, &node.raw) {
            (Value::List(items), _) => items,
            (_, Some(raw)) => {
                split = raw
                    .split(',')
                    .map(|part| Node {
                        value: Value::Text(part.trim().to_owned()),
                        origin: node.origin.clone(),
                        raw: None,
                    })
                    .collect();
                &split
            }
            _ => {
                self.wrong_type(&key, node, "an array of strings");
                return Vec::new();
            }
        };
        if items.len() > LIST_LENGTH_MAX {
            let message = format!(
                "{}: {} entries, at most {LIST_LENGTH_MAX}",
                key.path,
                items.len()
            );
            self.problem(&node.origin, message);
            return Vec::new();
        }
        let mut values = Vec::with_capacity(items.len());
        let mut shown = Vec::with_capacity(items.len());
        for item in items {
            let Some(text) = text_of(item) else {
                self.wrong_type(&key, item, "strings in the array");
                continue;
            };
            match parse(text) {
                Ok(value) if values.contains(&value) => {
                    self.problem(&item.origin, format!("{}: {text} stands twice", key.path));
                }
                Ok(value) => {
                    values.push(value);
                    shown.push(quoted(text));
                }
                Err(expected) => self.problem(
                    &item.origin,
                    format!(
                        "{}: {} is not allowed: expected {expected}",
                        key.path,
                        quoted(text)
                    ),
                ),
            }
        }
        self.record(&key, format!("[{}]", shown.join(", ")), &node.origin);
        values
    }

    /// The node of a key; without one its default is recorded, or its absence.
    fn find(&mut self, key: &Key, default: Option<String>) -> Option<&'a Node> {
        self.known.push(key.path.clone());
        let root = self.root;
        let found = root.at(&key.path);
        if found.is_none() {
            match default {
                Some(value) => self.record(key, value, &Origin::Default),
                None => self.problem(
                    &Origin::Default,
                    format!(
                        "{} is missing and has no default: add {}",
                        key.path,
                        placed(&key.path)
                    ),
                ),
            }
        }
        found
    }

    fn record(&mut self, key: &Key, value: String, origin: &Origin) {
        self.entries.push(Entry {
            path: key.path.clone(),
            value,
            origin: origin.clone(),
            reloadable: key.reloadable,
            secret: key.secret,
        });
    }

    fn wrong_type(&mut self, key: &Key, node: &Node, expected: &str) {
        let message = format!(
            "{}: this is {}, expected {expected}",
            key.path,
            node.value.kind()
        );
        self.problem(&node.origin, message);
    }

    fn problem(&mut self, origin: &Origin, message: String) {
        self.problems.push(Problem {
            origin: origin.clone(),
            message,
        });
    }

    /// Reports every leaf below `node` that nobody asked for.
    fn unknown(&mut self, path: &str, node: &Node) {
        if self.known.iter().any(|known| known == path) {
            return;
        }
        let step = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        match &node.value {
            Value::Table(table) if !table.is_empty() => {
                for (name, child) in table {
                    self.unknown(&step(name), child);
                }
            }
            Value::List(list) if list.iter().any(|n| matches!(n.value, Value::Table(_))) => {
                for (index, child) in list.iter().enumerate() {
                    self.unknown(&step(&index.to_string()), child);
                }
            }
            value => {
                let prefix = format!("{path}.");
                let section =
                    path.is_empty() || self.known.iter().any(|known| known.starts_with(&prefix));
                if section {
                    if !matches!(value, Value::Table(_)) {
                        let message = format!("{path} is a section, not a key: write [{path}]");
                        self.problem(&node.origin, message);
                    }
                    return;
                }
                let hint = self.nearest(path).map_or_else(
                    || "`sallyport config --effective` lists the keys".to_owned(),
                    |known| format!("did you mean {known}?"),
                );
                self.problem(&node.origin, format!("unknown key {path}; {hint}"));
            }
        }
    }

    fn nearest(&self, path: &str) -> Option<&str> {
        let leaf = |path: &str| path.rsplit('.').next().map(str::to_owned);
        // A key in the wrong section is meant as often as a misspelt one.
        let score = |known: &str| {
            let moved = if leaf(known) == leaf(path) { 0.9 } else { 0.0 };
            strsim::normalized_damerau_levenshtein(known, path).max(moved)
        };
        let best = self
            .known
            .iter()
            .max_by(|a, b| score(a).total_cmp(&score(b)))?;
        (score(best) >= SIMILARITY_MIN).then_some(best.as_str())
    }
}

/// `[section] key = …`, as it has to be written.
fn placed(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((section, key)) => format!("`{key} = …` to [{section}]"),
        None => format!("`{path} = …` at the top"),
    }
}

fn text_of(node: &Node) -> Option<&str> {
    match (&node.value, &node.raw) {
        (Value::Text(text), _) => Some(text),
        // `--set name=007` means the text although it reads as a number.
        (Value::Integer(_) | Value::Boolean(_) | Value::Other(_), Some(raw)) => Some(raw),
        _ => None,
    }
}

fn parse_path(directory: &Path, text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("a path".to_owned());
    }
    Ok(directory.join(text))
}

fn parse_public_key(text: &str) -> Result<PublicKey, String> {
    text.parse().map_err(|_| {
        "a public key, 43 letters of base64url, as `sallyport keygen` prints it".to_owned()
    })
}
