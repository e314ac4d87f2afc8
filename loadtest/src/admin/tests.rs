//! URLs, answers in each framing, and a real exchange over a socket.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::{AdminUrl, Answer, good, parse, parse_to_end};

const JSON: &str =
    r#"{"roles":{"gateway":{"engine":"uring","cpu_seconds":1.5,"rss_bytes":1048576,"other":{}}}}"#;

#[test]
fn urls_are_taken_apart_or_refused() {
    let url = |text| AdminUrl::parse(text).map(|url| (url.authority, url.path));
    assert_eq!(
        url("http://127.0.0.1:7001"),
        Ok(("127.0.0.1:7001".into(), "".into()))
    );
    assert_eq!(
        url("http://[::1]:7001/a/"),
        Ok(("[::1]:7001".into(), "/a".into()))
    );
    assert_eq!(url("http://host"), Ok(("host:80".into(), "".into())));
    for text in [
        "https://host",
        "host:1",
        "http://",
        "http:///x",
        "http://a b",
        "http://u@h",
    ] {
        assert!(url(text).is_err(), "{text}");
    }
}

fn whole() -> Answer {
    Answer {
        status: 200,
        body: JSON.as_bytes().to_vec(),
    }
}

#[test]
fn each_framing_is_understood_and_a_part_is_not_the_whole() {
    let length = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{JSON}",
        JSON.len()
    );
    let (a, b) = JSON.split_at(20);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{a}\r\n{:x};x\r\n{b}\r\n0\r\n\r\n",
        a.len(),
        b.len()
    );
    for answer in [length, chunked] {
        let answer = answer.as_bytes();
        assert_eq!(parse(answer), Ok(Some(whole())));
        for end in 0..answer.len() - 7 {
            assert_eq!(parse(&answer[..end]), Ok(None), "{end}");
        }
    }
    let to_end = format!("HTTP/1.0 200 OK\r\n\r\n{JSON}");
    assert_eq!(parse(to_end.as_bytes()), Ok(None));
    assert_eq!(parse_to_end(to_end.as_bytes()), Ok(whole()));
}

#[test]
fn refusals_say_what_to_do() {
    let problem = |answer: &str| {
        let read = parse_to_end(answer.as_bytes());
        read.and_then(good).expect_err("a refusal")
    };
    assert!(problem("HTTP/1.1 401 Unauthorized\r\n\r\n").contains("--admin-token-file"));
    assert!(problem("HTTP/1.1 404 Not Found\r\n\r\n").contains("admin port"));
    assert!(problem("SSH-2.0-x\r\n\r\n").contains("not HTTP"));
}

#[test]
fn stats_come_over_a_socket_with_the_token() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        let mut request = Vec::new();
        let mut chunk = [0; 1_024];
        while !request.ends_with(b"\r\n\r\n") {
            let read = socket.read(&mut chunk).expect("a request");
            request.extend_from_slice(&chunk[..read]);
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{JSON}",
            JSON.len()
        );
        socket.write_all(answer.as_bytes()).expect("to be read");
        String::from_utf8(request).expect("text")
    });
    let url = AdminUrl::parse(&format!("http://{address}")).expect("a URL");
    let stats = url.stats(Some("secret")).expect("stats");
    let request = server.join().expect("the server");
    assert!(request.starts_with("GET /stats HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("\r\nAuthorization: Bearer secret\r\n"),
        "{request}"
    );
    let gateway = &stats.roles["gateway"];
    assert_eq!(gateway.engine.as_deref(), Some("uring"));
    assert_eq!(gateway.cpu_seconds, Some(1.5));
    assert_eq!(gateway.rss_bytes, Some(1_048_576));
}
