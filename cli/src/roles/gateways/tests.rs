//! That each key of a gateway that is called live is, and no other.

use std::path::Path;

use crate::config::{self, Entry, Machine, Overrides};

use super::*;

const KEYS: [&str; 2] = [
    "hNqpNKp-uORldd8hGY_I-_FJnmGCAhMGA1xzNhYThkM",
    "DqVFZEJ0Jj_SHk9xPuzp9QY7f-9ICYUkteqJoVwILws",
];

/// Live beside the shards: what logs, what looks tokens and certificates up, the admin port.
const ELSEWHERE: [&str; 8] = [
    "log.level",
    "token.audience",
    "token.keys",
    "token.key_files",
    "listen.tls_cert_file",
    "listen.tls_key_file",
    "admin.token",
    "admin.token_file",
];

fn read(set: &[String]) -> Option<(GatewayConfig, Vec<Entry>)> {
    let key = KEYS[0];
    let text = format!(
        "role = \"gateway\"\n\
         [token]\nkeys = [\"{key}\"]\nkey_files = [\"a\"]\n\
         [center]\naddress = \"center:7100\"\nkey = \"{key}\"\n\
         [versions]\nupgrade_address = \"https://game.example\"\n\
         [[group]]\nid = 1\nname = \"echo\"\n\
         instances = [{{ address = \"10.0.0.1:7200\", key = \"{key}\" }}]\n\
         [listen]\nproxy_trusted = [\"10.0.0.0/8\"]\nudp = false\n\
         tls_cert_file = \"a.pem\"\ntls_key_file = \"a.key\"\n\
         [limits]\nsessions_max = 1000\nconnections_before_login_max = 1000\n\
         [admin]\ntoken_file = \"a\"\n"
    );
    let overrides = Overrides {
        environment: Vec::new(),
        set: set.to_vec(),
    };
    let machine = Machine {
        uring: true,
        open_files: 20_000,
    };
    let loaded = config::read(Path::new("gateway.toml"), &text, &overrides, &machine).ok()?;
    match loaded.role {
        RoleConfig::Gateway(config) => Some((*config, loaded.entries)),
        _ => None,
    }
}

/// The configuration with another value for one key.
fn altered(entry: &Entry) -> Option<(GatewayConfig, Vec<Entry>)> {
    let number = entry.value.parse::<u64>().unwrap_or(0);
    let numbers = [number + 1, number.saturating_sub(1)].map(|number| number.to_string());
    let words = [
        "true",
        "false",
        "drop",
        "disconnect",
        "debug",
        "json",
        "epoll",
        "each",
        "required",
        "127.0.0.1:9",
        "192.0.2.0/24",
        "https://other.example",
        "10..=19",
        KEYS[1],
        "other",
    ];
    let values = numbers.iter().map(String::as_str).chain(words);
    values
        .filter_map(|value| read(&[format!("{}={value}", entry.path)]))
        .find(|(_, entries)| {
            let now = entries.iter().find(|it| it.path == entry.path);
            now.is_some_and(|now| now.value != entry.value)
        })
}

#[test]
fn what_is_called_live_is_taken_over_and_nothing_else() {
    let fixed = Fixed {
        shards: 1,
        boot: 1,
        key: StaticKey::from_secret([7; 32]),
        usage: Arc::new(Usage::new(16, [1, 2])),
        tickets: Arc::default(),
    };
    let (config, entries) = read(&[]).expect("a good configuration");
    let before = fixed.shard_config(&config);
    let mut live = 0;
    for entry in entries.iter().filter(|entry| entry.path != "role") {
        let Some((new, _)) = altered(entry) else {
            panic!("no other value for {}", entry.path);
        };
        let mut after = before.clone();
        after.take_live(fixed.shard_config(&new));
        let is_taken = format!("{before:?}") != format!("{after:?}");
        let expected = entry.reloadable && !ELSEWHERE.contains(&entry.path.as_str());
        assert_eq!(is_taken, expected, "{}", entry.path);
        live += usize::from(entry.reloadable);
    }
    assert!(live >= 35, "{live}");
    for path in ELSEWHERE.iter().filter(|path| **path != "admin.token") {
        let entry = entries.iter().find(|entry| entry.path == *path);
        assert!(entry.is_some_and(|entry| entry.reloadable), "{path}");
    }
}

#[test]
fn versions_of_other_instances_wait_for_a_restart() {
    let (config, _) = read(&[]).expect("good");
    let set = "group.0.instances.0.client_versions=10..=19".to_owned();
    let (versions, _) = read(std::slice::from_ref(&set)).expect("good");
    assert!(has_same_instances(&config, &versions));
    let moved = "group.0.instances.0.address=10.0.0.2:7200".to_owned();
    let (both, entries) = read(&[set, moved]).expect("good");
    assert!(!has_same_instances(&config, &both));
    let changes = config::changes(&read(&[]).expect("good").1, &entries);
    assert_eq!(changes.len(), 2);
    assert!(
        changes.iter().all(|change| !change.reloadable),
        "{changes:?}"
    );
}

#[test]
fn a_process_is_not_given_what_it_has_no_room_for() {
    let (config, _) = read(&[]).expect("good");
    let (more, _) = read(&["limits.sessions_max=200000".to_owned()]).expect("good");
    let why = check_live(&config, &more, 150_000).expect_err("no room");
    assert!(why.to_string().contains("limits.sessions_max = 200000"));
    check_live(&config, &config, 150_000).expect("it is the same");
}
