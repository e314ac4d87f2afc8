//! What only the engine's own state can show: sockets here are no descriptors,
//! so nothing outside makes an accept fail for want of one.

use super::*;
use crate::engine::ACCEPT_RETRY;

struct Accepted(u32);

impl Events for Accepted {
    fn accepted(&mut self, _conn: ConnId, _peer: Option<SocketAddr>) {
        self.0 += 1;
    }
    fn connected(&mut self, _conn: ConnId, _result: io::Result<()>) {}
    fn received(&mut self, _conn: ConnId, _data: &mut [u8]) {}
    fn sent(&mut self, _conn: ConnId, _buf: SendBuffer, _result: io::Result<()>) {}
    fn closed(&mut self, _conn: ConnId, _why: ClosedBy) {}
}

#[test]
fn a_rest_of_accepting_has_an_end_that_the_driver_is_told() {
    let mut engine = UringEngine::new(&EngineConfig::default()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    engine.listen(listener).unwrap();
    let rest_ends = Instant::now() + ACCEPT_RETRY;
    engine.accept_at = Some(rest_ends);
    let client = std::net::TcpStream::connect(address).unwrap();
    let mut accepted = Accepted(0);
    loop {
        let more = engine.flush().unwrap();
        engine.poll(&mut accepted, 16).unwrap();
        if accepted.0 > 0 {
            break;
        }
        // What the driver does: sleep until then, unless there is more to do.
        match engine.poll_timeout() {
            Some(at) => {
                assert_eq!(at, rest_ends);
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
            }
            None => assert!(more || engine.waiting > 0, "accepting goes on"),
        }
    }
    assert!(Instant::now() >= rest_ends);
    assert_eq!(engine.poll_timeout(), None);
    drop(client);
}
