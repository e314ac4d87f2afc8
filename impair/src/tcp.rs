//! TCP through the proxy: accepts, connects onward, and carries both directions of each
//! connection, late.
//!
//! Invariant: what a connection has under way is bounded; beyond that it does not read.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use protocol::time::Time;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, sleep_until};

use crate::Shared;
use crate::path::Path;

/// Bytes of one direction that are under way at most: a second of 2 Mbit/s.
const UNDER_WAY_BYTES_MAX: usize = 256 * 1_024;

/// Bytes that one read takes.
const READ_BYTES_MAX: usize = 16 * 1_024;

/// How long the proxy waits after a failed accept: without descriptors the next one would fail at
/// once too.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts for ever.
pub(crate) async fn accept(listener: TcpListener, shared: &Rc<Shared>) {
    let flows = Rc::new(());
    loop {
        let Ok((client, _)) = listener.accept().await else {
            shared.count(|counts| counts.refused += 1);
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        // One count is this function's own.
        if Rc::strong_count(&flows) > shared.settings.flows_max {
            shared.count(|counts| counts.refused += 1);
            reset(&client);
            continue;
        }
        let (shared, flow) = (Rc::clone(shared), Rc::clone(&flows));
        tokio::task::spawn_local(async move {
            serve(client, &shared).await;
            drop(flow);
        });
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) {
    let Ok(mut target) = TcpStream::connect(shared.settings.target).await else {
        shared.count(|counts| counts.refused += 1);
        return reset(&client);
    };
    shared.count(|counts| counts.connections += 1);
    // Small pieces are what is to be seen late, not gathered.
    let _ = client.set_nodelay(true);
    let _ = target.set_nodelay(true);
    let mut random = shared.random();
    let conditions = shared.settings.conditions;
    let mut up = Direction::new(Path::new(conditions, random.fork()), shared);
    let mut down = Direction::new(Path::new(conditions, random.fork()), shared);
    let cut = async {
        match shared.settings.events.cut_every {
            Some(every) => sleep(Duration::from_micros(
                random.spread(every.as_micros() as u64),
            )),
            None => return std::future::pending().await,
        }
        .await;
    };
    let ended = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_target, mut to_target) = target.split();
        tokio::select! {
            both = async {
                tokio::try_join!(
                    up.carry(&mut from_client, &mut to_target),
                    down.carry(&mut from_target, &mut to_client),
                )
            } => both.is_ok(),
            () = cut => {
                sleep(shared.settings.events.cut_silent).await;
                shared.count(|counts| counts.cuts += 1);
                false
            }
        }
    };
    if !ended {
        reset(&client);
        reset(&target);
    }
}

/// Lets a stream end with a reset when it is dropped, as one does whose other end has vanished.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// One direction of a connection.
struct Direction<'a> {
    path: Path,
    shared: &'a Shared,
    under_way: VecDeque<(Time, Vec<u8>)>,
    under_way_bytes: usize,
    buffer: Vec<u8>,
}

impl<'a> Direction<'a> {
    fn new(path: Path, shared: &'a Shared) -> Self {
        Self {
            path,
            shared,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            buffer: vec![0; READ_BYTES_MAX],
        }
    }

    /// Carries until `from` has ended and all has arrived; then ends `to`.
    async fn carry(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let clock = self.shared.clock;
        let mut open = true;
        while open || !self.under_way.is_empty() {
            let due = self.under_way.front().map(|(at, _)| clock.instant(*at));
            tokio::select! {
                count = from.read(&mut self.buffer),
                    if open && self.under_way_bytes < UNDER_WAY_BYTES_MAX =>
                {
                    let count = count?;
                    open = count > 0;
                    if open {
                        let (at, stalled) = self.path.handle_piece(clock.now(), count);
                        self.under_way.push_back((at, self.buffer[..count].to_vec()));
                        self.under_way_bytes += count;
                        self.shared.count(|counts| counts.stream_stalls += u64::from(stalled));
                    }
                }
                () = async {
                    match due {
                        Some(due) => sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                } => {
                    if let Some((_, piece)) = self.under_way.pop_front() {
                        to.write_all(&piece).await?;
                        self.under_way_bytes -= piece.len();
                        self.shared.count(|counts| counts.stream_bytes += piece.len() as u64);
                    }
                }
            }
        }
        to.shutdown().await
    }
}
