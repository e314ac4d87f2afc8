//! Configurations: a file, variables of the environment and `--set`, as an operator may get them
//! wrong.

use std::path::Path;

use sallyport::config::{Loaded, Machine, Overrides, changes, read, render};

use crate::script::{Lines, Script, Way};

/// Where the file is said to lie.
const FILE: &str = "/etc/sallyport/role.toml";

const MACHINE: Machine = Machine {
    uring: true,
    open_files: 20_000,
};

/// What to do with a piece.
mod op {
    pub const TEXT: u8 = 0;
    pub const ENVIRONMENT: u8 = 1;
    pub const SET: u8 = 2;
}

/// What cannot be read is told by line or key, a problem a line; what is read prints as a
/// configuration that means the same.
pub fn run(data: &[u8]) -> u64 {
    let (mut text, mut overrides) = (String::new(), Overrides::default());
    let mut script = Script::new(data);
    while !script.is_over() {
        let what = script.u8();
        let piece = String::from_utf8_lossy(script.piece()).into_owned();
        match what {
            op::ENVIRONMENT => {
                let (name, value) = piece.split_once('=').unwrap_or((&piece, ""));
                let variable = (format!("SALLYPORT__{name}"), value.to_owned());
                overrides.environment.push(variable);
            }
            op::SET => overrides.set.push(piece),
            _ => text.push_str(&piece),
        }
    }
    let mut way = Way::default();
    match read(Path::new(FILE), &text, &overrides, &MACHINE) {
        Ok(loaded) => check_loaded(&loaded, &mut way),
        Err(error) => check_error(&error.to_string(), &text, &overrides, &mut way),
    }
    way.value()
}

fn check_loaded(loaded: &Loaded, way: &mut Way) {
    way.note(loaded.entries.len() as u64);
    assert_eq!(changes(&loaded.entries, &loaded.entries), []);
    if loaded.entries.iter().any(|entry| entry.secret) {
        return;
    }
    let printed = render(&loaded.entries);
    let again = read(Path::new(FILE), &printed, &Overrides::default(), &MACHINE);
    match again {
        Ok(again) => assert_eq!(changes(&loaded.entries, &again.entries), [], "{printed}"),
        Err(error) => panic!("what was printed cannot be read: {error}\n{printed}"),
    }
}

fn check_error(error: &str, text: &str, overrides: &Overrides, way: &mut Way) {
    assert!(!error.is_empty(), "refused without a word");
    for line in error.split('\n') {
        let (place, message) = line.split_once(": ").expect("a place and a message");
        assert!(!message.is_empty(), "{line}");
        if let Some(of_file) = place.strip_prefix(FILE) {
            if let Some(number) = of_file.strip_prefix(':') {
                let number: usize = number.parse().expect("a number of a line");
                let lines = 1 + text.matches('\n').count();
                assert!((1..=lines).contains(&number), "{line}");
            }
        } else {
            let is_known = match place.strip_prefix("--set ") {
                Some(_) => !overrides.set.is_empty(),
                None => place.starts_with("SALLYPORT__") && !overrides.environment.is_empty(),
            };
            assert!(is_known, "{line}");
        }
        // Up to the first name or number, which there are too many of.
        let words = message.split(' ').filter(|word| word.len() > 3);
        let kind = words.filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()));
        kind.take(4)
            .flat_map(str::bytes)
            .for_each(|byte| way.note(byte.into()));
    }
}

/// The examples of the manual, alone and with something over them.
pub fn seeds() -> Vec<Vec<u8>> {
    let examples = [
        include_str!("../../../docs/config/gateway.toml"),
        include_str!("../../../docs/config/center.toml"),
        include_str!("../../../docs/config/game.toml"),
        include_str!("../../../docs/config/game-walk.toml"),
    ];
    // Without comments: what is changed should be what is read.
    let short = |text: &str| -> String {
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        lines
            .filter(|line| !line.is_empty())
            .flat_map(|line| [line, "\n"])
            .collect()
    };
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for text in examples {
        let file = Lines::default().piece(op::TEXT, short(text).as_bytes());
        seeds.push(file.clone().done());
        let over = file
            .piece(op::ENVIRONMENT, b"LOG__LEVEL=debug")
            .piece(op::ENVIRONMENT, b"ADMIN__LISTEN=[::1]:7001")
            .piece(op::SET, b"log.format=json")
            .piece(op::SET, b"token.keys=a,b");
        seeds.push(over.done());
    }
    seeds
}
