//! A whole cluster in one thread and virtual time: clients, gateways with
//! their shards, center with its disk, game instances, and the wires between
//! them. The cores are those of production; everything around them is here.
//!
//! A run: while faults last, what must never happen is checked at every step.
//! Then the network heals, and in bounded time everybody must be in and
//! everything answered. Then all log out, and nothing may be left.
//!
//! Invariant: whatever happens next follows from the seed alone.

mod center_side;
mod client_app;
mod client_datagrams;
mod client_side;
mod client_wire;
mod event;
mod faults;
mod flows;
mod game_side;
mod links;
mod phases;
mod planted;
mod planted_views;
mod shard_datagrams;
mod shard_side;
mod shard_turn;
mod shard_wire;
mod tcp;
mod thieves;
mod walkers;

use std::collections::{BTreeMap, BTreeSet};

use protocol::handshake::StaticKey;
use protocol::ids::SessionId;
use protocol::time::Time;

use crate::book::Book;
use crate::line::Line;
use crate::plan::{Course, Plan, Transport};
use crate::plant::Plant;
use crate::random::Random;
use crate::rule::{Rule, Step, Violation};
use crate::talk::Talk;
use crate::tickets::Tickets;
use crate::trace::Trace;
use crate::truth::Truth;
use center_side::CenterHost;
use client_side::ClientHost;
use event::Event;
use flows::Datagrams;
use game_side::GameHost;
use links::Link;
use phases::Phase;
use planted_views::ViewPlants;
use shard_side::ShardHost;
use tcp::Conn;

/// What a run that broke no rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Events of the world.
    pub events: u64,
    /// Over all of them.
    pub digest: u64,
    /// Sessions that clients had.
    pub logins: u64,
    /// Reliable messages that clients sent.
    pub messages: u64,
    /// Sessions that went to another shard.
    pub moves: u64,
    /// Players that came into the view of others, summed over all.
    pub enters: u64,
    /// Times that a client was let on a map again in the same session.
    pub reentries: u64,
    /// Times that a client cut off came back to its session.
    pub resumes: u64,
    /// Connections that were cut every so many seconds, in a long run.
    pub cuts: u64,
    /// Logins over datagrams.
    pub datagram_logins: u64,
    /// Logins in a WebSocket.
    pub web_logins: u64,
    /// Pairs of different transports, from the first of which a session has gone to the second;
    /// there are six.
    pub crossings: u64,
    /// Times that something came to a client where it had moved.
    pub migrations: u64,
    /// Times that somebody connected with a ticket that was used.
    pub thieves: u64,
    /// Players that were let in from the queue.
    pub admitted: u64,
    /// Messages of channels that members heard.
    pub channel_messages: u64,
}

/// The world.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    plant: Option<Plant>,
    random: Random,
    trace: Trace,
    book: Book,
    tickets: Tickets,
    line: Line,
    talk: Talk,
    truth: Truth,
    now: Time,
    queue: BTreeMap<(Time, u64), Event>,
    queued: u64,
    phase: Phase,
    key: StaticKey,
    clients: Vec<ClientHost>,
    shards: Vec<ShardHost>,
    center: CenterHost,
    games: Vec<GameHost>,
    conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    datagrams: Datagrams,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    next_token: u64,
    next_life: u32,
    /// Sessions, with their fences, that center has told a shard to end.
    revoked: BTreeSet<(u64, u64)>,
    /// What one client once sent, for somebody to replay.
    recorded: Vec<u8>,
    cuts: u64,
    resumes: u64,
    web_logins: u64,
    thieves: u64,
    /// From and to which transports sessions have come back.
    crossings: BTreeSet<(Transport, Transport)>,
    /// Times that a plant could have struck.
    plant_chances: u64,
    view_plants: ViewPlants,
    /// For a plant: who was last made a member of a channel.
    joined: Option<SessionId>,
    enters: u64,
    reentries: u64,
}

/// Whether a wake-up that fires now is one that its process waits for: one that
/// was replaced by an earlier one is not, one that a pause has delayed is.
fn is_due(wake_at: Option<Time>, now: Time) -> bool {
    wake_at.is_some_and(|wake_at| wake_at <= now)
}

impl World {
    /// The world of a seed. `loud` tells each event on standard error.
    pub fn new(seed: u64, course: Course, plant: Option<Plant>, loud: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = match course {
            Course::Drawn => Plan::draw(&mut random),
            Course::Long { minutes } => Plan::long(minutes, &mut random),
        };
        if loud {
            eprintln!("{plan:#?}");
        }
        let key = StaticKey::from_secret(random.secret());
        let clients = (0..plan.clients)
            .map(|index| ClientHost::new(index, &plan, &mut random))
            .collect();
        let shards = (0..plan.gateways * plan.shards)
            .map(|index| ShardHost::new(index, &plan, &mut random))
            .collect();
        let maps = plan.map.as_ref().map_or(0, |map| map.instances);
        let games = (0..plan.games + maps)
            .map(|_| GameHost::new(&mut random))
            .collect();
        Self {
            center: CenterHost::new(&mut random),
            book: Book::default(),
            tickets: Tickets::default(),
            line: Line::default(),
            talk: Talk::default(),
            truth: Truth::default(),
            trace: Trace::new(loud),
            now: Time(0),
            queue: BTreeMap::new(),
            queued: 0,
            phase: Phase::Faults,
            conns: BTreeMap::new(),
            next_conn: 1,
            datagrams: Datagrams::default(),
            links: BTreeMap::new(),
            next_link: 1,
            next_token: 1,
            next_life: 1,
            recorded: Vec::new(),
            cuts: 0,
            resumes: 0,
            web_logins: 0,
            thieves: 0,
            crossings: BTreeSet::new(),
            revoked: BTreeSet::new(),
            plant_chances: 0,
            view_plants: ViewPlants::default(),
            joined: None,
            enters: 0,
            reentries: 0,
            plan,
            plant,
            random,
            key,
            clients,
            shards,
            games,
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// The first rule that was broken.
    pub fn run(&mut self) -> Result<Report, Violation> {
        self.begin();
        while let Some(((at, order), event)) = self.queue.pop_first() {
            if let Some(until) = self.paused_until(&event)
                && until > at
            {
                // The order of arrival stays: a paused process loses nothing.
                self.queue.insert((until, order), event);
                continue;
            }
            self.now = at;
            event.note(at, &mut self.trace);
            self.handle(event)?;
            if self.phase == Phase::Over {
                return Ok(self.report());
            }
            if self.trace.events() > self.plan.events_max {
                return Err(Violation::new(
                    Rule::Liveness,
                    "the world does not come to rest: too many events",
                ));
            }
        }
        Err(Violation::new(Rule::Liveness, "nothing happens any more"))
    }

    /// The moment of the run, for messages.
    pub fn now(&self) -> Time {
        self.now
    }

    fn report(&mut self) -> Report {
        let attempts = &self.book.attempts;
        let logins = attempts.iter().filter(|a| a.session.is_some()).count() as u64;
        let messages = attempts.iter().map(|a| u64::from(a.pushed[0])).sum();
        self.trace
            .event(self.now, "disk", &[], self.center.disk.bytes());
        Report {
            events: self.trace.events(),
            digest: self.trace.digest(),
            logins,
            messages,
            moves: self.book.moves,
            enters: self.enters,
            reentries: self.reentries,
            resumes: self.resumes,
            cuts: self.cuts,
            datagram_logins: self.datagrams.logins,
            web_logins: self.web_logins,
            crossings: self
                .crossings
                .iter()
                .filter(|(from, to)| from != to)
                .count() as u64,
            migrations: self.datagrams.migrations,
            thieves: self.thieves,
            admitted: self.line.admitted,
            channel_messages: self.talk.heard,
        }
    }

    fn begin(&mut self) {
        self.at_ms(0, Event::CenterStart);
        for game in 0..self.games.len() {
            self.at_ms(0, Event::GameStart { game });
        }
        for gateway in 0..self.plan.gateways {
            self.at_ms(1, Event::GatewayStart { gateway });
        }
        for client in 0..self.clients.len() {
            let after_us = 5_000 + self.random.below(2_000_000);
            self.after_us(after_us, Event::Connect { client, life: 0 });
        }
        if self.plan.cut_every_ms > 0 {
            for client in 0..self.clients.len() {
                self.schedule_cut(client);
            }
        }
        self.schedule_fault();
        self.push(self.plan.heal_at, Event::Heal);
    }

    fn push(&mut self, at: Time, event: Event) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), event);
    }

    fn after_us(&mut self, us: u64, event: Event) {
        self.push(self.now + us, event);
    }

    fn at_ms(&mut self, ms: u64, event: Event) {
        self.push(Time(0).after_ms(ms), event);
    }

    /// Whether the plant of this run is `plant`, and one time in `every` strikes.
    fn strikes(&mut self, plant: Plant, every: u64) -> bool {
        if self.plant != Some(plant) {
            return false;
        }
        self.plant_chances += 1;
        self.plant_chances.is_multiple_of(every)
    }

    fn handle(&mut self, event: Event) -> Step {
        match event {
            Event::Connect { client, life } => self.client_connect(client, life)?,
            Event::ClientAct { client, life } => self.client_act(client, life)?,
            Event::ClientWalk { client, life } => self.client_walk(client, life)?,
            Event::ClientWake { client } => self.client_wake(client)?,
            Event::ReadAgain { client } => self.client_read_again(client)?,
            Event::Accept { conn } => self.accept(conn)?,
            Event::Established { conn } => self.established(conn)?,
            Event::Refused { conn } => self.refused(conn)?,
            Event::Segment {
                conn,
                direction,
                segment,
            } => self.segment(conn, direction, segment)?,
            Event::DatagramUp {
                gateway,
                from,
                bytes,
                mark,
            } => self.datagram_up(gateway, from, bytes, mark)?,
            Event::DatagramDown {
                to,
                bytes,
                is_changed,
            } => self.datagram_down(to, bytes, is_changed)?,
            Event::Sent { conn } => self.sent(conn)?,
            Event::ClientTold { conn } => self.client_told(conn)?,
            Event::ShardTold { conn } => self.shard_told(conn)?,
            Event::ShardRead { conn } => self.shard_read(conn)?,
            Event::ShardWake { shard } => self.shard_wake(shard)?,
            Event::GatewayStop { gateway } => self.gateway_stop(gateway),
            Event::GatewayStart { gateway } => self.gateway_start(gateway),
            Event::Dial {
                shard,
                uplink,
                boot,
            } => self.dial(shard, uplink, boot),
            Event::LinkUp { link } => self.link_up(link)?,
            Event::Chunk {
                link,
                direction,
                stream,
                bytes,
            } => self.chunk(link, direction, stream, &bytes)?,
            Event::LinkShardTold { link } => self.link_shard_told(link)?,
            Event::LinkTargetTold { link } => self.link_target_told(link)?,
            Event::CenterStart => self.center_start()?,
            Event::CenterWake { boot } => self.center_wake(boot)?,
            Event::CenterDisk { boot, batch } => self.center_disk(boot, batch)?,
            Event::GameStart { game } => self.game_start(game)?,
            Event::GameWake { game } => self.game_wake(game)?,
            Event::GameAct { game, boot } => self.game_act(game, boot)?,
            Event::Cut { client } => self.cut_client(client),
            Event::Fault => self.fault()?,
            Event::Heal => self.heal(),
            Event::Quiet => self.quiet()?,
            Event::Look => self.look()?,
        }
        Ok(())
    }
}
