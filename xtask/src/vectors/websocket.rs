//! A frame in its WebSocket message, in both directions, and the answer to a key.

use protocol::websocket::{Opcode, accept, write_header, write_masked};
use serde::Serialize;

use super::{bytes, hex};

/// That of RFC 6455 §5.7.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// That of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[derive(Serialize)]
pub struct File {
    version: u32,
    websocket: WebSocket,
}

#[derive(Serialize)]
struct WebSocket {
    key: &'static str,
    accept: String,
    client: Message,
    gateway: Message,
}

#[derive(Serialize)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<String>,
    frame: String,
    message: String,
}

/// The file, for the two frames of the handshake.
pub fn file([hello, welcome]: &[String; 2]) -> anyhow::Result<File> {
    let (mut client, mut gateway) = (Vec::new(), Vec::new());
    write_masked(Opcode::Binary, MASK, &bytes(hello)?, &mut client);
    let frame = bytes(welcome)?;
    write_header(Opcode::Binary, frame.len(), &mut gateway);
    gateway.extend_from_slice(&frame);
    Ok(File {
        version: 1,
        websocket: WebSocket {
            key: KEY,
            accept: accept(KEY.as_bytes()),
            client: Message {
                mask: Some(hex(&MASK)),
                frame: hello.clone(),
                message: hex(&client),
            },
            gateway: Message {
                mask: None,
                frame: welcome.clone(),
                message: hex(&gateway),
            },
        },
    })
}
