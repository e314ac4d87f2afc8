//! Who is not let in: networks that center names, versions that nobody takes.

use std::net::SocketAddr;
use std::sync::Arc;

use protocol::client::{Client, Closed};
use protocol::control::{BannedNetwork, Networks};

use super::*;
use crate::shard::{ALL_VERSIONS, GroupConfig};

fn at(ip: [u8; 4], port: u16) -> Option<SocketAddr> {
    Some((ip, port).into())
}

/// 10.1.0.0/16, as center tells it.
fn network(until_unix_ms: u64, lifted: bool) -> BannedNetwork {
    let address = std::net::Ipv4Addr::new(10, 1, 0, 0).to_ipv6_mapped();
    BannedNetwork {
        address: address.octets().to_vec(),
        prefix: 96 + 16,
        until_unix_ms,
        lifted,
    }
}

impl World {
    fn tell(&mut self, first: bool, networks: Vec<BannedNetwork>) {
        self.control(0, to_shard::Message::Networks(Networks { first, networks }));
        self.collect();
    }

    /// Whether somebody from there is let in so far.
    fn takes(&mut self, index: u32, peer: Option<SocketAddr>) -> bool {
        let id = ConnId {
            index,
            generation: 0,
        };
        let before = self.shard.counters.closes(CloseReason::Banned);
        self.shard.handle_accepted(self.now, id, peer);
        self.collect();
        self.shard.counters.closes(CloseReason::Banned) == before
    }
}

#[test]
fn a_banned_network_is_closed_and_kept_out() {
    let mut world = World::new(config());
    // More than one turn of the sweep looks at.
    for index in 0..1_200 {
        let ip = if index % 3 == 0 {
            [10, 1, 2, 3]
        } else {
            [10, 2, 2, 3]
        };
        let id = ConnId {
            index,
            generation: 0,
        };
        world.shard.config.connections_before_login_max = 2_000;
        world
            .shard
            .handle_accepted(world.now, id, at(ip, index as u16));
    }
    world.tell(false, vec![network(0, false)]);
    while world.shard.ban_sweep.is_some() {
        world.collect();
    }
    assert_eq!(world.shard.counters.closes(CloseReason::Banned), 400);
    assert!(!world.takes(2_000, at([10, 1, 255, 255], 1)));
    assert!(world.takes(2_001, at([10, 2, 0, 1], 1)));
    assert!(world.takes(2_002, None));
    world.tell(false, vec![network(0, true)]);
    assert!(world.takes(2_003, at([10, 1, 0, 1], 1)));
    let until = world.now.unix_ms + 1_000;
    world.tell(false, vec![network(until, false)]);
    assert!(!world.takes(2_004, at([10, 1, 0, 1], 1)));
    world.pass(1_000);
    assert!(world.takes(2_005, at([10, 1, 0, 1], 1)));
    world.tell(false, vec![network(0, false)]);
    assert!(!world.takes(2_006, at([10, 1, 0, 1], 1)));
    // Center has come back, and knows of none.
    world.tell(true, vec![]);
    assert!(world.takes(2_007, at([10, 1, 0, 1], 1)));
}

#[test]
fn what_is_no_network_is_passed_over() {
    let mut world = World::new(config());
    let mut bad = network(0, false);
    bad.prefix = 129;
    let mut short = network(0, false);
    short.address.pop();
    world.tell(false, vec![bad, short]);
    assert!(world.takes(1, at([10, 1, 0, 1], 1)));
}

/// How the login of a client of this version ends, and what it is told.
fn outcome(world: &mut World, index: u32, version: u32) -> (Option<CloseReason>, String) {
    let mut config = testing::client_config(world.token());
    config.client_version = version;
    let client = Client::connect(config, [index as u8 + 1; 32], world.now.time);
    let mut client = client.expect("a usable key");
    let id = ConnId {
        index,
        generation: 0,
    };
    world.shard.handle_accepted(world.now, id, None);
    let events = world.exchange(id, &mut client);
    let closed = format!(
        "{:?}",
        Closed::ByGateway(Some(CloseReason::UpgradeRequired))
    );
    let refused = events.iter().any(|event| event.contains(&closed));
    let reason = refused.then_some(CloseReason::UpgradeRequired);
    assert!(refused || client.session().is_some(), "{events:?}");
    (reason, client.close_text().to_owned())
}

#[test]
fn a_version_that_nobody_takes_is_told_where_there_is_another() {
    let mut config = config();
    config.version_min = 5;
    config.upgrade_address = Arc::from("https://game.example/get");
    config.groups[0].instances = vec![0..=19];
    let mut world = World::new(config);
    let refused = (
        Some(CloseReason::UpgradeRequired),
        "https://game.example/get".to_owned(),
    );
    assert_eq!(outcome(&mut world, 0, 4), refused);
    assert_eq!(outcome(&mut world, 1, 5), (None, String::new()));
    assert_eq!(outcome(&mut world, 2, 19), (None, String::new()));
    assert_eq!(outcome(&mut world, 3, 20), refused);
    let claims = world.shard.counters.logins.value();
    assert_eq!(claims, 2, "center was not asked about the others");
}

#[test]
fn sessions_go_to_an_instance_of_their_version() {
    let mut config = config();
    config.groups = vec![GroupConfig {
        group: GROUP,
        instances: vec![1..=9, 10..=19, ALL_VERSIONS],
    }];
    let mut world = World::new(config);
    world.link(GAME + 1, u32::from(GROUP.0));
    for index in 0..24 {
        let version = if index % 2 == 0 { 3 } else { 12 };
        outcome(&mut world, index, version);
    }
    let mut at = [[0; 3]; 2];
    for connection in world.shard.connections.iter().flatten() {
        let session = connection.session().expect("logged in");
        let uplink = session.bindings[0].uplink.expect("bound");
        at[usize::from(session.client_version == 12)][usize::from(uplink) - GAME] += 1;
    }
    // The third instance is not up.
    assert_eq!(at, [[12, 0, 0], [0, 12, 0]]);
    world.link(GAME + 2, u32::from(GROUP.0));
    for index in 24..64 {
        outcome(&mut world, index, 12);
    }
    let mut later = [0; 3];
    for connection in world.shard.connections.iter().flatten().skip(24) {
        let session = connection.session().expect("logged in");
        later[usize::from(session.bindings[0].uplink.expect("bound")) - GAME] += 1;
    }
    assert_eq!(later[0], 0);
    assert!(later[1] > 5 && later[2] > 5, "{later:?}");
}
