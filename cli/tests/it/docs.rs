//! The pages say what the binary does: every metric stands in OPERATIONS.md, and
//! every key of a role in its commented example and in the table of what is live. With
//! `SALLYPORT_WRITE_DOCS=1` the tables are written instead of compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sallyport::config::{Machine, Overrides, load};

use crate::dev::dev;
use crate::launch::get;
use crate::{run, sallyport};

const BEGIN: &str = "<!-- metrics:begin (checked by a test of the binary) -->\n";
const END: &str = "<!-- metrics:end -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Name, kind and help of each metric, as the exposition format tells them.
fn table(metrics: &str) -> String {
    let mut helps = BTreeMap::new();
    let mut table = String::from("| metric | kind | meaning |\n|---|---|---|\n");
    for line in metrics.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            helps.insert(name, help);
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let help = helps.get(name).expect("HELP stands before TYPE");
            table += &format!("| `{name}` | {kind} | {help} |\n");
        }
    }
    table
}

#[test]
fn every_metric_stands_in_the_operations_page() {
    let (_process, _, admin) = dev(&[]);
    let table = table(&get(&admin, "/metrics").1);
    compare_or_write(BEGIN, END, &table);
}

const KEYS_BEGIN: &str = "<!-- keys:begin (checked by a test of the binary) -->\n";
const KEYS_END: &str = "<!-- keys:end -->";

/// Keys that have no value unless somebody gives one.
const OPTIONAL: [(&str, &str); 5] = [
    ("gateway", "listen.tls_cert_file=a"),
    ("gateway", "listen.tls_key_file=a"),
    ("gateway", "versions.upgrade_address=a"),
    ("", "admin.token=0123456789abcdef"),
    ("", "admin.token_file=a"),
];

/// Which keys of which role are live, by their names without positions.
fn keys_by_role() -> BTreeMap<String, [Option<bool>; 3]> {
    let mut keys = BTreeMap::<String, [Option<bool>; 3]>::new();
    let roles = ["gateway", "center", "game"];
    for (name, token) in [
        ("gateway", 3),
        ("gateway", 4),
        ("center", 3),
        ("center", 4),
        ("game", 3),
        ("game", 4),
        ("game-walk", 3),
    ] {
        let at = roles.iter().position(|role| name.starts_with(role));
        let at = at.expect("a role");
        let set = OPTIONAL[..3].iter().chain([&OPTIONAL[token]]);
        let set = set.filter(|(role, _)| role.is_empty() || *role == name);
        let overrides = Overrides {
            environment: Vec::new(),
            set: set.map(|(_, set)| (*set).to_owned()).collect(),
        };
        let machine = Machine {
            uring: true,
            open_files: 1 << 20,
        };
        let file = root().join(format!("docs/config/{name}.toml"));
        let loaded = load(&file, &overrides, &machine).expect("a good example");
        for entry in loaded.entries {
            let steps = entry.path.split('.');
            let steps: Vec<_> = steps.filter(|step| step.parse::<u32>().is_err()).collect();
            keys.entry(steps.join(".")).or_default()[at] = Some(entry.reloadable);
        }
    }
    keys
}

#[test]
fn the_operations_page_says_which_keys_are_live() {
    let mut table = String::from("| key | gateway | center | game |\n|---|---|---|---|\n");
    let keys = keys_by_role();
    for (key, roles) in &keys {
        let [gateway, center, game] = roles.map(|live| match live {
            Some(true) => "live",
            Some(false) => "restart",
            None => "",
        });
        table += &format!("| `{key}` | {gateway} | {center} | {game} |\n");
    }
    compare_or_write(KEYS_BEGIN, KEYS_END, &table);

    // What an example mentions, be it in a comment, is in the table.
    for name in ["gateway", "center", "game", "game-walk"] {
        let file = root().join(format!("docs/config/{name}.toml"));
        for line in fs::read_to_string(&file).expect("the example").lines() {
            let line = line.trim_start_matches(['#', ' ']);
            let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' '))
            else {
                continue;
            };
            let is_there = keys.keys().any(|path| path.rsplit('.').next() == Some(key));
            assert!(
                is_there || key == "instances",
                "{name}: {key} is not in the table"
            );
        }
    }
}

/// Compares a part of the operations page, or writes it.
fn compare_or_write(begin: &str, end: &str, table: &str) {
    let page_file = root().join("docs/OPERATIONS.md");
    // Several tests write it.
    let lock = fs::File::open(&page_file).expect("the page");
    lock.lock().expect("a lock");
    let page = fs::read_to_string(&page_file).expect("the page");
    let (before, rest) = page.split_once(begin).expect("the begin marker");
    let (there, after) = rest.split_once(end).expect("the end marker");
    if std::env::var_os("SALLYPORT_WRITE_DOCS").is_some() {
        fs::write(&page_file, format!("{before}{begin}{table}{end}{after}"))
            .expect("the page is written");
    } else {
        assert_eq!(
            there, table,
            "stale: run this test with SALLYPORT_WRITE_DOCS=1"
        );
    }
}

#[test]
fn every_key_of_a_role_stands_in_its_example() {
    for name in ["gateway", "center", "game", "game-walk"] {
        let file = root().join(format!("docs/config/{name}.toml"));
        let example = fs::read_to_string(&file).expect("the example");
        let path = file.to_str().expect("UTF-8");
        let outcome = run(Path::new("."), &["config", "--config", path, "--effective"]);
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        for line in outcome.out.lines() {
            let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' '))
            else {
                continue;
            };
            assert!(example.contains(key), "{name}.toml does not mention {key}");
        }
    }
}

#[test]
fn the_commands_of_the_readme_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the page");
    let mut checked = 0;
    for line in readme.lines() {
        let Some(rest) = line.trim().strip_prefix("sallyport ") else {
            continue;
        };
        let command = rest.split_whitespace().next().expect("a command");
        let output = sallyport(Path::new("."), &[command, "--help"])
            .output()
            .expect("the binary starts");
        assert!(
            output.status.success(),
            "{command} of the README does not exist"
        );
        checked += 1;
    }
    assert!(checked >= 5);
}
