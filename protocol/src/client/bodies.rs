//! What a client makes of each body that has passed the checks of its envelope.
//!
//! Invariant: a body that only a client may send, or one at the wrong time, ends the connection;
//! one that is for something unknown here changes nothing.

use super::{Client, Closed, Event, State};
use crate::body::{BadBody, Body, CREDIT_UNLIMITED, Lane};
use crate::check::Age;
use crate::compress::Scratch;
use crate::frame::FLAG_COMPRESSED;
use crate::ids::{GroupId, SessionId};
use crate::reason::CloseReason;
use crate::stream::{Delivery, StreamEnd};
use crate::time::Time;

impl Client {
    pub(super) fn handle_body(
        &mut self,
        now: Time,
        flags: u8,
        age: Age,
        body: Result<Body<'_>, BadBody>,
        scratch: &mut Scratch,
        events: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Closed> {
        let bad = Closed::ByClient(CloseReason::BadBody);
        let body = match body {
            Ok(body) => body,
            // A later version may add kinds; this client has no use for them.
            Err(BadBody::UnknownKind(_)) => return Ok(()),
            Err(BadBody::Malformed) => return Err(bad),
        };
        // Only messages have a payload to compress.
        let has_payload = matches!(body, Body::Message { .. } | Body::ChannelMessage { .. });
        if flags & FLAG_COMPRESSED != 0 && !has_payload {
            return Err(bad);
        }
        match body {
            Body::LoginOk { session, .. } => {
                if session == SessionId(0) {
                    return Err(bad);
                }
                let is_resume = self.session != SessionId(0);
                if is_resume && session != self.session {
                    return Err(bad);
                }
                if let State::Login(connection) = std::mem::replace(&mut self.state, State::Closed)
                {
                    self.session = session;
                    self.state = State::Up(connection);
                    if !is_resume {
                        self.ping_at = now;
                    }
                    self.open_side_path(now);
                    events(if is_resume {
                        Event::Resumed(session)
                    } else {
                        Event::LoggedIn(session)
                    });
                    Ok(())
                } else {
                    Err(bad)
                }
            }
            Body::Queue(position) => {
                let State::Login(connection) = &self.state else {
                    return Err(bad);
                };
                if self.session != SessionId(0) {
                    return Err(bad);
                }
                if !std::mem::replace(&mut self.is_queued, true) {
                    let interval_ms = connection.parameters.heartbeat_interval_ms;
                    self.ping_at = now.after_ms(u64::from(interval_ms));
                }
                events(Event::Queued(position));
                Ok(())
            }
            Body::Close {
                reason,
                retry_after_ms,
                text,
            } => {
                self.retry_after_ms = retry_after_ms;
                self.close_text = text.into();
                Err(Closed::ByGateway(CloseReason::from_code(reason)))
            }
            Body::Ping(ping) => {
                if let State::Login(connection) | State::Up(connection) = &mut self.state {
                    connection.pong(now, &ping, &mut self.out);
                }
                Ok(())
            }
            Body::Pong(pong) => {
                if let State::Login(connection) | State::Up(connection) = &mut self.state
                    && let Some(us) = connection.meter.handle_pong(now, &pong)
                {
                    events(Event::RoundTrip(us));
                }
                Ok(())
            }
            Body::Sync(sync) => {
                let Ok(index) = self.stream(sync.group) else {
                    return Ok(());
                };
                if self.streams[index].is_left_end(&sync) {
                    return Err(Closed::ByClient(CloseReason::LinkLost));
                }
                if self.streams[index].handle_sync(&sync) {
                    events(Event::GroupUp(sync.group));
                }
                Ok(())
            }
            Body::Ack { group, ack } => {
                if let Some(stream) = self.known_stream(group) {
                    stream.handle_ack(ack);
                }
                Ok(())
            }
            Body::Credit { group, bytes } => {
                if let Some(stream) = self.known_stream(group) {
                    stream.set_credit((bytes != CREDIT_UNLIMITED).then_some(bytes));
                }
                Ok(())
            }
            Body::GroupDown { group } => {
                if let Some(stream) = self.known_stream(group) {
                    stream.detach();
                }
                events(Event::GroupDown(group));
                Ok(())
            }
            Body::Message { header, payload } => {
                let Some(stream) = self.known_stream(header.group) else {
                    return Ok(());
                };
                let deliver = match header.lane {
                    Lane::Reliable => {
                        stream.handle_message(header.number, header.ack, now) == Delivery::Deliver
                    }
                    // An acknowledgement rides on every lane.
                    Lane::Sequenced => {
                        stream.handle_ack(header.ack);
                        age == Age::Fresh && stream.handle_sequenced(header.number)
                    }
                    Lane::Unreliable => {
                        stream.handle_ack(header.ack);
                        age == Age::Fresh
                    }
                };
                if header.lane != Lane::Reliable {
                    self.side.want();
                }
                if deliver {
                    let payload = if flags & FLAG_COMPRESSED != 0 {
                        scratch
                            .decompress(payload)
                            .map_err(|_| Closed::ByClient(CloseReason::BadCompression))?
                    } else {
                        payload
                    };
                    events(Event::Message(header, payload));
                }
                Ok(())
            }
            Body::Channel {
                group,
                channel,
                notice,
            } => self.handle_notice(group, channel, &notice, events),
            Body::ChannelMessage { header, payload } => {
                self.handle_channel_message(&header, payload, flags, age, scratch, events)
            }
            Body::Side { cid, secret } => {
                let policy = self.config.rekey;
                if self.side.open(now, cid, secret, policy) {
                    Ok(())
                } else {
                    Err(bad)
                }
            }
            Body::Login(_) | Body::Logout | Body::Attach | Body::SideOpen => Err(bad),
        }
    }

    /// The stream of a group that this client has spoken with, or heard of.
    fn known_stream(&mut self, group: GroupId) -> Option<&mut StreamEnd> {
        let mut streams = self.streams.iter_mut();
        streams.find(|stream| stream.group() == group)
    }
}
