//! Whole conversations that somebody has recorded and plays again: on a connection
//! of their own, and behind themselves.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use protocol::frame::{FLAG_HANDSHAKE, Header};
use protocol::reason::{CloseReason, DropReason};

use super::with_neighbour;
use crate::cluster::raw::Raw;
use crate::cluster::{Cluster, PATIENCE};

/// Plays it to the gateway; what that says, to the end.
fn play(cluster: &Cluster, recorded: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(cluster.address()).expect("the gateway accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(recorded).expect("the gateway takes it");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("the end, in order");
    said
}

#[test]
fn a_recorded_conversation_is_worth_nothing() {
    with_neighbour(|cluster, calm| {
        // What still comes after the frame that does not verify.
        calm.tolerate(DropReason::AfterClose);
        for (account, websocket) in [("tcp", false), ("websocket", true)] {
            let mut raw = Raw::connect(cluster).record();
            if websocket {
                raw = raw.upgraded(b"", "");
            }
            raw.greet(&cluster.gateway_key);
            raw.login(&cluster.token(account));
            for round in 0..20_u8 {
                raw.round_trip(&[round; 100]);
            }
            let logins = cluster
                .metrics("gateway")
                .value("sallyport_gateway_logins_total");
            let connected = cluster
                .metrics("game")
                .value("sallyport_game_connected_total");
            let recorded = raw.recorded().to_vec();
            for _ in 0..20 {
                let said = play(cluster, &recorded);
                calm.closed(CloseReason::BadSeal, 1);
                if websocket {
                    // The last message of all is the close frame: 4006, in the clear.
                    let close = [&[0x88, 10][..], &4_006_u16.to_be_bytes(), b"bad_seal"].concat();
                    assert!(said.ends_with(&close), "{said:x?}");
                } else {
                    // WELCOME to the same HELLO, under keys that nobody has recorded; then CLOSE.
                    let welcome = Header::decode(&said).expect("a header");
                    assert_eq!(welcome.flags, FLAG_HANDSHAKE);
                    let close = Header::decode(&said[welcome.length as usize..]);
                    assert_eq!(close.expect("a header").flags, 0);
                }
            }
            // Behind itself, HELLO is no sealed frame.
            raw.round_trip(b"still the one who is meant");
            let gateway = cluster.metrics("gateway");
            assert_eq!(gateway.value("sallyport_gateway_logins_total"), logins);
            let game = cluster.metrics("game");
            assert_eq!(game.value("sallyport_game_connected_total"), connected);
            raw.stream
                .write_all(&recorded)
                .expect("the gateway takes it");
            let reason = match websocket {
                false => CloseReason::BadFlags,
                true => CloseReason::BadWebsocket,
            };
            raw.expect_close(reason);
            calm.closed(reason, 1);
        }
    });
}
