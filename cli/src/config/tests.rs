//! What cannot be seen through the binary: defaults that depend on the machine,
//! overrides inside arrays, and what a reload would change.

use super::*;

const KEY: &str = "hNqpNKp-uORldd8hGY_I-_FJnmGCAhMGA1xzNhYThkM";

const MACHINE: Machine = Machine {
    uring: true,
    open_files: 20_000,
};

fn gateway_text() -> String {
    format!(
        "role = \"gateway\"\n\
         [token]\nkeys = [\"{KEY}\"]\n\
         [center]\naddress = \"center:7100\"\nkey = \"{KEY}\"\n\
         [[group]]\nid = 1\nname = \"echo\"\n\
         instances = [{{ address = \"10.0.0.1:7200\", key = \"{KEY}\" }}]\n"
    )
}

fn gateway(set: &[&str], machine: &Machine) -> (GatewayConfig, Vec<Entry>) {
    let overrides = Overrides {
        environment: Vec::new(),
        set: set.iter().map(|text| (*text).to_owned()).collect(),
    };
    let loaded = parse(
        &gateway_text(),
        Path::new("/etc/sallyport"),
        &overrides,
        machine,
    )
    .expect("a good configuration");
    match loaded.role {
        RoleConfig::Gateway(config) => (*config, loaded.entries),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sessions_follow_the_engine_and_the_limit_of_open_files() {
    let sessions = |set: &[&str], machine| gateway(set, &machine).0.limits.sessions_max;
    assert_eq!(sessions(&[], MACHINE), 110_000);
    assert_eq!(sessions(&["engine.kind=epoll"], MACHINE), 20_000 - 256);
    assert_eq!(
        sessions(
            &[],
            Machine {
                uring: false,
                ..MACHINE
            }
        ),
        20_000 - 256
    );
    assert_eq!(
        sessions(
            &[],
            Machine {
                uring: false,
                open_files: u64::MAX
            }
        ),
        110_000
    );
    assert_eq!(
        sessions(
            &[],
            Machine {
                uring: false,
                open_files: 0
            }
        ),
        1
    );
    assert_eq!(sessions(&["limits.sessions_max=5"], MACHINE), 5);
}

#[test]
fn paths_start_at_the_directory_of_the_file() {
    let (config, _) = gateway(&["uplink.identity_file=/run/id"], &MACHINE);
    assert_eq!(
        config.listen.key_file,
        Path::new("/etc/sallyport/gateway.key")
    );
    assert_eq!(config.identity_file, Path::new("/run/id"));
}

#[test]
fn overrides_reach_into_arrays_of_tables() {
    let set = ["group.0.id=9", "group.0.instances.0.address=game:7300"];
    let (config, _) = gateway(&set, &MACHINE);
    assert_eq!(config.groups[0].id, 9);
    assert_eq!(
        config.groups[0].instances[0].peer.address.as_str(),
        "game:7300"
    );
    let overrides = Overrides {
        environment: Vec::new(),
        set: vec!["group.1.id=2".into()],
    };
    let problems =
        parse(&gateway_text(), Path::new(""), &overrides, &MACHINE).expect_err("no group 1");
    assert!(problems[0].message.contains("1 entries"), "{problems:?}");
}

#[test]
fn a_list_can_be_given_with_commas() {
    let other = "DqVFZEJ0Jj_SHk9xPuzp9QY7f-9ICYUkteqJoVwILws";
    let (config, _) = gateway(&[&format!("token.keys={KEY},{other}")], &MACHINE);
    assert_eq!(config.token.keys.len(), 2);
    let (config, _) = gateway(&[&format!("token.keys=[\"{other}\"]")], &MACHINE);
    assert_eq!(config.token.keys[0].to_string(), other);
}

#[test]
fn relations_between_keys_are_checked() {
    for (set, path) in [
        (
            "limits.handshake_timeout_ms=20000",
            "limits.handshake_timeout_ms",
        ),
        (
            "heartbeat.idle_timeout_ms=10000",
            "heartbeat.idle_timeout_ms",
        ),
        ("admin.listen=0.0.0.0:1", "admin.listen"),
        ("admin.token=short", "admin.token"),
    ] {
        let overrides = Overrides {
            environment: Vec::new(),
            set: vec![set.into()],
        };
        let problems = parse(&gateway_text(), Path::new(""), &overrides, &MACHINE).expect_err(set);
        assert!(problems[0].message.starts_with(path), "{problems:?}");
        assert_eq!(problems[0].origin, Origin::Flag(path.into()));
    }
}

#[test]
fn a_reload_tells_live_keys_from_those_that_need_a_restart() {
    let (_, before) = gateway(&[], &MACHINE);
    assert_eq!(changes(&before, &before), []);
    let set = [
        "limits.frames_burst=7",
        "engine.shards=1",
        "log.level=debug",
        "admin.token_file=t",
    ];
    let (_, after) = gateway(&set, &MACHINE);
    let changed = changes(&before, &after);
    let reloadable = |path: &str| {
        changed
            .iter()
            .find(|change| change.path == path)
            .map(|change| change.reloadable)
    };
    assert_eq!(changed.len(), 4, "{changed:?}");
    assert_eq!(reloadable("limits.frames_burst"), Some(true));
    assert_eq!(reloadable("log.level"), Some(true));
    assert_eq!(reloadable("engine.shards"), Some(false));
    assert_eq!(reloadable("admin.token_file"), Some(true));
}

#[test]
fn a_changed_secret_is_noticed_but_not_shown() {
    let (_, before) = gateway(&["admin.token=geheimgeheimgeheim"], &MACHINE);
    let (_, after) = gateway(&["admin.token=anderesanderesanderes"], &MACHINE);
    let changed = changes(&before, &after);
    assert_eq!(changed.len(), 1);
    assert!(!format!("{changed:?}").contains("geheim"), "{changed:?}");
}
