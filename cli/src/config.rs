//! Configuration files: TOML, environment and `--set` become validated types.
//!
//! Owns finding the role, laying overrides over the file, and reporting all
//! problems of one run. Does not read key files (`keys.rs`) and does not start
//! anything. Invariant: a [`Loaded`] has no unknown key, no wrong type and no
//! value out of range; whoever holds one checks nothing again.

mod backend;
mod common;
mod effective;
mod gateway;
mod map;
mod reader;
#[cfg(test)]
mod tests;
mod tree;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

pub use backend::{CenterConfig, GameConfig, GameKind, JournalKind};
pub use common::{
    AdminConfig, BEARER_EXPECTED, LogConfig, LogFormat, PeerConfig, usable_as_bearer,
};
pub use effective::{changes, render};
pub use gateway::{EngineKind, GatewayConfig, LimitsConfig, TlsFiles};
pub use reader::Entry;
pub use values::HostPort;

use reader::{Reader, key};
use tree::{ENVIRONMENT_PREFIX, Node, Origin, Problem, Value};

/// A configuration is a few kilobytes; a larger file is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Descriptors that a process needs beside those of its clients: uplinks,
/// rings, listeners, logs, the admin port.
pub const SPARE_DESCRIPTORS: u64 = 256;

/// Problems that are printed; past these a file is not worth reading further.
const PROBLEMS_SHOWN_MAX: usize = 100;

/// What defaults depend on.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Whether io_uring can be used.
    pub uring: bool,
    /// The limit of open files.
    pub open_files: u64,
}

/// What lies over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Variables of the environment; those of other programs are ignored.
    pub environment: Vec<(String, String)>,
    /// Values of `--set`, as written.
    pub set: Vec<String>,
}

/// One of the roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleConfig {
    /// `role = "gateway"`.
    Gateway(Box<GatewayConfig>),
    /// `role = "center"`.
    Center(Box<CenterConfig>),
    /// `role = "game"`.
    Game(Box<GameConfig>),
}

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The typed values.
    pub role: RoleConfig,
    /// Every key with its value, in reading order.
    pub entries: Vec<Entry>,
}

/// Everything that is wrong with one configuration.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    problems: Vec<Problem>,
}

impl Overrides {
    /// The environment of this process and these `--set` values.
    pub fn of_process(set: &[String]) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
            .collect();
        Self {
            environment,
            set: set.to_vec(),
        }
    }

    fn apply(&self, root: &mut Node, problems: &mut Vec<Problem>) {
        let mut environment = self.environment.clone();
        // The order of the environment is chance; errors should not be.
        environment.sort();
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
                continue;
            };
            let path = rest.to_lowercase().replace("__", ".");
            if let Err(problem) = root.set(&path, &value, Origin::Environment(name.clone())) {
                problems.push(problem);
            }
        }
        for text in &self.set {
            let (path, value) = text.split_once('=').unwrap_or((text, ""));
            let origin = Origin::Flag(path.trim().to_owned());
            let result = if text.contains('=') {
                root.set(path.trim(), value.trim(), origin)
            } else {
                let message = "write --set section.key=value".to_owned();
                Err(Problem { origin, message })
            };
            problems.extend(result.err());
        }
    }
}

impl RoleConfig {
    /// As `role =` names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway",
            Self::Center(_) => "center",
            Self::Game(_) => "game",
        }
    }

    /// `[log]`, which every role has.
    pub fn log(&self) -> LogConfig {
        match self {
            Self::Gateway(config) => config.log,
            Self::Center(config) => config.log,
            Self::Game(config) => config.log,
        }
    }

    /// `[admin]`, which every role has.
    pub fn admin(&self) -> &AdminConfig {
        match self {
            Self::Gateway(config) => &config.admin,
            Self::Center(config) => &config.admin,
            Self::Game(config) => &config.admin,
        }
    }
}

/// Reads a configuration file with what lies over it.
///
/// # Errors
/// The file cannot be read, or anything in it or over it is wrong; all of it is
/// in the one error.
pub fn load(file: &Path, overrides: &Overrides, machine: &Machine) -> Result<Loaded, ConfigError> {
    let unreadable = |message: String| ConfigError {
        file: file.to_owned(),
        problems: vec![Problem {
            origin: Origin::Default,
            message,
        }],
    };
    let size = std::fs::metadata(file)
        .map_err(|error| {
            unreadable(format!(
                "cannot read it: {error}; give the path with --config"
            ))
        })?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!(
            "{size} bytes are too many for a configuration"
        )));
    }
    let text = std::fs::read_to_string(file)
        .map_err(|error| unreadable(format!("cannot read it: {error}")))?;
    read(file, &text, overrides, machine)
}

/// The same from the text of a file.
///
/// # Errors
/// Everything that is wrong in it or over it.
pub fn read(
    file: &Path,
    text: &str,
    overrides: &Overrides,
    machine: &Machine,
) -> Result<Loaded, ConfigError> {
    let directory = file.parent().unwrap_or(Path::new(""));
    parse(text, directory, overrides, machine).map_err(|problems| ConfigError {
        file: file.to_owned(),
        problems,
    })
}

/// `directory` is where relative paths start.
fn parse(
    text: &str,
    directory: &Path,
    overrides: &Overrides,
    machine: &Machine,
) -> Result<Loaded, Vec<Problem>> {
    let (mut root, mut problems) = Node::parse(text);
    if !problems.is_empty() {
        // Keys of a broken document would only give errors that vanish with it.
        return Err(problems);
    }
    overrides.apply(&mut root, &mut problems);
    if root.at("role").is_none() {
        problems.push(Problem {
            origin: Origin::Line(1),
            message: "role is missing: the first key has to be role = \"gateway\", \"center\" or \
                      \"game\""
                .to_owned(),
        });
        return Err(problems);
    }
    let mut reader = Reader::new(&root, directory);
    #[derive(Clone, Copy)]
    enum Role {
        Gateway,
        Center,
        Game,
    }
    let roles = [
        ("gateway", Role::Gateway),
        ("center", Role::Center),
        ("game", Role::Game),
    ];
    let known_role = matches!(
        root.at("role").map(|node| &node.value),
        Some(Value::Text(name)) if roles.iter().any(|(role, _)| role == name)
    );
    let role = reader.choice(key("role"), "gateway", &roles);
    if !known_role {
        // Which keys are known depends on the role: nothing else can be judged.
        problems.extend(
            reader
                .finish()
                .err()
                .unwrap_or_default()
                .into_iter()
                .filter(|problem| problem.message.starts_with("role")),
        );
        return Err(problems);
    }
    let role = match role {
        Role::Gateway => RoleConfig::Gateway(Box::new(GatewayConfig::read(&mut reader, machine))),
        Role::Center => RoleConfig::Center(Box::new(CenterConfig::read(&mut reader))),
        Role::Game => RoleConfig::Game(Box::new(GameConfig::read(&mut reader))),
    };
    match reader.finish() {
        Ok(entries) if problems.is_empty() => Ok(Loaded { role, entries }),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

/// A text as it can stand in one line of a log: keys and values may hold anything.
fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => out.extend(letter.escape_default()),
            false => out.push(letter),
        }
    }
    out
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for (index, problem) in self.problems.iter().take(PROBLEMS_SHOWN_MAX).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let message = one_line(&problem.message);
            match &problem.origin {
                Origin::Line(line) => write!(f, "{file}:{line}: {message}")?,
                Origin::Default => write!(f, "{file}: {message}")?,
                origin => write!(f, "{}: {message}", one_line(&origin.to_string()))?,
            }
        }
        let more = self.problems.len().saturating_sub(PROBLEMS_SHOWN_MAX);
        if more > 0 {
            write!(f, "\n{file}: and {more} more")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
