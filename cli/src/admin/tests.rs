//! Over a real socket: who may ask, and what is answered.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

fn serve(token: Option<&str>) -> SocketAddr {
    let config = AdminConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        token: token.map(str::to_owned),
        token_file: None,
    };
    let port = AdminPort::bind(&config).expect("a free port");
    let address = port.address().expect("it is bound");
    let role = |name: &'static str, thread_prefixes: &'static [&'static str]| {
        Arc::new(RoleView {
            name,
            thread_prefixes,
            metrics: Box::new(move |text| {
                let _ = writeln!(text, "sallyport_{name}_turns_total 3");
            }),
            stats: Box::new(|own| {
                own.insert("sessions".to_owned(), json!(7));
            }),
            not_ready: Box::new(move || (name == "game").then(|| "no gateway yet".to_owned())),
            operator: None,
            desk: None,
            notices: Vec::new(),
            limits: None,
        })
    };
    port.serve(
        vec![role("gateway", &["gw-"]), role("game", &["game"])],
        Arc::default(),
    )
    .expect("a thread");
    address
}

fn ask(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    let body = answer
        .split_once("\r\n\r\n")
        .map_or(String::new(), |(_, body)| body.to_owned());
    (status, body)
}

#[test]
fn metrics_health_and_figures_are_answered() {
    let address = serve(None);
    let (status, metrics) = ask(address, "/metrics", "");
    assert_eq!(status, 200);
    assert!(
        metrics.contains("sallyport_gateway_turns_total 3\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("sallyport_process_cpu_seconds_total{role=\"game\"} "),
        "{metrics}"
    );
    assert_eq!(ask(address, "/healthz", ""), (200, "ok\n".to_owned()));
    assert_eq!(
        ask(address, "/readyz", ""),
        (503, "game: no gateway yet\n".to_owned())
    );
    let (status, stats) = ask(address, "/stats", "");
    assert_eq!(status, 200);
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!(stats["roles"]["gateway"]["sessions"], 7);
    assert!(
        stats["roles"]["game"]["rss_bytes"]
            .as_u64()
            .expect("a number")
            > 1 << 20
    );
    assert!(stats["roles"]["game"]["cpu_seconds"].is_number());
    assert_eq!(ask(address, "/other", "").0, 404);
    // Nobody here holds connections.
    assert_eq!(ask(address, "/sessions?account=x", "").0, 404);
}

#[test]
fn a_page_in_a_browser_gets_nowhere() {
    let address = serve(None);
    let page = "Origin: https://evil.example\r\n";
    assert_eq!(ask(address, "/stats", page).0, 403);
    let mut stream = TcpStream::connect(address).expect("it listens");
    // A name of its own, which leads here.
    let request = "GET /stats HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[test]
fn nobody_gets_in_without_the_token() {
    let address = serve(Some("0123456789abcdef"));
    for path in [
        "/metrics",
        "/stats",
        "/sessions",
        "/limits",
        "/kick",
        "/drain",
        "/nothing",
    ] {
        assert_eq!(ask(address, path, "").0, 401);
        assert_eq!(
            ask(address, path, "Authorization: Bearer 0123456789abcdeg\r\n").0,
            401
        );
        assert_eq!(
            ask(address, path, "Authorization: Bearer 0123456789abcde\r\n").0,
            401
        );
    }
    assert_eq!(
        ask(
            address,
            "/healthz",
            "Authorization: Bearer 0123456789abcdef\r\n"
        )
        .0,
        200
    );
}

#[test]
fn a_taken_port_is_named() {
    let address = serve(None);
    let config = AdminConfig {
        listen: address,
        token: None,
        token_file: None,
    };
    let error = AdminPort::bind(&config)
        .err()
        .expect("it is taken")
        .to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("ss -"),
        "{error}"
    );
}
