//! What comes before the frames, over real sockets: PROXY headers, also those
//! that a real HAProxy writes, WebSocket, and TLS.

mod haproxy;
mod proxy;
mod tls;
mod websocket;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::cluster::{Cluster, PATIENCE, Settings, wait_until};

/// A game that wants to know where its players are, and says it in its log.
pub const TELLING: Settings = &["game.client_addresses=true", "log.level=debug"];

/// Connects from an address of this host.
pub fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((from, 0));
    socket.bind(&from.into()).expect("an address of this host");
    socket.connect(&to.into()).expect("it accepts");
    socket.into()
}

/// Waits until the game's log says where this account is.
pub fn expect_address(cluster: &Cluster, account: &str, address: &str) {
    let account = format!("account=\"{account}\"");
    let wanted = format!("address=\"{address}\"");
    wait_until("the game knows the address", PATIENCE, || {
        let log = cluster.game.log();
        let line = log.lines().find(|line| line.contains(&account));
        line.is_some_and(|line| {
            assert!(line.contains(&wanted), "{wanted} is expected: {line}");
            true
        })
    });
}
