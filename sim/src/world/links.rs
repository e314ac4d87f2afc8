//! Uplinks: five ordered streams each way, each with delays of its own, lost
//! as a whole. Each side hears of the loss by itself, and the shard dials again.
//!
//! Invariant: on a link that is not cut every byte arrives, in order within
//! its stream; on one that is cut nothing that was on its way does.

use prost::Message as _;
use protocol::control::{ToShard, to_shard};
use protocol::limits::UPLINK_STREAMS;
use protocol::time::Time;
use protocol::uplink;

use super::World;
use super::event::Event;
use super::shard_side::DIAL_MS;
use super::shard_turn::count_records;
use super::tcp::Direction;
use crate::plant::Plant;
use crate::rule::{Rule, Step, check};

const STREAMS: usize = 1 + UPLINK_STREAMS as usize;

/// The longest time, µs, until a side hears of a lost link: QUIC's idle timeout.
const TOLD_US_MAX: u64 = 3_000_000;

/// Where a link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Center.
    Center,
    /// A game instance.
    Game(usize),
}

/// One link.
#[derive(Debug)]
pub struct Link {
    pub shard: usize,
    pub uplink: usize,
    pub target: Target,
    /// Which start of the target.
    pub target_boot: u32,
    /// Both hellos can pass.
    pub is_up: bool,
    /// Nothing passes any more.
    pub is_cut: bool,
    /// The shard's side has it.
    pub shard_open: bool,
    /// The target's side has it.
    pub target_open: bool,
    /// The target's core was told of it.
    pub is_greeted: bool,
    /// Bytes on their way to the target.
    pub queued_bytes: usize,
    /// Bytes are held up until then.
    pub stalled_until: Time,
    last_at: [[Time; STREAMS]; 2],
    partial: [[Vec<u8>; STREAMS]; 2],
    /// DATA records put in and come out, by direction.
    data_in: [u64; 2],
    data_out: [u64; 2],
}

impl World {
    /// Which start of a target answers now.
    fn target_boot(&self, target: Target) -> Option<u32> {
        let (is_up, paused_until, boot) = match target {
            Target::Center => {
                let host = &self.center;
                (host.is_ready(), host.paused_until, host.boot)
            }
            Target::Game(game) => {
                let host = &self.games[game];
                (host.core.is_some(), host.paused_until, host.boot)
            }
        };
        (is_up && paused_until <= self.now).then_some(boot)
    }

    pub(super) fn dial(&mut self, shard: usize, uplink: usize, boot: u32) {
        let host = &self.shards[shard];
        if host.boot != boot || host.core.is_none() || host.dialers[uplink].link.is_some() {
            return;
        }
        let target = match uplink.checked_sub(1) {
            None => Target::Center,
            Some(game) => Target::Game(game),
        };
        let blocked_until = host.dialers[uplink].blocked_until;
        let answers = self
            .target_boot(target)
            .filter(|_| blocked_until <= self.now);
        let Some(target_boot) = answers else {
            self.dial_later(shard, uplink);
            return;
        };
        let link = self.next_link;
        self.next_link += 1;
        self.links.insert(
            link,
            Link {
                shard,
                uplink,
                target,
                target_boot,
                is_up: false,
                is_cut: false,
                shard_open: true,
                target_open: true,
                is_greeted: false,
                queued_bytes: 0,
                stalled_until: Time(0),
                last_at: Default::default(),
                partial: Default::default(),
                data_in: [0; 2],
                data_out: [0; 2],
            },
        );
        self.shards[shard].dialers[uplink].link = Some(link);
        let after_us = 3 * self.plan.link_delay_us + self.random.below(2_000);
        self.after_us(after_us, Event::LinkUp { link });
    }

    fn dial_later(&mut self, shard: usize, uplink: usize) {
        let host = &mut self.shards[shard];
        if host.core.is_none() {
            return;
        }
        let boot = host.boot;
        let dialer = &mut host.dialers[uplink];
        let pause_ms = dialer.backoff_ms.clamp(DIAL_MS.0, DIAL_MS.1);
        dialer.backoff_ms = (2 * pause_ms).min(DIAL_MS.1);
        let after_us = self.random.between(500 * pause_ms, 1_500 * pause_ms);
        self.after_us(
            after_us,
            Event::Dial {
                shard,
                uplink,
                boot,
            },
        );
    }

    pub(super) fn link_up(&mut self, number: u64) -> Step {
        let Some(link) = self.links.get_mut(&number).filter(|link| !link.is_cut) else {
            return Ok(());
        };
        link.is_up = true;
        let (shard, uplink) = (link.shard, link.uplink);
        let host = &mut self.shards[shard];
        host.dialers[uplink].backoff_ms = 0;
        if let Some(core) = &mut host.core {
            core.handle_uplink_connected(uplink);
        }
        self.shard_turn(shard)
    }

    /// What a shard's core appended for a link.
    pub(super) fn shard_link_write(
        &mut self,
        shard: usize,
        uplink: usize,
        stream: u8,
        bytes: Vec<u8>,
    ) -> Step {
        match self.shards[shard].dialers[uplink].link {
            Some(link) => self.link_write(link, Direction::Up, stream, bytes),
            None => Ok(()),
        }
    }

    /// Puts whole units on one stream of a link.
    pub(super) fn link_write(
        &mut self,
        number: u64,
        direction: Direction,
        stream: u8,
        bytes: Vec<u8>,
    ) -> Step {
        let bytes = self.planted(number, direction, stream, bytes);
        let Some(link) = self.links.get_mut(&number) else {
            return Ok(());
        };
        if stream != 0 {
            link.data_in[direction as usize] += count_records(&bytes).0;
        }
        if link.is_cut {
            return Ok(());
        }
        if direction == Direction::Up {
            link.queued_bytes += bytes.len();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            // QUIC cuts a stream anywhere.
            let part = if self.random.chance(150) {
                1 + self.random.index(rest.len())
            } else {
                rest.len()
            };
            let (chunk, behind) = rest.split_at(part);
            rest = behind;
            let mut delay_us = self.plan.link_delay_us + self.random.below(1_000);
            if self.random.chance(20) {
                // A lost packet holds its own stream up, not the others.
                delay_us += self.random.below(4 * self.plan.link_delay_us + 10_000);
            }
            let Some(link) = self.links.get_mut(&number) else {
                return Ok(());
            };
            let last_at = &mut link.last_at[direction as usize][usize::from(stream)];
            let at = (self.now + delay_us).max(link.stalled_until).max(*last_at);
            *last_at = at;
            self.push(
                at,
                Event::Chunk {
                    link: number,
                    direction,
                    stream,
                    bytes: chunk.to_vec(),
                },
            );
        }
        Ok(())
    }

    /// Bytes come out of a stream: whole units go to who they are for.
    pub(super) fn chunk(
        &mut self,
        number: u64,
        direction: Direction,
        stream: u8,
        bytes: &[u8],
    ) -> Step {
        let Some(link) = self.links.get_mut(&number) else {
            return Ok(());
        };
        if direction == Direction::Up {
            link.queued_bytes = link.queued_bytes.saturating_sub(bytes.len());
        }
        if link.is_cut {
            return Ok(());
        }
        let (shard, uplink, target) = (link.shard, link.uplink, link.target);
        let partial = &mut link.partial[direction as usize][usize::from(stream)];
        partial.extend_from_slice(bytes);
        if stream == 0 {
            let received = std::mem::take(partial);
            let mut rest = received.as_slice();
            while let Some(message) = next_control(&mut rest) {
                match direction {
                    Direction::Down if self.links.get(&number).is_some_and(|l| l.shard_open) => {
                        let grant = granted_session(message);
                        self.shard_control(shard, uplink, message)?;
                        if grant {
                            self.check_one_live_session(None)?;
                        }
                    }
                    Direction::Down => {}
                    Direction::Up => self.target_control(number, message)?,
                }
            }
            if let Some(link) = self.links.get_mut(&number) {
                link.partial[direction as usize][0] = rest.to_vec();
            }
        } else {
            let whole = whole_records(partial);
            let mut run: Vec<u8> = partial.drain(..whole).collect();
            if run.is_empty() {
                return Ok(());
            }
            if self.plant == Some(Plant::DropRecordUncounted) && direction == Direction::Up {
                run = self.without_some(&run);
            }
            if let Some(link) = self.links.get_mut(&number) {
                link.data_out[direction as usize] += count_records(&run).0;
            }
            match direction {
                Direction::Down => {
                    if self.links.get(&number).is_some_and(|link| link.shard_open) {
                        self.shard_records(shard, uplink, &run)?;
                    }
                }
                Direction::Up => match target {
                    Target::Game(game) => self.game_records(game, number, &run)?,
                    Target::Center => {
                        check(false, Rule::CoresAgree, || {
                            "a shard sent center a record".to_owned()
                        })?;
                    }
                },
            }
        }
        // A shard whose senders wait for room is told of it.
        if direction == Direction::Up {
            self.shard_turn(shard)?;
        }
        Ok(())
    }

    fn target_control(&mut self, number: u64, message: &[u8]) -> Step {
        let Some(link) = self.links.get(&number).filter(|link| link.target_open) else {
            return Ok(());
        };
        match link.target {
            Target::Center => self.center_control(number, message),
            Target::Game(game) => self.game_control(game, number, message),
        }
    }

    /// Cuts the links that `which` chooses. `silent`: nobody says so at once.
    pub(super) fn cut_links(&mut self, which: impl Fn(&Link) -> bool, silent: bool) {
        let chosen: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| !link.is_cut && which(link))
            .map(|(number, _)| *number)
            .collect();
        for number in chosen {
            if let Some(link) = self.links.get_mut(&number) {
                link.is_cut = true;
                link.queued_bytes = 0;
            }
            let most_us = if silent {
                TOLD_US_MAX
            } else {
                2 * self.plan.link_delay_us
            };
            let (shard_us, target_us) = (self.random.below(most_us), self.random.below(most_us));
            self.after_us(shard_us, Event::LinkShardTold { link: number });
            self.after_us(target_us, Event::LinkTargetTold { link: number });
        }
    }

    pub(super) fn link_shard_told(&mut self, number: u64) -> Step {
        let Some(link) = self.links.get_mut(&number).filter(|link| link.shard_open) else {
            return Ok(());
        };
        link.shard_open = false;
        let (shard, uplink, was_up) = (link.shard, link.uplink, link.is_up);
        let host = &mut self.shards[shard];
        if host.core.is_some()
            && let Some(dialer) = host.dialers.get_mut(uplink)
            && dialer.link == Some(number)
        {
            dialer.link = None;
            if was_up && let Some(core) = &mut host.core {
                core.handle_uplink_lost(uplink);
            }
            self.dial_later(shard, uplink);
            self.shard_turn(shard)?;
        }
        self.forget_link(number);
        Ok(())
    }

    pub(super) fn link_target_told(&mut self, number: u64) -> Step {
        let Some(link) = self.links.get_mut(&number).filter(|link| link.target_open) else {
            return Ok(());
        };
        link.target_open = false;
        if link.is_greeted {
            let (target, boot) = (link.target, link.target_boot);
            match target {
                Target::Center if self.center.boot == boot => self.center_link_down(number)?,
                Target::Game(game) if self.games[game].boot == boot => {
                    self.game_link_down(game, number)?;
                }
                _ => {}
            }
        }
        self.forget_link(number);
        Ok(())
    }

    fn forget_link(&mut self, number: u64) {
        if let Some(link) = self.links.get(&number)
            && link.is_cut
            && !link.shard_open
            && !link.target_open
        {
            self.links.remove(&number);
        }
    }

    /// At the end: what went into links that were never cut has come out.
    pub(super) fn check_links(&self) -> Step {
        for (number, link) in &self.links {
            check(
                link.is_cut || link.data_in == link.data_out,
                Rule::DropsCounted,
                || {
                    format!(
                        "link {number}: {:?} records went in, {:?} came out",
                        link.data_in, link.data_out
                    )
                },
            )?;
        }
        Ok(())
    }
}

/// The next whole control message of a stream.
pub fn next_control<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (message, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = behind;
    Some(message)
}

/// Bytes of the whole records at the start of a stream.
fn whole_records(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Ok(Some(length)) = uplink::length(&bytes[at..])
        && bytes.len() - at >= length
    {
        at += length;
    }
    at
}

fn granted_session(message: &[u8]) -> bool {
    ToShard::decode(message)
        .is_ok_and(|m| matches!(m.message, Some(to_shard::Message::ClaimGranted(_))))
}
