use super::super::write_header;
use super::*;

fn answer_to(request: &[u8]) -> Vec<u8> {
    let request = std::str::from_utf8(request).unwrap();
    let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap();
    let accepted = accept(key.split("\r\n").next().unwrap().as_bytes());
    format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {accepted}\r\n\r\n").into()
}

#[test]
fn it_opens_wraps_and_answers() {
    let mut pool = Buffers::default();
    let mut client = ClientEnd::new("game.example", [7; 16]);
    let mut request = Vec::new();
    let frames = [&[16, 0, 0][..], &[1; 13], &[17, 0, 0], &[2; 14]].concat();
    client.wrap(&frames, &mut request);
    assert!(request.ends_with(b"\r\n\r\n"), "no frame before the answer");
    let mut bytes = answer_to(&request);
    write_header(Opcode::Ping, 2, &mut bytes);
    bytes.extend(b"hi");
    write_header(Opcode::Binary, 3, &mut bytes);
    bytes.extend(b"abc");
    write_header(Opcode::Close, 2, &mut bytes);
    bytes.extend(1_001u16.to_be_bytes());
    // Byte by byte, since an answer may come so.
    let mut seen = Vec::new();
    for byte in bytes.chunks_mut(1) {
        let mut data = byte;
        while let Some(received) = client.next(&mut data, &mut pool).unwrap() {
            seen.push(format!("{received:?}"));
        }
    }
    assert_eq!(
        seen,
        [
            "Open",
            "Control",
            "Message([97, 98, 99])",
            "Close(Some(1001))"
        ]
    );
    let mut out = Vec::new();
    client.wrap(&frames, &mut out);
    let mut server = Decoder::of_client();
    let mut data = &mut out[..];
    let mut heard = Vec::new();
    while let Some(event) = server.next(&mut data, FRAME_BYTES_MAX, &mut pool).unwrap() {
        match event {
            Event::Message { bytes, .. } => heard.push(bytes.to_vec()),
            Event::Ping(payload) => panic!("{payload:?}"),
            Event::Close(code) => assert_eq!(code, Some(1_001)),
            Event::Pong(2) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, [frames[..16].to_vec(), frames[16..].to_vec()]);
}

#[test]
fn other_answers_are_refused() {
    let mut pool = Buffers::default();
    for (answer, refused) in [
        (
            &b"HTTP/1.1 426 Upgrade Required\r\n\r\n"[..],
            Refused::Status(426),
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Refused::Accept),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n",
            Refused::Accept,
        ),
        (b"\x14\0\0\x01 no HTTP\r\n\r\n", Refused::Status(0)),
        (&[b'x'; RESPONSE_BYTES_MAX], Refused::Status(0)),
    ] {
        let mut client = ClientEnd::new("x", [1; 16]);
        let mut bytes = answer.to_vec();
        let mut data = &mut bytes[..];
        assert_eq!(client.next(&mut data, &mut pool), Err(refused));
    }
}
