//! The game instances: the backend stub with the games of the simulation on it, first those with
//! the echo, then those with a map.
//!
//! Invariant: whatever the game's logic heard is in the book before anything
//! else happens.

use backend::link::LinkId;
use backend::stub::{Stub, StubCounts, StubSettings};
use prost::Message as _;
use protocol::body::{Body, Lane};
use protocol::control::{ToBackend, to_backend};
use protocol::ids::ChannelId;
use protocol::limits::UPLINK_STREAMS;
use protocol::reason::{CloseReason, DropReason};
use protocol::stream::OutboxLimits;
use protocol::time::Time;
use protocol::uplink::{self, Record};

use super::client_side::GROUP;
use super::event::Event;
use super::links::Target;
use super::phases::Phase;
use super::tcp::Direction;
use super::walkers::MAP_GROUP;
use super::{World, is_due};
use crate::book::Boot;
use crate::clock::Clock;
use crate::game::echo::EchoGame;
use crate::game::walk::WalkGame;
use crate::game::{Heard, Logic};
use crate::message::{self, Sent};
use crate::plan::map::MapPlan;
use crate::plant::Plant;
use crate::random::Random;
use crate::rule::{Rule, Step, Violation, check};

/// Stays of one process, at most: how far apart their numbers begin.
const LIVES_PER_PROCESS: u32 = 100_000;

/// Mean pause, ms, between two things that a game does of its own accord.
const PACE_MS: u64 = 400;

/// Messages that a game sends a player at once now and then, at most.
const BURST_MAX: u64 = 60;

/// One game process.
#[derive(Debug)]
pub struct GameHost {
    /// Its core while it lives.
    pub core: Option<Stub<Logic>>,
    /// Rises with each start.
    pub boot: u32,
    clock: Clock,
    wake_at: Option<Time>,
    /// Not scheduled until then.
    pub paused_until: Time,
}

impl GameHost {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            core: None,
            boot: 0,
            clock: Clock::start(Time(0), random),
            wake_at: None,
            paused_until: Time(0),
        }
    }
}

/// What a game does with a channel.
#[derive(Clone, Copy, Debug)]
struct TalkAct {
    channel: ChannelId,
    /// A player joins, or leaves.
    toggles: bool,
    messages: u64,
    lane: Lane,
    bytes: usize,
}

/// What a run of records for a stub holds.
#[derive(Default)]
struct Contents {
    all: u64,
    /// Messages and SYNCs: each is taken or dropped.
    counted: u64,
    /// Others, which may be dropped too.
    others: u64,
}

impl Contents {
    fn of(mut run: &[u8]) -> Self {
        let mut contents = Self::default();
        while let Ok(Some((_, record))) = uplink::next(&mut run) {
            contents.all += 1;
            let is_counted = matches!(record, Record::Data(body)
                if matches!(Body::decode(body), Ok(Body::Message { .. } | Body::Sync(_))));
            if is_counted {
                contents.counted += 1;
            } else {
                contents.others += 1;
            }
        }
        contents
    }
}

/// The game with a map, broken as the plant wants it.
fn walk_game(map: &MapPlan, plant: Option<Plant>, next_life: u32) -> Result<WalkGame, Violation> {
    let mut config = map.config.clone();
    match plant {
        Some(Plant::IgnoreHysteresis) => config.hysteresis_units = 0,
        Some(Plant::LoseSeat) => config.visible_max = (config.visible_max - 1).max(1),
        _ => {}
    }
    WalkGame::new(config, map.tick_ms, next_life)
        .map_err(|error| Violation::new(Rule::CoresAgree, format!("no map: {error}")))
}

impl World {
    pub(super) fn game_start(&mut self, game: usize) -> Step {
        if self.games[game].core.is_some() {
            return Ok(());
        }
        let map = self.plan.map.as_ref().filter(|_| game >= self.plan.games);
        let (group, logic) = match map {
            None => (
                GROUP,
                Logic::Echo(EchoGame::new(self.plant, self.next_life)),
            ),
            Some(map) => {
                let walk = walk_game(map, self.plant, self.next_life)?;
                (MAP_GROUP, Logic::Walk(Box::new(walk)))
            }
        };
        let has_map = map.is_some();
        let settings = StubSettings {
            instance: format!("game-{game}"),
            boot: self.random.bits(),
            group,
            wants_address: self.random.chance(500),
            sessions_max: 1_000,
            outbox: OutboxLimits {
                messages_max: self.plan.stub_outbox_messages_max,
                bytes_max: self.plan.stub_outbox_bytes_max,
            },
            link_grace_ms: self.plan.link_grace_ms,
        };
        let clock = Clock::start(self.now, &mut self.random);
        self.next_life += LIVES_PER_PROCESS;
        let host = &mut self.games[game];
        host.boot += 1;
        host.clock = clock;
        host.wake_at = None;
        host.paused_until = self.now;
        host.core = Some(Stub::new(settings, logic));
        let boot = host.boot;
        if has_map {
            self.truth.note_start((game, boot));
        }
        self.after_us(500_000, Event::GameAct { game, boot });
        Ok(())
    }

    /// The process dies.
    pub(super) fn game_crash(&mut self, game: usize) {
        let host = &mut self.games[game];
        if host.core.take().is_none() {
            return;
        }
        self.book.note_game_died((game, host.boot));
        let silent = self.random.chance(300);
        self.cut_links(|link| link.target == Target::Game(game), silent);
    }

    pub(super) fn game_wake(&mut self, game: usize) -> Step {
        let host = &mut self.games[game];
        if !is_due(host.wake_at, self.now) {
            return Ok(());
        }
        host.wake_at = None;
        let now = host.clock.now(self.now);
        if let Some(core) = &mut host.core {
            core.handle_timeout(now);
        }
        self.game_turn(game)
    }

    /// The game answers what it kept, sends something, or ends a session.
    pub(super) fn game_act(&mut self, game: usize, boot: u32) -> Step {
        if self.games[game].boot != boot || self.games[game].core.is_none() {
            return Ok(());
        }
        let after_us = self.random.between(1, 2_000 * PACE_MS);
        self.after_us(after_us, Event::GameAct { game, boot });
        let now = self.games[game].clock.now(self.now);
        let may_send = self.phase < Phase::Quiet;
        let may_kick = may_send && self.random.chance(20);
        let pushes = match self.random.below(20) {
            _ if !may_send => 0,
            0 => self.random.below(BURST_MAX),
            _ => 1,
        };
        let payload_bytes = self.random.below(self.plan.payload_bytes_max) as usize;
        let (pick, lane) = (self.random.bits(), self.random.below(3));
        let lane = [Lane::Reliable, Lane::Unreliable, Lane::Sequenced][lane as usize];
        let talk = self.draw_talk(may_send);
        if let Some(core) = &mut self.games[game].core {
            let sessions = core.game().sessions();
            core.call(now, |logic, context| {
                let picked = sessions.get(pick as usize % sessions.len().max(1));
                if let Some(session) = picked
                    && may_kick
                {
                    context.kick(*session, CloseReason::Kicked);
                }
                let Some(echo) = logic.echo_mut() else {
                    return;
                };
                echo.answer_later(context);
                if let (Some(talk), Some(session)) = (talk, picked) {
                    if talk.toggles {
                        echo.toggle(context, *session, talk.channel);
                    }
                    for _ in 0..talk.messages {
                        echo.say(context, talk.channel, talk.lane, talk.bytes);
                    }
                }
                if let Some(session) = picked {
                    let sent = Sent {
                        attempt: u32::MAX,
                        lane: message::lane_number(lane),
                        is_request: false,
                        index: 0,
                    };
                    let payload = message::encode(&sent, payload_bytes);
                    for _ in 0..pushes {
                        echo.push(context, *session, lane, &payload);
                    }
                }
            });
        }
        self.game_turn(game)
    }

    /// What is said in channels now.
    fn draw_talk(&mut self, may_send: bool) -> Option<TalkAct> {
        if !self.plan.channels || !may_send {
            return None;
        }
        // Over datagrams frames for a channel are in no log of the nonces.
        let is_lossy = self.plan.datagrams_per_mille == 0 && self.random.chance(300);
        Some(TalkAct {
            channel: ChannelId(1 + self.random.below(2) as u32),
            toggles: self.random.chance(400),
            messages: match self.random.below(12) {
                0 => self.random.below(BURST_MAX),
                _ => self.random.below(3),
            },
            lane: if is_lossy {
                Lane::Unreliable
            } else {
                Lane::Reliable
            },
            bytes: self.random.below(self.plan.payload_bytes_max) as usize,
        })
    }

    pub(super) fn game_control(&mut self, game: usize, number: u64, message: &[u8]) -> Step {
        let host = &mut self.games[game];
        let Some(core) = &mut host.core else {
            return Ok(());
        };
        let Some(link) = self.links.get_mut(&number) else {
            return Ok(());
        };
        if link.target_boot != host.boot {
            return Ok(());
        }
        let decoded = ToBackend::decode(message).map_err(|error| {
            Violation::new(Rule::CoresAgree, format!("a game cannot read it: {error}"))
        })?;
        let result = match &decoded.message {
            Some(to_backend::Message::Hello(hello)) if !link.is_greeted => {
                link.is_greeted = true;
                core.handle_link_up(LinkId(number), hello)
            }
            _ => core.handle_control(LinkId(number), &decoded),
        };
        result.map_err(|fault| {
            Violation::new(Rule::CoresAgree, format!("a game refuses a shard: {fault}"))
        })?;
        self.game_turn(game)
    }

    pub(super) fn game_records(&mut self, game: usize, number: u64, run: &[u8]) -> Step {
        let is_open = self
            .links
            .get(&number)
            .is_some_and(|link| link.target_open && link.target_boot == self.games[game].boot);
        let host = &mut self.games[game];
        let Some(core) = host.core.as_mut().filter(|_| is_open) else {
            return Ok(());
        };
        let contents = Contents::of(run);
        let before = core.counts();
        core.handle_records(host.clock.now(self.now), LinkId(number), run)
            .map_err(|fault| {
                Violation::new(Rule::CoresAgree, format!("a game refuses records: {fault}"))
            })?;
        let after = core.counts();
        // A group that is down is a reason to lose what the game sends, not
        // what it is sent.
        let dropped = |counts: &StubCounts| {
            let outgoing = counts.drops[DropReason::GroupDown as usize];
            counts.drops.iter().sum::<u64>() - outgoing
        };
        let accounted = after.received - before.received
            + (after.syncs - before.syncs)
            + (dropped(&after) - dropped(&before));
        check(
            after.records - before.records == contents.all
                && (contents.counted..=contents.counted + contents.others).contains(&accounted),
            Rule::DropsCounted,
            || {
                format!(
                    "of {} records with a message {accounted} were processed or counted",
                    contents.counted
                )
            },
        )?;
        self.game_turn(game)
    }

    pub(super) fn game_link_down(&mut self, game: usize, number: u64) -> Step {
        let host = &mut self.games[game];
        let now = host.clock.now(self.now);
        if let Some(core) = &mut host.core {
            core.handle_link_down(now, LinkId(number));
        }
        self.game_turn(game)
    }

    /// What a map or a channel heard and did.
    fn note_told(&mut self, boot: Boot, heard: &Heard) -> Step {
        match heard {
            Heard::Entered { session, enter } => self.truth.note_enter(boot, *session, enter),
            Heard::Moved {
                session,
                lane,
                step,
            } => self.truth.note_move(boot, *session, *lane, step)?,
            Heard::Ticked { tick } => self.truth.note_tick(boot, *tick)?,
            Heard::Disconnected { session } => self.truth.note_gone(boot, *session),
            Heard::Published {
                process,
                channel,
                lane,
                members,
            } => {
                self.talk
                    .note_published(*process, *channel, *lane, members.clone());
            }
            Heard::Left {
                process,
                channel,
                session,
            } => self.talk.note_left(*process, *channel, *session),
            Heard::Connected { .. } | Heard::Received { .. } => {}
        }
        Ok(())
    }

    fn game_turn(&mut self, game: usize) -> Step {
        let host = &mut self.games[game];
        let Some(core) = &mut host.core else {
            return Ok(());
        };
        let now = host.clock.now(self.now);
        let heard = core.call(now, |logic, _| logic.take_heard());
        let sends: Vec<_> = std::iter::from_fn(|| core.poll_send()).collect();
        let mut records = Vec::new();
        core.take_records(&mut |link, stream, bytes| {
            records.push((link, stream, std::mem::take(bytes)));
        });
        let boot = (game, host.boot);
        for heard in heard {
            self.trace.event(self.now, "heard", &[game as u64], &[]);
            if self.trace.loud {
                eprintln!("{:>12} game {game} {heard:?}", self.now.0);
            }
            self.note_told(boot, &heard)?;
            self.book.note_heard(boot, heard)?;
        }
        for (LinkId(number), message) in sends {
            let bytes = message.encode_to_vec();
            let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            self.link_write(number, Direction::Down, 0, framed)?;
        }
        for (LinkId(number), stream, bytes) in records {
            debug_assert!((1..=UPLINK_STREAMS).contains(&stream));
            self.link_write(number, Direction::Down, stream, bytes)?;
        }
        let host = &mut self.games[game];
        if let Some(due) = host.core.as_ref().and_then(Stub::poll_timeout) {
            let at = host.clock.global(due).max(self.now + 1);
            if host.wake_at.is_none_or(|wake_at| at < wake_at) {
                host.wake_at = Some(at);
                self.push(at, Event::GameWake { game });
            }
        }
        Ok(())
    }
}
