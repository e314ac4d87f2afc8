//! Datagrams (PROTOCOL §12): those that set a connection up, sealed ones with each chunk, and those
//! that are dropped or close. What a receiver says of each is what the protocol crate says.

use anyhow::{Context, ensure};
use protocol::body::Body;
use protocol::cipher::{Key, RekeyPolicy};
use protocol::datagram::chunk::{Ack, COMPRESSED, Chunk, Chunks, MORE};
use protocol::datagram::cookie::COOKIE_BYTES;
use protocol::datagram::hello::{self, Setup};
use protocol::datagram::{CID_BYTES, Cid, End, split};
use protocol::frame::{FLAG_COMPRESSED, FLAG_HANDSHAKE, FLAG_KEY_PHASE};
use protocol::limits::DATAGRAM_BYTES_MAX;
use protocol::reason::{CloseReason, DropReason};
use protocol::time::Time;
use serde::Serialize;
use serde_json::{Value, json};

use super::seal::seal;
use super::{CLIENT_MS, hex, rising};

const NONCE: u64 = 0x0807_0605_0403_0201;
const CID: Cid = Cid(0x1716_1514_1312_1103);
const NEW_CID: Cid = Cid(0x2726_2524_2322_2103);

#[derive(Serialize)]
pub struct File {
    version: u32,
    setup: Vec<Value>,
    bad_setup: Vec<BadSetup>,
    datagrams: Vec<Datagram>,
    bad_datagrams: Vec<Bad>,
}

#[derive(Serialize)]
struct BadSetup {
    name: &'static str,
    datagram: String,
}

#[derive(Serialize)]
struct Datagram {
    name: &'static str,
    key: String,
    sequence: u64,
    key_phase: u8,
    timestamp: u32,
    connection_id: String,
    chunks: Vec<Value>,
    body: String,
    datagram: String,
}

#[derive(Serialize)]
struct Bad {
    name: &'static str,
    key: String,
    key_phase: u8,
    opened: Vec<u64>,
    datagram: String,
    reason: &'static str,
}

/// The file. `hello` and `welcome` are the frames of the handshake.
pub fn file(hello: &[u8], welcome: &[u8]) -> anyhow::Result<File> {
    Ok(File {
        version: 1,
        setup: setup(hello, welcome)?,
        bad_setup: bad_setup(hello)?,
        datagrams: datagrams()?,
        bad_datagrams: bad_datagrams()?,
    })
}

fn encoded(setup: &Setup<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    hello::encode(NONCE, setup, &mut out);
    out
}

fn setup(hello: &[u8], welcome: &[u8]) -> anyhow::Result<Vec<Value>> {
    let cookie: [u8; COOKIE_BYTES] = std::array::from_fn(|at| 0xa0 + at as u8);
    let mut reject = Vec::new();
    protocol::handshake::reject(CloseReason::Full, CLIENT_MS, &mut reject);
    let cid = hex(&CID.0.to_le_bytes());
    let examples = [
        (
            "INIT without a cookie",
            Setup::Init {
                cookie: &[0; COOKIE_BYTES],
                hello,
            },
            json!({"type": 1, "cookie": hex(&[0; COOKIE_BYTES]), "frame": hex(hello)}),
        ),
        (
            "RETRY",
            Setup::Retry { cookie: &cookie },
            json!({"type": 2, "cookie": hex(&cookie)}),
        ),
        (
            "INIT with a cookie",
            Setup::Init {
                cookie: &cookie,
                hello,
            },
            json!({"type": 1, "cookie": hex(&cookie), "frame": hex(hello)}),
        ),
        (
            "ACCEPT",
            Setup::Accept { cid: CID, welcome },
            json!({"type": 3, "connection_id": cid, "frame": hex(welcome)}),
        ),
        (
            "REFUSE",
            Setup::Refuse { reject: &reject },
            json!({"type": 4, "frame": hex(&reject)}),
        ),
    ];
    let mut found = Vec::new();
    for (name, message, mut fields) in examples {
        let datagram = encoded(&message);
        ensure!(
            hello::decode(&datagram) == Some((NONCE, message)),
            "{name} does not decode"
        );
        fields["name"] = json!(name);
        fields["nonce"] = json!(hex(&NONCE.to_le_bytes()));
        fields["datagram"] = json!(hex(&datagram));
        found.push(fields);
    }
    Ok(found)
}

fn bad_setup(hello: &[u8]) -> anyhow::Result<Vec<BadSetup>> {
    let init = encoded(&Setup::Init {
        cookie: &[0; COOKIE_BYTES],
        hello,
    });
    let retry = encoded(&Setup::Retry {
        cookie: &[0; COOKIE_BYTES],
    });
    let changed = |at: usize, to: u8| {
        let mut copy = init.clone();
        copy[at] = to;
        copy
    };
    let examples = [
        ("INIT that is a byte short", init[..init.len() - 1].to_vec()),
        ("INIT that is a byte long", [&init[..], &[0]].concat()),
        ("another version", changed(2, 2)),
        ("the reserved byte is not 0", changed(3, 1)),
        ("the padding is not 0", changed(DATAGRAM_BYTES_MAX - 1, 1)),
        ("a type that is not defined", changed(1, 5)),
        (
            "RETRY that is a byte short",
            retry[..retry.len() - 1].to_vec(),
        ),
        ("a head that is cut", retry[..11].to_vec()),
    ];
    let mut found = Vec::new();
    for (name, datagram) in examples {
        ensure!(hello::decode(&datagram).is_none(), "{name} decodes");
        found.push(BadSetup {
            name,
            datagram: hex(&datagram),
        });
    }
    Ok(found)
}

fn key() -> Key {
    Key(rising(0x60))
}

fn ping() -> Vec<u8> {
    let mut body = Vec::new();
    Body::GroupDown {
        group: protocol::ids::GroupId(1),
    }
    .encode(&mut body);
    body
}

/// A sealed datagram, made by hand.
fn sealed(key: &Key, sequence: u64, flags: u8, chunks: &[u8]) -> Vec<u8> {
    let mut datagram = CID.0.to_le_bytes().to_vec();
    datagram.extend_from_slice(&seal(key, sequence, flags, CLIENT_MS, chunks));
    datagram
}

fn fields(chunk: &Chunk<'_>) -> Value {
    match *chunk {
        Chunk::Data {
            flags,
            number,
            bytes,
        } => json!({"chunk": 1, "flags": flags, "number": number, "data": hex(bytes)}),
        Chunk::Ack(ack) => {
            json!({"chunk": 2, "delay": ack.delay_us / 10, "next": ack.next, "bitmap": ack.bitmap})
        }
        Chunk::Body { flags, bytes } => json!({"chunk": 3, "flags": flags, "data": hex(bytes)}),
        Chunk::Challenge(token) => json!({"chunk": 4, "data": hex(&token)}),
        Chunk::Response(token) => json!({"chunk": 5, "data": hex(&token)}),
        Chunk::NewCid(cid) => json!({"chunk": 6, "data": hex(&cid.0.to_le_bytes())}),
        Chunk::Padding(bytes) => json!({"chunk": 7, "data": "00".repeat(bytes - 1)}),
    }
}

fn datagrams() -> anyhow::Result<Vec<Datagram>> {
    let body = ping();
    let data = |flags, number| Chunk::Data {
        flags,
        number,
        bytes: &body,
    };
    let ack = |next, bitmap, delay_us| {
        Chunk::Ack(Ack {
            next,
            bitmap,
            delay_us,
        })
    };
    let direct = |flags| Chunk::Body {
        flags,
        bytes: &body,
    };
    let token = rising(0x30);
    let token = *token.first_chunk().context("32 bytes")?;
    let examples: Vec<(&str, u64, bool, Vec<Chunk<'_>>)> = vec![
        ("a segment with a whole body", 0, false, vec![data(0, 0)]),
        ("the first segment of a body", 1, false, vec![data(MORE, 1)]),
        (
            "the last segment of a compressed body",
            2,
            false,
            vec![data(COMPRESSED, u32::MAX)],
        ),
        ("ACK, nothing early", 3, false, vec![ack(7, 0, 0)]),
        (
            "ACK with a bitmap of two bytes",
            4,
            false,
            vec![ack(7, 0x0105, 12_340)],
        ),
        (
            "ACK with the longest bitmap and delay",
            5,
            false,
            vec![ack(u32::MAX, u64::MAX, 655_350)],
        ),
        ("BODY", 6, false, vec![direct(0)]),
        ("BODY, compressed", 7, false, vec![direct(COMPRESSED)]),
        ("CHALLENGE", 8, false, vec![Chunk::Challenge(token)]),
        ("RESPONSE", 9, false, vec![Chunk::Response(token)]),
        ("NEW_CID", 10, false, vec![Chunk::NewCid(NEW_CID)]),
        (
            "several chunks",
            11,
            false,
            vec![
                ack(2, 1, 250),
                Chunk::NewCid(NEW_CID),
                direct(0),
                data(0, 9),
            ],
        ),
        ("after a rekey", 2_048, true, vec![data(0, 10)]),
        (
            "a sequence beyond 32 bits",
            (1 << 32) + 5,
            false,
            vec![direct(0)],
        ),
    ];
    let mut found = Vec::new();
    for (name, sequence, phase, chunks) in examples {
        let mut encoded = Vec::new();
        for chunk in &chunks {
            chunk.encode(&mut encoded);
        }
        let again: Result<Vec<_>, _> = Chunks::new(&encoded).collect();
        ensure!(again.as_ref() == Ok(&chunks), "{name} does not decode");
        let key = if phase { key().next() } else { key() };
        let flags = if phase { FLAG_KEY_PHASE } else { 0 };
        let datagram = sealed(&key, sequence, flags, &encoded);
        ensure!(datagram.len() <= DATAGRAM_BYTES_MAX, "{name} is too long");
        found.push(Datagram {
            name,
            key: hex(&key.0),
            sequence,
            key_phase: u8::from(phase),
            timestamp: CLIENT_MS,
            connection_id: hex(&CID.0.to_le_bytes()),
            chunks: chunks.iter().map(fields).collect(),
            body: hex(&encoded),
            datagram: hex(&datagram),
        });
    }
    Ok(found)
}

/// What a receiver says that has opened these sequences before.
fn reason(opened: &[u64], datagram: &[u8]) -> anyhow::Result<Option<&'static str>> {
    let now = Time(0).after_ms(u64::from(CLIENT_MS));
    let (policy, other) = (RekeyPolicy::default(), Key([0; 32]));
    let mut end = End::new(CID, other, key(), policy, None, 32_768, now);
    let chunk = ping_chunk();
    for &sequence in opened {
        let mut datagram = sealed(&key(), sequence, 0, &chunk);
        let (_, frame) = split(&mut datagram).context("a datagram")?;
        ensure!(end.open(now, frame).is_ok(), "{sequence} does not open");
    }
    let mut copy = datagram.to_vec();
    let Some((_, frame)) = split(&mut copy) else {
        return Ok(Some(DropReason::DatagramMalformed.label()));
    };
    Ok(match end.open(now, frame) {
        Err(reason) => Some(reason.label()),
        Ok(opened) => Chunks::new(opened.body)
            .any(|chunk| chunk.is_err())
            .then_some(CloseReason::BadBody.label()),
    })
}

fn ping_chunk() -> Vec<u8> {
    let mut chunk = Vec::new();
    Chunk::Body {
        flags: 0,
        bytes: &ping(),
    }
    .encode(&mut chunk);
    chunk
}

fn bad_datagrams() -> anyhow::Result<Vec<Bad>> {
    let good = ping_chunk();
    let at = |at: usize, by: u8| {
        let mut datagram = sealed(&key(), 5, 0, &good);
        datagram[at] ^= by;
        datagram
    };
    let mut mended = at(CID_BYTES + 17, 1);
    protocol::frame::write_crc(&mut mended[CID_BYTES..]);
    let long = vec![7; DATAGRAM_BYTES_MAX - 39];
    let whole = sealed(&key(), 5, 0, &good);
    let chunks = |chunks: &[u8]| sealed(&key(), 5, 0, chunks);
    let before: &[u64] = &[0, 1, 3, 4];
    let examples: Vec<(&'static str, &[u64], Vec<u8>, &str)> = vec![
        ("cut", before, whole[..20].to_vec(), "datagram_malformed"),
        ("no chunk", before, chunks(&[]), "datagram_malformed"),
        (
            "longer than a datagram may be",
            before,
            chunks(&long),
            "datagram_malformed",
        ),
        (
            "a length that is not its own",
            before,
            at(CID_BYTES, 1),
            "datagram_malformed",
        ),
        (
            "COMPRESSED",
            before,
            sealed(&key(), 5, FLAG_COMPRESSED, &good),
            "datagram_malformed",
        ),
        (
            "HANDSHAKE",
            before,
            sealed(&key(), 5, FLAG_HANDSHAKE, &good),
            "datagram_malformed",
        ),
        ("another CRC", before, at(CID_BYTES + 12, 1), "datagram_crc"),
        (
            "a changed byte",
            before,
            at(CID_BYTES + 17, 1),
            "datagram_crc",
        ),
        (
            "a changed byte, and the CRC of it",
            before,
            mended,
            "datagram_seal",
        ),
        (
            "another key",
            before,
            sealed(&Key(rising(0)), 5, 0, &good),
            "datagram_seal",
        ),
        (
            "the other phase under the present key",
            before,
            sealed(&key(), 5, FLAG_KEY_PHASE, &good),
            "datagram_seal",
        ),
        (
            "opened before",
            before,
            sealed(&key(), 3, 0, &good),
            "datagram_repeated",
        ),
        (
            "opened before, with another body",
            before,
            sealed(&key(), 4, 0, &[6; 9]),
            "datagram_repeated",
        ),
        (
            "below the window",
            &[5_000],
            sealed(&key(), 2_952, 0, &good),
            "datagram_late",
        ),
        (
            "a chunk that is not defined",
            before,
            chunks(&[8, 0, 0]),
            "bad_body",
        ),
        (
            "a cut chunk behind a good one",
            before,
            chunks(&[&good[..], &[4, 1]].concat()),
            "bad_body",
        ),
        (
            "DATA without a byte",
            before,
            chunks(&[1, 0, 0, 0, 0, 0, 0, 0]),
            "bad_body",
        ),
        (
            "DATA with an undefined flag",
            before,
            chunks(&[1, 4, 1, 0, 0, 0, 0, 0, 9]),
            "bad_body",
        ),
        (
            "DATA that is longer than its datagram",
            before,
            chunks(&[1, 0, 9, 0, 0, 0, 0, 0, 9]),
            "bad_body",
        ),
        (
            "BODY with MORE",
            before,
            chunks(&[3, 1, 1, 0, 9]),
            "bad_body",
        ),
        (
            "BODY without a byte",
            before,
            chunks(&[3, 0, 0, 0]),
            "bad_body",
        ),
        (
            "ACK whose bitmap ends with 0",
            before,
            chunks(&[2, 2, 0, 0, 1, 0, 0, 0, 1, 0]),
            "bad_body",
        ),
        (
            "ACK whose bitmap has nine bytes",
            before,
            chunks(&[2, 9, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            "bad_body",
        ),
    ];
    let mut found = Vec::new();
    for (name, opened, datagram, wanted) in examples {
        let said = reason(opened, &datagram)?;
        ensure!(said == Some(wanted), "{name}: {said:?}");
        found.push(Bad {
            name,
            key: hex(&key().0),
            key_phase: 0,
            opened: opened.to_vec(),
            datagram: hex(&datagram),
            reason: said.unwrap_or_default(),
        });
    }
    // The last sequence that is within the window shows where it ends.
    let last = sealed(&key(), 2_953, 0, &good);
    ensure!(reason(&[5_000], &last)?.is_none(), "the window is whole");
    Ok(found)
}
