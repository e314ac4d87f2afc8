//! The whole core of a shard in the hands of hostile clients that have done a true handshake: what
//! they seal is whatever the script says. Over TCP, over WebSocket, over datagrams.
//!
//! Checked at each step: what the shard sends opens and decodes, what it forwards is what a backend
//! takes, and what it keeps for somebody is within its bounds. At the end nobody says anything any
//! more, and nothing is left.

pub(super) mod rig;
mod stream;
mod udp;

use crate::script::Lines;

use super::layouts::{bodies, chunk_seeds};

/// A script of TCP clients.
pub fn tcp(data: &[u8]) -> u64 {
    stream::run(data, false)
}

/// A script of WebSocket clients.
pub fn websocket(data: &[u8]) -> u64 {
    stream::run(data, true)
}

/// A script of clients over datagrams.
pub fn datagrams(data: &[u8]) -> u64 {
    udp::run(data)
}

/// Logins, each body before and after them, resumes, faults of uplinks.
pub fn tcp_seeds() -> Vec<Vec<u8>> {
    use stream::op;
    let all = bodies();
    let mut seeds = Vec::new();
    for options in [0, 1, 2, 3, 8, 11] {
        let mut script = Lines::default().raw(&[options, op::CONNECT, op::LOGIN]);
        // The game's SYNC, the client's, a request, a reply.
        script = script.piece(op::GAME, &all[8]).piece(op::BODY, &all[7]);
        script = script.piece(op::BODY, &all[12]).piece(op::GAME, &all[13]);
        for body in &all[9..] {
            script = script.piece(op::BODY, body);
        }
        script = script.raw(&[op::EVENT, 0, op::TIME, 100, 0, op::EVENT, 1]);
        script = script
            .raw(&[op::EVENT, 6, op::RESUME])
            .piece(op::BODY, &all[5]);
        seeds.push(script.piece(op::BODY, &all[2]).done());
        for body in &all {
            let script = Lines::default().raw(&[options, op::CONNECT]);
            seeds.push(
                script
                    .piece(op::BODY, body)
                    .raw(&[op::TIME, 0xff, 0xff])
                    .done(),
            );
        }
    }
    let raw = Lines::default()
        .raw(&[0, op::OPEN])
        .piece(op::RAW, b"GET / HTTP/1.1\r\n");
    seeds.push(raw.done());
    let proxied = Lines::default().raw(&[4, op::OPEN]);
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 443\r\n";
    seeds.push(
        proxied
            .piece(op::RAW, header)
            .raw(&[op::HELLO, op::LOGIN])
            .done(),
    );
    seeds
}

/// Logins, every chunk before and after them, moves, replays.
pub fn datagram_seeds() -> Vec<Vec<u8>> {
    use udp::op;
    // An address gets no more bytes than came from it: these are enough for a challenge, and none
    // of them is an answer to one.
    let mut padding = vec![1];
    for _ in 0..8 {
        protocol::datagram::chunk::Chunk::Response([0; 8]).encode(&mut padding);
    }
    let all = bodies();
    let mut seeds = Vec::new();
    for options in [0, 1, 8] {
        let mut script = Lines::default().raw(&[options, op::CONNECT, 0, op::LOGIN, 0]);
        script = script.piece(op::GAME, &all[8]).raw(&[op::ACK, 0]);
        script = script.piece(op::DATA, &all[7]).piece(op::DATA, &all[12]);
        script = script.piece(op::GAME, &all[13]).raw(&[op::ACK, 0]);
        // To another address and back.
        script = script.piece(op::CHUNKS, &padding);
        script = script.raw(&[op::RESPOND, 1, op::CID, op::ACK, 1, op::TIME, 50, 0]);
        script = script.piece(op::GAME, &[all[13].clone(), vec![7; 2_000]].concat());
        script = script.raw(&[op::ACK, 2, op::TIME, 0, 8, op::AGAIN, 0, 1, op::EVENT, 0]);
        seeds.push(script.piece(op::DATA, &all[2]).done());
        for chunks in chunk_seeds() {
            let early = Lines::default().raw(&[options, op::CONNECT, 0]);
            seeds.push(
                early
                    .piece(op::CHUNKS, &[&[0], &chunks[..]].concat())
                    .done(),
            );
        }
    }
    // Moves before the login, and segments far ahead of it.
    let moved = Lines::default().raw(&[0, op::CONNECT, 0]);
    let moved = moved
        .piece(op::CHUNKS, &padding)
        .raw(&[op::RESPOND, 1, op::LOGIN, 1]);
    seeds.push(moved.raw(&[op::CONNECT, 0, op::LOGIN, 0]).done());
    let mut ahead = Lines::default().raw(&[0, op::CONNECT, 0]);
    for number in (1..60).rev() {
        let mut chunk = vec![0];
        protocol::datagram::chunk::Chunk::Data {
            flags: 0,
            number,
            bytes: &[7; 100],
        }
        .encode(&mut chunk);
        ahead = ahead.piece(op::CHUNKS, &chunk);
    }
    seeds.push(ahead.done());
    seeds
}
