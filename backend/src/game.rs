//! A game process: the stub's core and its uplinks in one loop.
//!
//! It decides nothing; the core and the game do.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::uplink::{Acceptor, EndpointError, Identity, PublicKey, StreamIndex};
use protocol::control::{ShardHello, ToBackend, ToShard};
use protocol::time::{Now, Time};
use tokio::sync::{mpsc, oneshot};

use crate::counters::GameCounters;
use crate::link::{LinkFault, LinkId};
use crate::link_driver::{Clock, LinkCounts, Role, drive_role};
use crate::stub::{ChannelError, Game, Stub, StubSettings};

/// What a game process needs to know.
#[derive(Debug)]
pub struct GameConfig {
    /// UDP address for the uplinks.
    pub listen: SocketAddr,
    /// The key that this process proves.
    pub identity: Identity,
    /// The keys of the gateways that may connect.
    pub gateway_keys: Vec<PublicKey>,
    /// The core's part. Its `boot` is drawn at random by the caller.
    pub settings: StubSettings,
}

/// A game process that is ready to be driven.
pub struct OpenGame<G> {
    acceptor: Acceptor,
    clock: Clock,
    role: GameRole<G>,
}

impl<G> OpenGame<G> {
    /// Where it listens; the port is a real one even if 0 was asked for.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.acceptor.local_address()
    }

    /// The same, taking what operators tell its players.
    pub fn with_notices(mut self, notices: NoticesEnd) -> Self {
        self.role.notices = Some(notices);
        self
    }
}

/// Opens the address. To be called in the tokio current-thread runtime that will drive it.
///
/// # Errors
/// The address cannot be had.
pub fn open_game<G: Game>(
    config: GameConfig,
    game: G,
    counters: Arc<GameCounters>,
) -> Result<OpenGame<G>, EndpointError> {
    let acceptor = Acceptor::bind(config.listen, &config.identity, &config.gateway_keys)?;
    tracing::info!(group = config.settings.group.0, "the game is ready");
    Ok(OpenGame {
        acceptor,
        clock: Clock::start(),
        role: GameRole {
            stub: Stub::new(config.settings, game),
            counters,
            notices: None,
        },
    })
}

/// Runs the game until `shutdown`. Then links are closed; sessions stay at their gateways.
pub async fn drive_game<G: Game>(open: OpenGame<G>, shutdown: impl Future<Output = ()>) {
    let mut role = open.role;
    drive_role(open.acceptor, open.clock, &mut role, shutdown).await;
}

struct GameRole<G> {
    stub: Stub<G>,
    counters: Arc<GameCounters>,
    notices: Option<NoticesEnd>,
}

/// Notices that wait to be taken: those of a few operators.
const NOTICES_WAITING_MAX: usize = 8;

/// Longest wait for one to be taken.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nobody took a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// In time.
    #[error("the game is busy: ask again")]
    Busy,
    /// The stub refused it.
    #[error(transparent)]
    Refused(#[from] ChannelError),
}

type Notice = (Box<str>, oneshot::Sender<Result<usize, ChannelError>>);

/// How operators tell all players of a game something; any number of copies.
#[derive(Clone, Debug)]
pub struct Notices(mpsc::Sender<Notice>);

/// The game's end.
#[derive(Debug)]
pub struct NoticesEnd(mpsc::Receiver<Notice>);

/// Both ends.
pub fn notices() -> (Notices, NoticesEnd) {
    let (sender, receiver) = mpsc::channel(NOTICES_WAITING_MAX);
    (Notices(sender), NoticesEnd(receiver))
}

impl Notices {
    /// Tells everybody who has a session there; how many that are.
    ///
    /// # Errors
    /// See [`NoticeError`].
    pub async fn tell(&self, text: &str) -> Result<usize, NoticeError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.try_send((text.into(), answer));
        sent.map_err(|_| NoticeError::Busy)?;
        let told = tokio::time::timeout(PATIENCE, answered).await;
        let told = told.map_err(|_| NoticeError::Busy)?;
        Ok(told.map_err(|_| NoticeError::Busy)??)
    }
}

impl<G: Game> Role for GameRole<G> {
    fn link_up(&mut self, _: Now, link: LinkId, hello: &ShardHello) -> Result<(), LinkFault> {
        self.stub.handle_link_up(link, hello)
    }

    fn control(&mut self, _: Now, link: LinkId, message: ToBackend) -> Result<(), LinkFault> {
        self.stub.handle_control(link, &message)
    }

    fn records(&mut self, now: Now, link: LinkId, run: &[u8]) -> Result<(), LinkFault> {
        self.stub.handle_records(now, link, run)
    }

    fn link_down(&mut self, now: Now, link: LinkId) {
        self.stub.handle_link_down(now, link);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.stub.poll_timeout()
    }

    fn timeout(&mut self, now: Now) {
        self.stub.handle_timeout(now);
    }

    fn poll_background(&mut self, cx: &mut Context<'_>, now: Now) {
        if let Some(NoticesEnd(notices)) = &mut self.notices {
            while let Poll::Ready(Some((text, answer))) = notices.poll_recv(cx) {
                // Who asked may have gone.
                let _ = answer.send(self.stub.handle_notice(&text));
            }
        }
        self.stub.poll_background(cx, now);
    }

    fn poll_control(&mut self) -> Option<(LinkId, ToShard)> {
        self.stub.poll_send()
    }

    fn take_records(&mut self, take: &mut impl FnMut(LinkId, StreamIndex, &mut Vec<u8>)) {
        self.stub.take_records(&mut |link, stream, records| {
            if let Some(stream) = StreamIndex::data().nth(usize::from(stream) - 1) {
                take(link, stream, records);
            }
        });
    }

    fn poll_close(&mut self) -> Option<(LinkId, LinkFault)> {
        None
    }

    fn turn_ended(&mut self, links: &LinkCounts) {
        self.counters
            .publish(&self.stub.counts(), &self.stub.game().counts(), links);
    }
}
