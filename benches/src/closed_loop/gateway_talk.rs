//! Talk with a gateway: the client's core of `protocol`, a token of its own for
//! each connection, requests to one group.
//!
//! Invariant: a connection can ask once its group is up, and an answer is the
//! reply with the id and the payload of the last request.

use std::io;

use loadtest::plan::{decode_key, fill_random};
use protocol::body::MessageKind;
use protocol::cipher::RekeyPolicy;
use protocol::client::{Client, ClientConfig, Event, Shared};
use protocol::ids::{GroupId, MessageId};
use protocol::limits::TOKEN_LIFE_MS_MAX;
use protocol::stream::OutboxLimits;
use protocol::time::{Now, Time};
use protocol::token::{Claims, issue};

use super::{Args, Heard, Talk};
use crate::tiny::noise;

pub(super) const GROUP: GroupId = GroupId(1);
const MESSAGE: MessageId = MessageId(1);
/// The default of a gateway's `token.audience`.
const AUDIENCE: &str = "sallyport";

struct Line {
    client: Client,
    /// Id of the request that is outstanding.
    request: u32,
}

pub(super) struct GatewayTalk {
    logins: Logins,
    lines: Vec<Option<Box<Line>>>,
    shared: Shared,
    payload: Vec<u8>,
}

impl GatewayTalk {
    pub(super) fn new(args: &Args) -> io::Result<Self> {
        Ok(Self {
            logins: Logins::new(args)?,
            lines: (0..args.connections).map(|_| None).collect(),
            shared: Shared::default(),
            payload: noise(args.payload_bytes.into()),
        })
    }
}

/// Makes clients, each with a token of its own.
pub(super) struct Logins {
    gateway_key: [u8; 32],
    token_secret: [u8; 64],
}

impl Logins {
    pub(super) fn new(args: &Args) -> io::Result<Self> {
        Ok(Self {
            gateway_key: key("--key", args.key.as_deref())?,
            token_secret: key("--token-key", args.token_key.as_deref())?,
        })
    }

    pub(super) fn client(&self, index: u32, now: Now) -> io::Result<Client> {
        let claims = Claims {
            audience: AUDIENCE.into(),
            account: format!("closed-loop-{index}"),
            id: format!("closed-loop-{index}-{}", now.unix_ms),
            issued_unix_ms: now.unix_ms,
            expires_unix_ms: now.unix_ms + TOKEN_LIFE_MS_MAX / 2,
        };
        let config = ClientConfig {
            gateway_key: self.gateway_key,
            token: issue(&self.token_secret, &claims).map_err(io::Error::other)?,
            client_version: 1,
            channel: "closed-loop".into(),
            device: "closed-loop".into(),
            outbox: OutboxLimits::default(),
            rekey: RekeyPolicy::default(),
            // The content does not shrink; trying is the gateway's cost only.
            compress_bytes_min: usize::MAX,
        };
        let mut ephemeral = [0; 32];
        fill_random(&mut ephemeral)?;
        Client::connect(config, ephemeral, now.time)
            .map_err(|reason| io::Error::other(reason.label()))
    }
}

fn key<const N: usize>(argument: &str, text: Option<&str>) -> io::Result<[u8; N]> {
    text.and_then(decode_key)
        .ok_or_else(|| io::Error::other(format!("{argument}: {N} bytes of base64url are wanted")))
}

/// What an event of the client means.
fn judge(event: Event<'_>, request: u32, payload: &[u8], heard: &mut io::Result<Heard>) {
    match event {
        Event::GroupUp(GROUP) => *heard = Ok(Heard::Ready),
        Event::GroupDown(group) => {
            *heard = Err(io::Error::other(format!("group {} went down", group.0)));
        }
        Event::Message(header, reply) => {
            let is_right = header.kind == MessageKind::Reply
                && header.group == GROUP
                && header.request == request
                && reply == payload;
            *heard = if is_right && matches!(heard, Ok(Heard::Nothing)) {
                Ok(Heard::Answer)
            } else {
                Err(io::Error::other("a wrong reply, or one too many"))
            };
        }
        Event::Closed(closed) => *heard = Err(io::Error::other(format!("{closed:?}"))),
        Event::LoggedIn(_)
        | Event::Resumed(_)
        | Event::SessionLost(_)
        | Event::GroupUp(_)
        | Event::ChannelJoined(..)
        | Event::ChannelLeft(..)
        | Event::ChannelMessage(..)
        | Event::ChannelLost(..)
        | Event::Queued(_)
        | Event::RoundTrip(_) => {}
    }
}

impl Talk for GatewayTalk {
    fn handle_connected(&mut self, index: u32, now: Now) -> io::Result<Heard> {
        let client = self.logins.client(index, now)?;
        self.lines[index as usize] = Some(Box::new(Line { client, request: 0 }));
        Ok(Heard::Nothing)
    }

    fn handle_received(&mut self, index: u32, data: &mut [u8], now: Time) -> io::Result<Heard> {
        let mut heard = Ok(Heard::Nothing);
        if let Some(line) = &mut self.lines[index as usize] {
            let (request, payload) = (line.request, self.payload.as_slice());
            line.client
                .handle_received(now, data, &mut self.shared, &mut |event| {
                    judge(event, request, payload, &mut heard);
                });
        }
        heard
    }

    fn ask(&mut self, index: u32) -> io::Result<u32> {
        if let Some(line) = &mut self.lines[index as usize] {
            line.request = line
                .client
                .request(GROUP, MESSAGE, &self.payload)
                .map_err(io::Error::other)?;
        }
        Ok(index)
    }

    fn poll_transmit(&mut self, index: u32, now: Time, out: &mut Vec<u8>) -> bool {
        self.lines[index as usize]
            .as_mut()
            .is_some_and(|line| line.client.poll_transmit(now, &mut self.shared, out))
    }

    fn handle_timeout(&mut self, index: u32, now: Time) -> io::Result<()> {
        let mut heard = Ok(Heard::Nothing);
        if let Some(line) = &mut self.lines[index as usize] {
            line.client.handle_timeout(now, &mut |event| {
                judge(event, line.request, &self.payload, &mut heard);
            });
        }
        heard.map(drop)
    }
}
