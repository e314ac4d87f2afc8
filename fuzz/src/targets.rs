//! All targets, and what several of them need.

mod backends;
mod client;
mod config;
mod datagrams;
mod envelope;
mod front;
mod handshake;
mod layouts;
mod shard;
mod streams;

use protocol::handshake::Parameters;

use crate::Target;

macro_rules! targets {
    ($($name:literal: $executions:literal, $run:path, $seeds:path;)*) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$(Target {
            name: $name,
            run: $run,
            seeds: $seeds,
            executions: $executions,
        },)*];
    };
}

targets! {
    "body": 30_000, layouts::body, layouts::body_seeds;
    "chunks": 30_000, layouts::chunks, layouts::chunk_and_vector_seeds;
    "setup": 10_000, layouts::setup, layouts::setup_seeds;
    "records": 30_000, layouts::records, layouts::record_seeds;
    "control": 10_000, layouts::control, layouts::control_seeds;
    "world": 20_000, layouts::world, layouts::world_seeds;
    "config": 2_000, config::run, config::seeds;
    "token": 1_000, layouts::token, layouts::token_seeds;
    "compression": 4_000, layouts::compression, layouts::compression_seeds;
    "handshake": 1_000, handshake::run, handshake::seeds;
    "envelope": 6_000, envelope::run, envelope::seeds;
    "reassembly": 4_000, front::reassembly, front::reassembly_seeds;
    "websocket": 10_000, front::websocket, front::websocket_seeds;
    "front": 10_000, front::front, front::front_seeds;
    "stream": 8_000, streams::hostile, streams::hostile_seeds;
    "streams": 5_000, streams::pair, streams::pair_seeds;
    "datagram": 4_000, datagrams::hostile, datagrams::hostile_seeds;
    "datagrams": 1_500, datagrams::pair, datagrams::pair_seeds;
    "client": 1_000, client::stream, client::stream_seeds;
    "client_datagrams": 1_000, client::datagrams, client::datagram_seeds;
    "shard": 1_500, shard::tcp, shard::tcp_seeds;
    "shard_websocket": 1_500, shard::websocket, shard::tcp_seeds;
    "shard_datagrams": 1_500, shard::datagrams, shard::datagram_seeds;
    "shard_backends": 1_500, backends::shard, backends::shard_seeds;
    "center": 4_000, backends::center, backends::center_seeds;
    "stub": 4_000, backends::stub, backends::stub_seeds;
}

/// What a gateway tells in WELCOME here.
const PARAMETERS: Parameters = Parameters {
    frame_bytes_max: 32_768,
    heartbeat_interval_ms: 10_000,
    idle_timeout_ms: 30_000,
    login_timeout_ms: 10_000,
    unix_ms: 1_790_000_000_000,
};

/// Every byte string of the published test vectors.
fn vectors() -> Vec<Vec<u8>> {
    const FILES: [&str; 7] = [
        include_str!("../../docs/vectors/bad.json"),
        include_str!("../../docs/vectors/datagrams.json"),
        include_str!("../../docs/vectors/frames.json"),
        include_str!("../../docs/vectors/handshake.json"),
        include_str!("../../docs/vectors/resume.json"),
        include_str!("../../docs/vectors/token.json"),
        include_str!("../../docs/vectors/websocket.json"),
    ];
    let mut found = Vec::new();
    for file in FILES {
        let file: serde_json::Value = serde_json::from_str(file).expect("our own file");
        collect(&file, &mut found);
    }
    found
}

fn collect(value: &serde_json::Value, found: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::String(text) => {
            let bytes = (0..text.len()).step_by(2).map(|at| {
                let byte = text.get(at..at + 2)?;
                u8::from_str_radix(byte, 16).ok()
            });
            found.extend(bytes.collect::<Option<Vec<u8>>>());
        }
        serde_json::Value::Array(values) => values.iter().for_each(|it| collect(it, found)),
        serde_json::Value::Object(values) => values.values().for_each(|it| collect(it, found)),
        _ => {}
    }
}
