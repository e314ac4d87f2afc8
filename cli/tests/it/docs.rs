//! The pages say what the binary does: every metric stands in OPERATIONS.md, and
//! every key of a role in its commented example. With `SALLYPORT_WRITE_DOCS=1`
//! the table of metrics is written instead of compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

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
    let page_file = root().join("docs/OPERATIONS.md");
    let page = fs::read_to_string(&page_file).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the begin marker");
    let (there, after) = rest.split_once(END).expect("the end marker");
    if std::env::var_os("SALLYPORT_WRITE_DOCS").is_some() {
        fs::write(&page_file, format!("{before}{BEGIN}{table}{END}{after}"))
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
