//! Talk in which one message is for all: the first connection says it, and each of them has to hear
//! it before the next is said. With a gateway they are members of a channel of the game `chat`; with
//! a bare server they hear the bytes as they were sent.
//!
//! Invariant: a message is another one than that before it, and a connection hears it once.

use std::io;

use loadtest::plan::fill_random;
use protocol::body::Lane;
use protocol::chat::{JOIN, SAY, Say};
use protocol::client::{Client, Event, Shared};
use protocol::time::{Now, Time};

use super::gateway_talk::{GROUP, Logins};
use super::{Args, Heard, Talk};
use crate::tiny::noise;

/// Whose line it is that speaks.
const SPEAKER: u32 = 0;
/// Bytes in front of what somebody said: whose session it was.
const SPEAKER_BYTES: usize = 8;

/// What is said, and who has heard it.
struct Round {
    /// The number of the message is at its front.
    payload: Vec<u8>,
    number: u64,
    /// By line: the number of the last message that it heard.
    heard: Vec<u64>,
    /// Lines that wait for the next one.
    waiting: u32,
    is_due: bool,
}

impl Round {
    fn new(args: &Args) -> Self {
        Self {
            payload: noise(args.payload_bytes.into()),
            number: 0,
            heard: vec![0; args.connections as usize],
            waiting: 0,
            is_due: false,
        }
    }

    fn ask(&mut self) -> u32 {
        self.waiting += 1;
        if self.waiting as usize == self.heard.len() {
            self.waiting = 0;
            self.number += 1;
            self.payload[..8].copy_from_slice(&self.number.to_le_bytes());
            self.is_due = true;
        }
        SPEAKER
    }

    /// A line has heard a whole message.
    fn hear(&mut self, index: u32, is_right: bool) -> io::Result<Heard> {
        let heard = &mut self.heard[index as usize];
        if !is_right || *heard + 1 != self.number {
            return Err(io::Error::other("a wrong message, or one too many"));
        }
        *heard = self.number;
        Ok(Heard::Answer)
    }
}

/// See the module: with a bare server.
pub(super) struct RawMembers {
    round: Round,
    /// By line: bytes of the present message that are here.
    begun: Vec<usize>,
}

impl RawMembers {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            round: Round::new(args),
            begun: vec![0; args.connections as usize],
        }
    }
}

impl Talk for RawMembers {
    fn handle_connected(&mut self, _index: u32, _now: Now) -> io::Result<Heard> {
        Ok(Heard::Ready)
    }

    fn handle_received(&mut self, index: u32, data: &mut [u8], _now: Time) -> io::Result<Heard> {
        let begun = &mut self.begun[index as usize];
        let payload = &self.round.payload;
        let end = *begun + data.len();
        let is_right = payload.get(*begun..end) == Some(&*data);
        if is_right && end < payload.len() {
            *begun = end;
            return Ok(Heard::Nothing);
        }
        *begun = 0;
        self.round.hear(index, is_right)
    }

    fn ask(&mut self, _index: u32) -> io::Result<u32> {
        Ok(self.round.ask())
    }

    fn poll_transmit(&mut self, index: u32, _now: Time, out: &mut Vec<u8>) -> bool {
        let is_due = index == SPEAKER && std::mem::take(&mut self.round.is_due);
        if is_due {
            out.extend_from_slice(&self.round.payload);
        }
        is_due
    }

    fn handle_timeout(&mut self, _index: u32, _now: Time) -> io::Result<()> {
        Ok(())
    }
}

/// See the module: with a gateway.
pub(super) struct Members {
    logins: Logins,
    clients: Vec<Option<Box<Client>>>,
    shared: Shared,
    /// The channel that all are in.
    channel: [u8; 4],
    round: Round,
}

/// What some bytes, or time, have brought a client.
#[derive(Default)]
struct News {
    group_is_up: bool,
    is_member: bool,
    /// A message; whether it is the one that was said.
    message: Option<bool>,
    problem: Option<String>,
}

impl News {
    fn take(&mut self, event: Event<'_>, said: &[u8]) {
        match event {
            Event::GroupUp(GROUP) => self.group_is_up = true,
            Event::ChannelJoined(..) => self.is_member = true,
            Event::ChannelMessage(header, payload) => {
                let is_right = header.message == SAY && payload.get(SPEAKER_BYTES..) == Some(said);
                self.message = Some(is_right && self.message.is_none());
            }
            Event::GroupDown(_)
            | Event::ChannelLeft(..)
            | Event::ChannelLost(..)
            | Event::SessionLost(_)
            | Event::Closed(_) => self.problem = Some(format!("{event:?}")),
            // The answer to JOIN.
            Event::Message(..)
            | Event::LoggedIn(_)
            | Event::Queued(_)
            | Event::Resumed(_)
            | Event::GroupUp(_)
            | Event::RoundTrip(_) => {}
        }
    }
}

impl Members {
    pub(super) fn new(args: &Args) -> io::Result<Self> {
        let mut channel = [0; 4];
        fill_random(&mut channel)?;
        // Channel 0 is everybody's.
        channel[0] |= 1;
        Ok(Self {
            logins: Logins::new(args)?,
            clients: (0..args.connections).map(|_| None).collect(),
            shared: Shared::default(),
            channel,
            round: Round::new(args),
        })
    }

    fn judge(&mut self, index: u32, news: News) -> io::Result<Heard> {
        if let Some(problem) = news.problem {
            return Err(io::Error::other(problem));
        }
        if news.group_is_up
            && let Some(client) = &mut self.clients[index as usize]
        {
            let asked = client.request(GROUP, JOIN, &self.channel);
            asked.map_err(io::Error::other)?;
        }
        match news.message {
            Some(is_right) => self.round.hear(index, is_right),
            None if news.is_member => Ok(Heard::Ready),
            None => Ok(Heard::Nothing),
        }
    }
}

impl Talk for Members {
    fn handle_connected(&mut self, index: u32, now: Now) -> io::Result<Heard> {
        let client = self.logins.client(index, now)?;
        self.clients[index as usize] = Some(Box::new(client));
        Ok(Heard::Nothing)
    }

    fn handle_received(&mut self, index: u32, data: &mut [u8], now: Time) -> io::Result<Heard> {
        let mut news = News::default();
        if let Some(client) = &mut self.clients[index as usize] {
            let said = &self.round.payload;
            client.handle_received(now, data, &mut self.shared, &mut |event| {
                news.take(event, said);
            });
        }
        self.judge(index, news)
    }

    fn ask(&mut self, _index: u32) -> io::Result<u32> {
        Ok(self.round.ask())
    }

    fn poll_transmit(&mut self, index: u32, now: Time, out: &mut Vec<u8>) -> bool {
        let Some(client) = &mut self.clients[index as usize] else {
            return false;
        };
        if index == SPEAKER && std::mem::take(&mut self.round.is_due) {
            let mut say = self.channel.to_vec();
            Say::all(Lane::Reliable, &self.round.payload).encode(&mut say);
            let sent = client.send(now, Lane::Reliable, GROUP, SAY, &say, &mut self.shared);
            // A full outbox: then nothing is heard any more, which ends the run.
            debug_assert!(sent.is_ok());
        }
        client.poll_transmit(now, &mut self.shared, out)
    }

    fn handle_timeout(&mut self, index: u32, now: Time) -> io::Result<()> {
        let mut news = News::default();
        if let Some(client) = &mut self.clients[index as usize] {
            let said = &self.round.payload;
            client.handle_timeout(now, &mut |event| news.take(event, said));
        }
        self.judge(index, news).map(drop)
    }
}
