//! A side path: how it is opened, its keys, and its first two datagrams.

use anyhow::{Context, ensure};
use protocol::body::Body;
use protocol::cipher::RekeyPolicy;
use protocol::datagram::chunk::{Chunk, Chunks};
use protocol::datagram::side::SideKeys;
use protocol::datagram::{Cid, End, split};
use protocol::limits::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX};
use protocol::time::Time;
use serde::Serialize;

use super::{CLIENT_MS, GATEWAY_MS, hex, rising};

/// Shard 2, and seven bytes that are random in life.
const CID: Cid = Cid(0x0807_0605_0403_0202);

/// What each end asks first.
const CHALLENGE: [u8; 8] = [0; 8];

#[derive(Serialize)]
pub struct File {
    version: u32,
    side: Side,
}

#[derive(Serialize)]
struct Side {
    side_open_body: String,
    connection_id: String,
    secret: String,
    side_body: String,
    client_key: String,
    gateway_key: String,
    client_timestamp: u32,
    gateway_timestamp: u32,
    challenge: String,
    client_datagram: String,
    gateway_datagram: String,
}

fn end(seal: &protocol::cipher::Key, open: &protocol::cipher::Key, now: Time) -> End {
    let (seal, open) = (seal.clone(), open.clone());
    let policy = RekeyPolicy::default();
    End::new(CID, seal, open, policy, None, FRAME_BYTES_MAX, now)
}

fn write(end: &mut End, now: Time) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    ensure!(
        end.write(now, DATAGRAM_BYTES_MAX, &mut out),
        "nothing to send"
    );
    Ok(out)
}

/// The file.
pub fn file() -> anyhow::Result<File> {
    let secret = rising(0x60);
    let keys = SideKeys::derive(&secret);
    let at = |ms: u32| Time(0).after_ms(u64::from(ms));
    let (mut open_body, mut side_body) = (Vec::new(), Vec::new());
    Body::SideOpen.encode(&mut open_body);
    let (cid, secret) = (CID, &secret);
    Body::Side { cid, secret }.encode(&mut side_body);

    let mut client = end(&keys.client, &keys.gateway, at(CLIENT_MS));
    client.set_challenge(Some(CHALLENGE));
    client.pad();
    let client_datagram = write(&mut client, at(CLIENT_MS))?;
    ensure!(
        client_datagram.len() == DATAGRAM_BYTES_MAX,
        "it is not padded"
    );

    let mut gateway = end(&keys.gateway, &keys.client, at(GATEWAY_MS));
    let mut copy = client_datagram.clone();
    let (_, frame) = split(&mut copy).context("no sealed datagram")?;
    let Ok(opened) = gateway.open(at(GATEWAY_MS), frame) else {
        anyhow::bail!("the gateway refuses the client's datagram");
    };
    for chunk in Chunks::new(opened.body) {
        if let Ok(Chunk::Challenge(token)) = chunk {
            gateway.handle_challenge(token);
        }
    }
    let gateway_datagram = write(&mut gateway, at(GATEWAY_MS))?;
    Ok(File {
        version: 1,
        side: Side {
            side_open_body: hex(&open_body),
            connection_id: hex(&CID.0.to_le_bytes()),
            secret: hex(secret),
            side_body: hex(&side_body),
            client_key: hex(&keys.client.0),
            gateway_key: hex(&keys.gateway.0),
            client_timestamp: CLIENT_MS,
            gateway_timestamp: GATEWAY_MS,
            challenge: hex(&CHALLENGE),
            client_datagram: hex(&client_datagram),
            gateway_datagram: hex(&gateway_datagram),
        },
    })
}
