//! A shard with center and a game around it, and nothing hidden: what it sends to backends is
//! checked, center answers, links break when the script says so.

use std::collections::VecDeque;
use std::sync::Arc;

use gateway::counters::Counters;
use gateway::engine::ConnId;
use gateway::front::FrontConfig;
use gateway::front::trust::Trust;
use gateway::shard::{Action, DatagramConfig, Shard, ShardConfig};
use gateway::testing::{self, CENTER, GAME, GROUP};
use protocol::body::{Body, ChannelNotice};
use protocol::check::Rate;
use protocol::control::to_backend;
use protocol::ids::SessionId;
use protocol::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_WINDOW_BEFORE_LOGIN, LOGIN_FRAME_BYTES_MAX};
use protocol::reason::{CloseReason, DropReason};
use protocol::time::Now;
use protocol::uplink::{self, Record};

use crate::script::{Script, Way};

/// Sessions of the shard; few, so that scripts reach it.
pub const SESSIONS_MAX: usize = 4;
/// Connections before login.
pub const CONNECTIONS_MAX: usize = 6;
/// Longer than most scripts.
const LEASE_MS: u32 = 15_000;
/// Ids of connections over datagrams begin here.
const FIRST_INDEX: u32 = 100;
/// What may wait for a client before login, bytes: one frame, one beyond the bound of answers, and
/// over datagrams what fits into the window.
const KEPT_BEFORE_LOGIN_MAX: usize =
    3 * LOGIN_FRAME_BYTES_MAX + DATAGRAM_WINDOW_BEFORE_LOGIN as usize * DATAGRAM_BYTES_MAX;

/// See the module.
pub struct Rig {
    pub shard: Shard,
    pub counters: Arc<Counters>,
    pub now: Now,
    pub actions: VecDeque<Action>,
    /// Sessions that center granted, in order.
    pub sessions: Vec<SessionId>,
    /// Center answers.
    pub center_answers: bool,
    pub way: Way,
    tokens: u64,
    game_is_up: bool,
    center_is_up: bool,
}

impl Rig {
    /// A shard with what the first byte of a script says.
    pub fn new(options: u8) -> Self {
        let now = testing::start();
        let rate = |per_second, burst| Rate { per_second, burst };
        let mut config = ShardConfig {
            sessions_max: SESSIONS_MAX,
            connections_before_login_max: CONNECTIONS_MAX,
            datagrams: Some(DatagramConfig {
                cookie_secret: [6; 32],
                first_index: FIRST_INDEX,
                connections_max: 8,
            }),
            ..testing::shard_config(SESSIONS_MAX)
        };
        if options & 1 != 0 {
            config.frames = rate(20, 40);
            config.bytes = rate(4_096, 16_384);
        }
        if options & 2 != 0 {
            config.resume_ms = 5_000;
        }
        if options & 4 != 0 {
            config.front = FrontConfig {
                proxy_required: true,
                trusted: Trust::new(vec!["127.0.0.0/8".parse().expect("a network")]),
                ..FrontConfig::default()
            };
        }
        if options & 8 != 0 {
            config.send_queue_bytes_max = 8_192;
            config.uplink_queue_bytes_max = 4_096;
        }
        let counters = Arc::<Counters>::default();
        let shard = Shard::new(
            config,
            testing::verifier(),
            [3; 32],
            Arc::clone(&counters),
            now,
        );
        let mut rig = Self {
            shard,
            counters,
            now,
            actions: VecDeque::new(),
            sessions: Vec::new(),
            center_answers: true,
            way: Way::default(),
            tokens: 0,
            game_is_up: false,
            center_is_up: false,
        };
        rig.link(CENTER);
        rig.link(GAME);
        rig
    }

    fn is_up(&mut self, uplink: usize) -> &mut bool {
        match uplink {
            CENTER => &mut self.center_is_up,
            _ => &mut self.game_is_up,
        }
    }

    /// The link of an uplink stands, its hello has come.
    pub fn link(&mut self, uplink: usize) {
        if std::mem::replace(self.is_up(uplink), true) {
            return;
        }
        self.shard.handle_uplink_connected(uplink);
        let group = if uplink == CENTER {
            0
        } else {
            u32::from(GROUP.0)
        };
        let hello = testing::hello(uplink, group, LEASE_MS);
        self.shard.handle_uplink_control(self.now, uplink, &hello);
    }

    /// An uplink's link is gone.
    pub fn lose(&mut self, uplink: usize) {
        if std::mem::replace(self.is_up(uplink), false) {
            self.shard.handle_uplink_lost(uplink);
        }
    }

    /// A LOGIN with a good token that was not used before.
    pub fn login(&mut self) -> Vec<u8> {
        self.tokens += 1;
        let token = testing::token(self.tokens, self.now);
        let mut body = Vec::new();
        Body::Login(protocol::body::Login {
            method: 1,
            client_version: 1,
            channel: "store",
            device: "",
            credential: token.as_bytes(),
        })
        .encode(&mut body);
        body
    }

    /// The game sends this body to the session that came last.
    pub fn say(&mut self, body: &[u8]) {
        let session = self.sessions.last().copied().unwrap_or(SessionId(1));
        let mut record = Vec::new();
        // The odd ones with a key, which only some kinds may have.
        let said = match body.len() % 2 {
            1 => Record::Latest { key: 1, body },
            _ => Record::Data(body),
        };
        uplink::encode(session, &said, &mut record);
        if self.game_is_up && record.len() <= protocol::limits::RECORD_BYTES_MAX {
            self.shard.handle_uplink_records(self.now, GAME, &record);
        }
    }

    /// What happens around the shard.
    pub fn event(&mut self, script: &mut Script<'_>) {
        let what = script.u8() % 8;
        match what {
            0 => self.lose(GAME),
            1 => self.link(GAME),
            2 => self.lose(CENTER),
            3 => self.link(CENTER),
            4 => self.center_answers ^= true,
            5 | 6 => {
                // Whether somebody waited for it is the driver's concern.
                let bytes = usize::from(script.u16());
                self.shard.handle_uplink_queued(GAME, bytes);
            }
            _ => self.shard.handle_drain(),
        }
        self.way.note(u64::from(what));
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.time = self.now.time.after_ms(ms);
        self.now.unix_ms += ms;
    }

    /// Timers, and what the shard wants its backends to hear; center answers.
    pub fn turn(&mut self) {
        loop {
            self.shard.handle_timeout(self.now);
            let mut controls = Vec::new();
            self.shard.poll_uplink(|uplink, stream, bytes| {
                if stream > 0 {
                    check_records(bytes);
                } else {
                    controls.extend(testing::control_messages(bytes).map(|it| (uplink, it)));
                }
                bytes.clear();
            });
            while let Some(action) = self.shard.poll_action() {
                if let Action::CloseUplink(uplink) = action {
                    self.lose(uplink);
                } else {
                    self.actions.push_back(action);
                }
            }
            if controls.is_empty() {
                break;
            }
            for (uplink, message) in controls {
                self.answer(uplink, &message);
            }
        }
    }

    fn answer(&mut self, uplink: usize, message: &to_backend::Message) {
        if uplink != CENTER || !self.center_answers || !self.center_is_up {
            return;
        }
        let Some(mut answer) = testing::answer_of_center(message) else {
            return;
        };
        if let protocol::control::to_shard::Message::ClaimGranted(granted) = &mut answer {
            // Each session is a new one.
            granted.session = self.sessions.len() as u64 + 1;
            granted.fence = granted.session;
            self.sessions.push(SessionId(granted.session));
        }
        let bytes = testing::to_shard_bytes(answer);
        self.shard.handle_uplink_control(self.now, CENTER, &bytes);
    }

    /// What the shard keeps is within its bounds.
    pub fn check(&mut self) {
        let kept = self.shard.footprint();
        assert_eq!(kept.connections, self.shard.connections());
        let held = kept.sessions + kept.parked;
        assert!(held <= SESSIONS_MAX, "{held} sessions");
        // One more is told that there is no room.
        let before_login = kept.connections - kept.sessions - kept.closing;
        assert!(
            before_login <= CONNECTIONS_MAX,
            "{before_login} before login"
        );
        assert!(kept.claims <= kept.connections);
        assert!(kept.tickets <= held, "{} tickets for {held}", kept.tickets);
        assert!(kept.cids <= 2 * kept.connections);
        assert!(kept.inits <= kept.connections, "{} INITs", kept.inits);
        assert!(
            kept.before_login_bytes_max <= KEPT_BEFORE_LOGIN_MAX,
            "{} bytes kept before login",
            kept.before_login_bytes_max
        );
        assert!(
            kept.before_login_segments_max < DATAGRAM_WINDOW_BEFORE_LOGIN as usize,
            "{} segments kept before login",
            kept.before_login_segments_max
        );
        self.way.count(kept.connections as u64);
        self.way.note(kept.sessions as u64);
        self.way.note(kept.parked as u64);
    }

    /// Nobody says anything any more. `settle` takes what the shard still has to say.
    pub fn end(mut self, mut settle: impl FnMut(&mut Self)) -> u64 {
        self.center_answers = true;
        self.link(CENTER);
        self.link(GAME);
        for _ in 0..200 {
            settle(&mut self);
            self.pass(1_000);
            let kept = self.shard.footprint();
            if kept.connections + kept.parked == 0 {
                break;
            }
        }
        settle(&mut self);
        let kept = self.shard.footprint();
        assert_eq!(
            kept,
            gateway::shard::Footprint::default(),
            "something is left"
        );
        let closes = |reason: &CloseReason| self.counters.closes(*reason);
        let closed: u64 = CloseReason::ALL.iter().map(closes).sum();
        assert!(
            closed >= self.counters.accepted.value(),
            "an end that nobody counted"
        );
        for reason in DropReason::ALL {
            self.way.note(u64::from(self.counters.drops(*reason) > 0));
        }
        for reason in CloseReason::ALL {
            self.way.note(u64::from(self.counters.closes(*reason) > 0));
        }
        self.way.value()
    }
}

/// What a shard forwards decodes, and is what a client may say to a game.
fn check_records(mut run: &[u8]) {
    while let Some((session, record)) = uplink::next(&mut run).expect("the shard's records") {
        // What a game says of a session that is none is answered as it came.
        assert!(session != SessionId(0) || record == Record::Gone);
        match record {
            Record::Data(body) => match Body::decode(body) {
                Ok(
                    Body::Sync(_)
                    | Body::Ack { .. }
                    | Body::Message { .. }
                    | Body::Channel {
                        notice: ChannelNotice::CatchUp { .. },
                        ..
                    },
                ) => {}
                other => panic!("forwarded {other:?}"),
            },
            Record::Open(_) | Record::End { .. } | Record::Gone | Record::Quality(_) => {}
            other => panic!("a backend's record: {other:?}"),
        }
    }
}

/// An id of the engine's.
pub fn conn(index: usize) -> ConnId {
    ConnId {
        index: index as u32,
        generation: 0,
    }
}
