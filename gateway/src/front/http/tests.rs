use super::*;
use crate::front::trust::Trust;

const GOOD: &str = "GET /play HTTP/1.1\r\nHost: game.example\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: other, sallyport.1\r\n\
    Origin: https://game.example\r\n\r\n";

fn answer(request: &str, config: &FrontConfig) -> Result<Upgrade, Refusal> {
    let mut bytes = request.as_bytes().to_vec();
    let mut data = &mut bytes[..];
    let mut taken = Request::default();
    assert!(taken.take(&mut data)?, "whole");
    assert!(data.is_empty());
    taken.answer(config, Some([10, 0, 0, 1].into()))
}

fn status(request: &str) -> String {
    match answer(request, &FrontConfig::default()) {
        Ok(_) => "101".to_owned(),
        Err(refusal) => {
            let mut out = Vec::new();
            refusal.write(&mut out);
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            assert!(head.contains("close"), "{head}");
            assert!(!body.is_empty());
            head[9..12].to_owned()
        }
    }
}

#[test]
fn a_good_request_is_granted() {
    let upgrade = answer(GOOD, &FrontConfig::default()).unwrap();
    assert_eq!(
        String::from_utf8(upgrade.response).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Protocol: sallyport.1\r\n\r\n"
    );
    assert_eq!(upgrade.client, None, "nobody is trusted");
    // One that offers no subprotocol is told none.
    let without = GOOD.replace("Sec-WebSocket-Protocol: other, sallyport.1\r\n", "");
    let upgrade = answer(&without, &FrontConfig::default()).unwrap();
    assert!(
        !String::from_utf8(upgrade.response)
            .unwrap()
            .contains("Protocol:")
    );
}

#[test]
fn others_are_told_what_to_do() {
    let without = |line: &str| {
        assert!(GOOD.contains(line), "{line}");
        status(&GOOD.replace(line, ""))
    };
    let with = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        status(&GOOD.replace(from, to))
    };
    assert_eq!(status(GOOD), "101");
    assert_eq!(with("GET", "POST"), "405");
    assert_eq!(with("GET", "HEAD"), "405");
    assert_eq!(with("HTTP/1.1", "HTTP/1.0"), "400");
    assert_eq!(with("HTTP/1.1", "HTTP/2.0"), "400");
    assert_eq!(without("Host: game.example\r\n"), "400");
    assert_eq!(without("Upgrade: websocket\r\n"), "426");
    assert_eq!(with("Upgrade: websocket", "Upgrade: h2c"), "426");
    assert_eq!(with("keep-alive, Upgrade", "keep-alive"), "426");
    assert_eq!(with("Version: 13", "Version: 8"), "426");
    assert_eq!(
        without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        "400"
    );
    assert_eq!(with("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "400");
    assert_eq!(with("other, sallyport.1", "chat"), "400");
    assert_eq!(with("Origin:", "Content-Length: 4\r\nOrigin:"), "400");
    assert_eq!(
        with("Origin:", "Transfer-Encoding: chunked\r\nOrigin:"),
        "400"
    );
    assert_eq!(with("Origin:", "Bad Header\r\nOrigin:"), "400");
    let many = "X: y\r\n".repeat(HEADERS_MAX);
    assert_eq!(with("Origin:", &format!("{many}Origin:")), "431");
    assert_eq!(
        with("Origin:", &format!("X: {}\r\nOrigin:", "y".repeat(4_000))),
        "431"
    );
}

#[test]
fn where_origins_are_named_no_other_page_connects() {
    let config = FrontConfig {
        origins: vec![
            "https://other.example".into(),
            "https://GAME.example".into(),
        ],
        ..Default::default()
    };
    assert!(answer(GOOD, &config).is_ok());
    let evil = GOOD.replace("https://game", "https://evil");
    assert_eq!(answer(&evil, &config), Err(Refusal::ORIGIN));
    let native = GOOD.replace("Origin: https://game.example\r\n", "");
    assert!(answer(&native, &config).is_ok());
}

#[test]
fn a_trusted_proxy_tells_the_address() {
    let config = FrontConfig {
        trusted: Trust::new(vec!["10.0.0.0/8".parse().unwrap()]),
        ..Default::default()
    };
    let client = |headers: &str| {
        let request = GOOD.replace("Origin:", &format!("{headers}Origin:"));
        answer(&request, &config).unwrap().client
    };
    let address = |text: &str| Some(SocketAddr::new(text.parse().unwrap(), 0));
    assert_eq!(client(""), None);
    assert_eq!(client("X-Real-IP: 192.0.2.4\r\n"), address("192.0.2.4"));
    let both = "X-Forwarded-For: 1.1.1.1, 192.0.2.9\r\nX-Forwarded-For: 10.7.7.7\r\nX-Real-IP: 9.9.9.9\r\n";
    assert_eq!(client(both), address("192.0.2.9"));
}

#[test]
fn it_may_come_in_pieces_and_what_follows_is_left() {
    for piece in 1..60 {
        let mut bytes = [GOOD.as_bytes(), b"\x82\x80frame"].concat();
        let mut request = Request::default();
        let mut at = 0;
        let mut whole = false;
        while !whole {
            let end = (at + piece).min(bytes.len());
            let mut data = &mut bytes[at..end];
            let offered = data.len();
            whole = request.take(&mut data).unwrap();
            at += offered - data.len();
        }
        assert_eq!(at, GOOD.len(), "by {piece}");
        assert!(request.answer(&FrontConfig::default(), None).is_ok());
    }
}

#[test]
fn it_keeps_no_more_than_its_bound() {
    let mut request = Request::default();
    let mut bytes = [b'A'; 1_000];
    for round in 0.. {
        let mut data = &mut bytes[..];
        match request.take(&mut data) {
            Ok(whole) => assert!(!whole),
            Err(refusal) => {
                assert_eq!((refusal, round), (Refusal::TOO_LONG, 4));
                break;
            }
        }
    }
    assert!(request.head.len() <= HTTP_REQUEST_BYTES_MAX);
}
