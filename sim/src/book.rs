//! What every client sent and every game heard, and the rules over it.
//!
//! It sees only the ends (applications, games, center's grants), never the
//! cores' insides. Invariant: each `note_*` either keeps the rules or fails.

use std::collections::{BTreeMap, BTreeSet};

use protocol::body::{Lane, MessageHeader, MessageKind};
use protocol::ids::{Fence, SessionId};

use crate::game::Heard;
use crate::message::{self, FromGame, Sent};
use crate::rule::{Rule, Step, Violation, check};

/// Which process: game instance and start.
pub type Boot = (usize, u32);

/// Which shard, and which start of it.
pub type Asker = (usize, u32);

#[derive(Clone, Debug)]
struct Claimed {
    by: Asker,
    account: String,
    token: String,
}

/// One connection of one client, and what became of it.
#[derive(Debug, Default)]
pub struct Attempt {
    /// Once logged in.
    pub session: Option<SessionId>,
    /// Messages taken by the client's core, by lane.
    pub pushed: [u32; 3],
    /// By index of the reliable lane: the stay that processed it last.
    processed: Vec<u32>,
    /// By stay: the lowest reliable index that may come next.
    next_in_life: BTreeMap<u32, u32>,
    /// Unreliable and sequenced messages that a game heard.
    heard: BTreeSet<(u8, u32)>,
    /// By stay: the last sequenced message heard.
    sequenced: BTreeMap<u32, u32>,
    requests: BTreeMap<u32, Asked>,
    /// By stay: how many reliable messages came from it.
    received: BTreeMap<u32, u32>,
    /// Unreliable and sequenced messages that the client received.
    got: BTreeSet<(u32, u8, u32)>,
    got_sequenced: BTreeMap<u32, u32>,
}

#[derive(Debug)]
struct Asked {
    index: u32,
    /// The last answer came, from this process.
    answered: Option<Boot>,
}

/// A session's stay at an instance.
#[derive(Debug)]
struct Life {
    boot: Boot,
    session: SessionId,
    account: String,
    fence: Fence,
    is_present: bool,
}

/// Everything noted.
#[derive(Debug, Default)]
pub struct Book {
    /// All attempts, by number.
    pub attempts: Vec<Attempt>,
    by_session: BTreeMap<SessionId, u32>,
    lives: BTreeMap<u32, Life>,
    /// Sessions that a process heard of, and whether it heard of their end.
    stays: BTreeMap<(Boot, SessionId), bool>,
    fences: BTreeMap<(Boot, String), Fence>,
    claims: BTreeMap<(u64, u64), Claimed>,
    sessions_granted: BTreeSet<u64>,
    fences_given: BTreeSet<u64>,
    last_fences: BTreeMap<String, u64>,
    /// The fence of each session that center gave to another shard.
    moved: BTreeMap<u64, u64>,
    /// How often it did.
    pub moves: u64,
    tokens_granted: BTreeMap<String, (Asker, u64)>,
    ephemerals: BTreeSet<Vec<u8>>,
}

impl Book {
    /// A client begins a connection.
    pub fn note_attempt(&mut self) -> u32 {
        self.attempts.push(Attempt::default());
        self.attempts.len() as u32 - 1
    }

    /// A client is logged in.
    pub fn note_login(&mut self, attempt: u32, session: SessionId) -> Step {
        let earlier = self.by_session.insert(session, attempt);
        check(earlier.is_none(), Rule::IdsNeverRepeat, || {
            format!("session {session} was given to two logins")
        })?;
        self.attempts[attempt as usize].session = Some(session);
        Ok(())
    }

    /// A client's core took a message; a request has an id.
    pub fn note_sent(&mut self, sent: &Sent, request: Option<u32>) {
        let attempt = &mut self.attempts[sent.attempt as usize];
        attempt.pushed[usize::from(sent.lane)] += 1;
        if let Some(request) = request {
            let asked = Asked {
                index: sent.index,
                answered: None,
            };
            attempt.requests.insert(request, asked);
        }
    }

    /// A client received a message.
    pub fn note_received(&mut self, number: u32, header: &MessageHeader, payload: &[u8]) -> Step {
        let garbled = || Violation::new(Rule::RepliesMatch, "a client received changed content");
        let (from, payload) = FromGame::decode(payload).ok_or_else(garbled)?;
        let life = self.lives.get(&from.life).ok_or_else(garbled)?;
        let (boot, attempt) = (life.boot, &mut self.attempts[number as usize]);
        check(
            attempt.session == Some(life.session),
            Rule::RepliesMatch,
            || {
                format!(
                    "attempt {number} received a message of session {}",
                    life.session
                )
            },
        )?;
        match header.lane {
            Lane::Reliable => {
                let next = attempt.received.entry(from.life).or_default();
                check(from.counter == *next, Rule::ReliableExactlyOnce, || {
                    format!(
                        "attempt {number} received number {} of stay {} instead of {next}",
                        from.counter, from.life
                    )
                })?;
                *next += 1;
            }
            lane => {
                let lane = message::lane_number(lane);
                let is_new = attempt.got.insert((from.life, lane, from.counter));
                check(is_new, Rule::UnreliableAtMostOnce, || {
                    format!("attempt {number} received an unreliable message twice")
                })?;
                if header.lane == Lane::Sequenced {
                    let last = attempt.got_sequenced.insert(from.life, from.counter);
                    check(
                        last < Some(from.counter),
                        Rule::UnreliableAtMostOnce,
                        || format!("attempt {number} received a sequenced message late"),
                    )?;
                }
            }
        }
        let sent = message::decode(payload).ok_or_else(garbled)?;
        match header.kind {
            MessageKind::Reply => {
                let asked = attempt.requests.get_mut(&header.request);
                let fits = asked
                    .as_ref()
                    .is_some_and(|asked| sent.attempt == number && asked.index == sent.index);
                check(fits, Rule::RepliesMatch, || {
                    format!("attempt {number} received a reply to something else")
                })?;
                if let Some(asked) = asked {
                    check(asked.answered != Some(boot), Rule::RepliesMatch, || {
                        format!("attempt {number} received a reply after the last one")
                    })?;
                    if !header.more {
                        asked.answered = Some(boot);
                    }
                }
                Ok(())
            }
            MessageKind::Message => Ok(()),
            MessageKind::Request | MessageKind::Error => Err(garbled()),
        }
    }

    /// A game's logic heard something.
    pub fn note_heard(&mut self, boot: Boot, heard: Heard) -> Step {
        match heard {
            Heard::Connected {
                session,
                fence,
                account,
                life,
            } => {
                let earlier = self.stays.insert((boot, session), true);
                check(earlier.is_none(), Rule::EventOnce, || {
                    format!("game {boot:?} heard of the coming of session {session} again")
                })?;
                let highest = self
                    .fences
                    .insert((boot, account.clone()), fence)
                    .unwrap_or_default();
                check(highest < fence, Rule::OneLiveSession, || {
                    format!("game {boot:?} took {account} under fence {fence} after {highest}")
                })?;
                let life_of = Life {
                    boot,
                    session,
                    account,
                    fence,
                    is_present: true,
                };
                self.lives.insert(life, life_of);
                Ok(())
            }
            Heard::Disconnected { session } => {
                let was_here = self.stays.insert((boot, session), false);
                for life in self.lives.values_mut() {
                    if life.boot == boot && life.session == session {
                        life.is_present = false;
                    }
                }
                check(was_here == Some(true), Rule::EventOnce, || {
                    format!("game {boot:?} heard of the going of session {session} again")
                })
            }
            Heard::Received {
                session,
                life,
                lane,
                payload,
            } => self.note_processed(boot, session, life, lane, &payload),
            // Of a map; its truth checks them.
            Heard::Entered { .. } | Heard::Moved { .. } | Heard::Ticked { .. } => Ok(()),
            // Of channels; what is known of their talk checks them.
            Heard::Published { .. } | Heard::Left { .. } => Ok(()),
        }
    }

    fn note_processed(
        &mut self,
        boot: Boot,
        session: SessionId,
        life: u32,
        lane: Lane,
        payload: &[u8],
    ) -> Step {
        let stay = self.lives.get(&life);
        let is_present = stay.is_some_and(|stay| stay.is_present && stay.session == session);
        check(is_present, Rule::EventOnce, || {
            format!("game {boot:?} heard from session {session}, which is not there")
        })?;
        if let Some(stay) = stay {
            let highest = self.fences.get(&(boot, stay.account.clone()));
            check(highest == Some(&stay.fence), Rule::OneLiveSession, || {
                format!(
                    "game {boot:?} processed {} under fence {} after {highest:?}",
                    stay.account, stay.fence
                )
            })?;
        }
        let garbled = || Violation::new(Rule::RepliesMatch, "a game heard changed content");
        let sent = message::decode(payload).ok_or_else(garbled)?;
        let Some(attempt) = self.attempts.get_mut(sent.attempt as usize) else {
            return Err(garbled());
        };
        check(
            attempt.session == Some(session) && sent.lane == message::lane_number(lane),
            Rule::RepliesMatch,
            || {
                format!(
                    "session {session} sent what attempt {} had sent",
                    sent.attempt
                )
            },
        )?;
        check(
            sent.index < attempt.pushed[usize::from(sent.lane)],
            Rule::RepliesMatch,
            || format!("attempt {} never sent number {}", sent.attempt, sent.index),
        )?;
        if lane != Lane::Reliable {
            let is_new = attempt.heard.insert((sent.lane, sent.index));
            check(is_new, Rule::UnreliableAtMostOnce, || {
                format!("a game heard an unreliable message of session {session} twice")
            })?;
            if lane == Lane::Sequenced {
                let last = attempt.sequenced.insert(life, sent.index);
                check(last < Some(sent.index), Rule::UnreliableAtMostOnce, || {
                    format!("a game heard a sequenced message of session {session} late")
                })?;
            }
            return Ok(());
        }
        let index = sent.index as usize;
        check(
            index <= attempt.processed.len(),
            Rule::ReliableExactlyOnce,
            || {
                format!(
                    "session {session}: number {index} was processed, the one before was not; {} were",
                    attempt.processed.len()
                )
            },
        )?;
        let next = attempt.next_in_life.get(&life).copied().unwrap_or(0);
        check(sent.index >= next, Rule::ReliableExactlyOnce, || {
            format!("session {session}: number {index} was processed again by stay {life}")
        })?;
        attempt.next_in_life.insert(life, sent.index + 1);
        match attempt.processed.get_mut(index) {
            None => attempt.processed.push(life),
            Some(by) => {
                let earlier = self.lives.get(by).map(|life| life.boot);
                check(earlier != Some(boot), Rule::ReliableExactlyOnce, || {
                    format!("session {session}: {boot:?} processed number {index} again")
                })?;
                *by = life;
            }
        }
        Ok(())
    }

    /// A game process is gone, and what it knew.
    pub fn note_game_died(&mut self, boot: Boot) {
        for life in self.lives.values_mut() {
            if life.boot == boot {
                life.is_present = false;
            }
        }
    }

    /// A shard asked center for a session.
    pub fn note_claim(&mut self, link: u64, by: Asker, claim: u64, account: &str, token: &str) {
        let claimed = Claimed {
            by,
            account: account.to_owned(),
            token: token.to_owned(),
        };
        self.claims.insert((link, claim), claimed);
    }

    /// Center granted a claim: whose it was.
    pub fn note_grant(
        &mut self,
        link: u64,
        claim: u64,
        session: u64,
        fence: u64,
    ) -> Result<String, Violation> {
        let Claimed { by, account, token } =
            self.claims.get(&(link, claim)).cloned().ok_or_else(|| {
                Violation::new(
                    Rule::CoresAgree,
                    format!("center granted claim {claim}, which was not asked"),
                )
            })?;
        let is_new = self.sessions_granted.insert(session);
        check(is_new, Rule::IdsNeverRepeat, || {
            format!("center granted session {session} again")
        })?;
        self.note_fence(&account, fence)?;
        // A claim whose answer was lost with its link is asked again.
        let asked = (by, claim);
        let first = *self.tokens_granted.entry(token).or_insert(asked);
        check(first == asked, Rule::TokenOnce, || {
            format!("a token of {account} was granted a second session, {session}")
        })?;
        Ok(account)
    }

    /// Center gave a session to another shard.
    pub fn note_moved(&mut self, session: u64, account: &str, fence: u64) -> Step {
        self.note_fence(account, fence)?;
        self.moves += 1;
        self.moved.insert(session, fence);
        Ok(())
    }

    /// A fence is given once. Those of one account rise; those of others may cross, since a
    /// claim waits for the disk and a move does not.
    fn note_fence(&mut self, account: &str, fence: u64) -> Step {
        let is_new = self.fences_given.insert(fence);
        let last = self.last_fences.insert(account.to_owned(), fence);
        check(is_new && last < Some(fence), Rule::IdsNeverRepeat, || {
            format!("center gave {account} fence {fence} after {last:?}")
        })
    }

    /// Whether center gave a session to another shard after this fence.
    pub fn was_moved(&self, session: u64, fence: u64) -> bool {
        self.moved.get(&session).is_some_and(|last| *last > fence)
    }

    /// An end of a handshake showed its ephemeral public key.
    pub fn note_ephemeral(&mut self, key: &[u8]) -> Step {
        let is_new = self.ephemerals.insert(key.to_vec());
        check(is_new, Rule::NoNonceTwice, || {
            "an ephemeral key was used for two handshakes".to_owned()
        })
    }

    /// Why a live session's messages are not all done, if so: processed,
    /// answered and received.
    pub fn undone(&self, number: u32, sent_by_game: Option<(u32, u32)>) -> Option<String> {
        let attempt = &self.attempts[number as usize];
        let (processed, pushed) = (attempt.processed.len(), attempt.pushed[0]);
        if processed != pushed as usize {
            return Some(format!("{processed} of {pushed} messages were processed"));
        }
        for (request, asked) in &attempt.requests {
            // What an instance processed and took to its grave is not answered.
            let life = attempt.processed.get(asked.index as usize);
            let is_alive = life
                .and_then(|life| self.lives.get(life))
                .is_some_and(|life| life.is_present);
            if asked.answered.is_none() && is_alive {
                return Some(format!("request {request} was not answered"));
            }
        }
        if let Some((life, sent)) = sent_by_game {
            let received = attempt.received.get(&life).copied().unwrap_or(0);
            if received != sent {
                return Some(format!("{received} of {sent} messages of the game came"));
            }
        }
        None
    }
}
