//! What comes from backends: hellos and control messages, and the records that
//! are sealed for clients.

use prost::Message;
use protocol::body::{Body, ChannelNotice, Lane, MessageKind};
use protocol::client::compressed;
use protocol::control::{self, BackendHello, ToShard, to_backend, to_shard};
use protocol::ids::{Fence, SessionId};
use protocol::limits::{
    CHANNEL_HEADER_BYTES, LABEL_BYTES_MAX, MESSAGE_HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX,
};
use protocol::reason::{CloseReason, DropReason};
use protocol::time::Now;
use protocol::uplink::{self, Record};

use super::backlog::Key;
use super::connection::Binding;
use super::slow::{Outgoing, Way};
use super::uplinks::{CENTER, Uplink};
use super::{Action, Notice, Shard};
use crate::engine::ConnId;

/// The shortest lease, ms, that a shard takes from center. Below it renewals
/// would follow each other without a pause.
const LEASE_MS_MIN: u32 = 300;

impl Uplink {
    /// Whether sessions of this version of the client can be opened here.
    pub(super) fn takes(&self, version: u32) -> bool {
        self.up && self.versions.contains(&version)
    }

    /// Whether a session with this binding is open here.
    pub(super) fn holds(&self, binding: &Binding) -> bool {
        self.up && binding.epoch == self.epoch
    }
}

impl Shard {
    /// The streams of an uplink stand.
    pub fn handle_uplink_connected(&mut self, uplink: usize) {
        let hello = control::ShardHello {
            version: uplink::VERSION,
            gateway: self.config.gateway.clone(),
            shard: self.config.shard.0,
            boot: self.config.boot,
            resume_ms: self.config.resume_ms,
        };
        if let Some(uplink) = self.uplinks.get_mut(uplink) {
            uplink.reset();
            uplink.connected = true;
            uplink.control(to_backend::Message::Hello(hello));
        }
    }

    /// An uplink's link is gone. Sessions stay; their groups are down until it,
    /// or another instance, is there.
    pub fn handle_uplink_lost(&mut self, at: usize) {
        let Some(uplink) = self.uplinks.get_mut(at) else {
            return;
        };
        let untaken = std::mem::take(&mut uplink.out);
        uplink.reset();
        let waiting = uplink.line.take();
        // The first is control's.
        for run in &untaken[1..] {
            self.handle_uplink_untaken(run);
        }
        for id in waiting {
            self.read_again(id);
        }
        self.forget_channels(at);
        if at != CENTER {
            self.binding_sweep = Some(0);
        } else {
            self.report.end();
        }
        self.count_uplinks();
    }

    /// Records that a dead uplink's link had not given to QUIC. The client repeats
    /// what is reliable; the rest is lost here. What QUIC had taken and not
    /// delivered is lost too, but nobody can say how much of it that is.
    pub fn handle_uplink_untaken(&mut self, mut run: &[u8]) {
        while let Ok(Some((_, record))) = uplink::next(&mut run) {
            if let Record::Data(body) = record
                && let Ok(Body::Message { header, .. }) = Body::decode(body)
                && header.lane != Lane::Reliable
            {
                self.counters.drop_frame(DropReason::UplinkLost);
            }
        }
    }

    /// Whether what comes over this uplink is looked at: not after its refusal,
    /// when what was read already still arrives.
    fn hears(&self, at: usize) -> bool {
        self.uplinks.get(at).is_some_and(|uplink| uplink.connected)
    }

    /// A control message from a backend.
    pub fn handle_uplink_control(&mut self, now: Now, at: usize, message: &[u8]) {
        if !self.hears(at) {
            return;
        }
        let decoded = ToShard::decode(message)
            .ok()
            .and_then(|message| message.message);
        let Some(message) = decoded else {
            self.refuse_uplink(at, "it sent a control message that does not decode".into());
            return;
        };
        if let to_shard::Message::Hello(hello) = message {
            self.handle_backend_hello(now, at, &hello);
        } else if at == CENTER && self.uplinks[at].up {
            match message {
                to_shard::Message::ClaimGranted(granted) => {
                    self.handle_claim_granted(now, &granted)
                }
                to_shard::Message::ClaimRefused(refused) => {
                    self.handle_claim_refused(now, &refused)
                }
                to_shard::Message::Renewed(renewed) => self.handle_renewed(renewed.renewal),
                to_shard::Message::Revoke(revoke) => {
                    let reason = u16::try_from(revoke.reason).ok();
                    let reason = reason.and_then(CloseReason::from_code);
                    self.close_session(
                        now,
                        SessionId(revoke.session),
                        Fence(revoke.fence),
                        reason.unwrap_or(CloseReason::Revoked),
                        &revoke.text,
                    );
                }
                to_shard::Message::Found(found) => self.handle_found(now, &found),
                to_shard::Message::Moved(moved) => self.handle_moved(now, moved),
                to_shard::Message::Places(places) => self.handle_places(now, &places),
                to_shard::Message::Networks(networks) => self.handle_networks(&networks),
                to_shard::Message::Hello(_) => {}
            }
        } else {
            self.refuse_uplink(
                at,
                "it sent what only center may send, after its hello".into(),
            );
        }
    }

    fn handle_backend_hello(&mut self, now: Now, at: usize, hello: &BackendHello) {
        let Some(uplink) = self.uplinks.get_mut(at) else {
            return;
        };
        let wanted = uplink
            .group
            .map_or(0, |group| u32::from(self.config.groups[group].group.0));
        if hello.version != uplink::VERSION {
            let why = format!(
                "it speaks version {} of the uplink, not {}",
                hello.version,
                uplink::VERSION
            );
            return self.refuse_uplink(at, why);
        }
        if hello.group != wanted {
            let why = format!(
                "`{}` serves group {}, but the configuration says {wanted} (0 is center): correct the address or the group",
                hello.instance, hello.group
            );
            return self.refuse_uplink(at, why);
        }
        if uplink.up {
            // Each would make us look at all sessions again.
            return self.refuse_uplink(at, "it said hello twice".into());
        }
        if at == CENTER && hello.lease_ms < LEASE_MS_MIN {
            let why = format!(
                "its lease of {} ms is under {LEASE_MS_MIN} ms: raise center's lease_ms",
                hello.lease_ms
            );
            return self.refuse_uplink(at, why);
        }
        if hello.instance.len() > LABEL_BYTES_MAX {
            let why = format!("its name is longer than {LABEL_BYTES_MAX} bytes");
            return self.refuse_uplink(at, why);
        }
        uplink.up = true;
        uplink.boot = hello.boot;
        uplink.instance = hello.instance.as_str().into();
        uplink.wants_address = hello.wants_address;
        self.actions.push_back(Action::Notice(Notice::UplinkUp {
            uplink: at,
            instance: hello.instance.clone(),
        }));
        self.count_uplinks();
        if at == CENTER {
            self.report.begin(now.time, hello.wants_load);
            self.handle_center_up(now, hello.lease_ms);
        } else {
            self.binding_sweep = Some(0);
        }
    }

    fn refuse_uplink(&mut self, at: usize, why: String) {
        if let Some(uplink) = self.uplinks.get_mut(at) {
            // `up` stays until the driver says that it is lost: only then are
            // those who wait for it told.
            uplink.connected = false;
        }
        self.actions
            .push_back(Action::Notice(Notice::UplinkRefused { uplink: at, why }));
        self.actions.push_back(Action::CloseUplink(at));
    }

    fn count_uplinks(&self) {
        self.counters
            .uplinks_up
            .set(self.uplinks.iter().filter(|uplink| uplink.up).count() as u64);
    }

    /// A run of whole records from a backend.
    pub fn handle_uplink_records(&mut self, now: Now, at: usize, mut run: &[u8]) {
        while self.hears(at) {
            match uplink::next(&mut run) {
                Ok(Some((session, Record::Data(body)))) => {
                    self.handle_data(now, at, session, None, body);
                }
                Ok(Some((session, Record::Latest { key, body }))) => {
                    self.handle_data(now, at, session, Some(key), body);
                }
                Ok(Some((session, Record::Kick { fence, reason }))) => {
                    self.handle_kick(now, at, session, fence, reason);
                }
                Ok(Some((
                    session,
                    Record::Join {
                        channel,
                        incarnation,
                        next,
                    },
                ))) => self.handle_join(now, at, session, channel, incarnation, next),
                Ok(Some((session, Record::Leave { channel }))) => {
                    self.handle_leave(now, at, session, channel);
                }
                Ok(Some((_, Record::Publish { filter, body }))) => {
                    self.handle_publish(now, at, &filter, body);
                }
                Ok(Some((_, Record::List { sessions, body }))) => {
                    self.handle_list(now, at, sessions, body);
                }
                Ok(Some((session, Record::Attribute { key, value }))) => {
                    self.handle_attribute(at, session, key, value);
                }
                Ok(Some(_)) | Err(_) => {
                    self.counters.drop_frame(DropReason::BadRecord);
                    self.refuse_uplink(
                        at,
                        "it sent a record that is malformed or not a backend's".into(),
                    );
                    return;
                }
                Ok(None) => return,
            }
        }
    }

    /// A backend ends a session: one that is bound to it, no other.
    fn handle_kick(&mut self, now: Now, at: usize, id: SessionId, fence: Fence, reason: u16) {
        let Some(session) = self.session_here(id) else {
            return;
        };
        let bound = self.uplinks[at]
            .group
            .and_then(|index| session.bindings.get(index))
            .is_some_and(|binding| {
                binding.uplink == Some(at as u16) && self.uplinks[at].holds(binding)
            });
        if !bound {
            self.counters.drop_frame(DropReason::WrongGroup);
            return;
        }
        let reason = CloseReason::from_code(reason).unwrap_or(CloseReason::Kicked);
        self.close_session(now, id, fence, reason, "");
    }

    /// A message body for a client. With a `key`, only the latest one of it counts.
    fn handle_data(
        &mut self,
        now: Now,
        at: usize,
        session_id: SessionId,
        key: Option<u32>,
        bytes: &[u8],
    ) {
        let Some(&id) = self.sessions.get(&session_id) else {
            if self.parking.session(session_id).is_some() {
                // It was on its way when the client was lost; SYNC will ask for it.
                self.counters.drop_frame(DropReason::SessionAway);
                return;
            }
            self.counters.drop_frame(DropReason::SessionGone);
            let stream = uplink::stream_of(session_id);
            uplink::encode(session_id, &Record::Gone, self.uplinks[at].stream(stream));
            return;
        };
        let Ok(body) = Body::decode(bytes) else {
            self.counters.drop_frame(DropReason::BadRecord);
            return;
        };
        let (group, lane, message) = match body {
            Body::Sync(sync) => (sync.group, Lane::Reliable, None),
            Body::Ack { group, .. } => (group, Lane::Reliable, None),
            Body::Message { header, payload } if header.kind != MessageKind::Request => {
                let head_bytes = header.encoded_bytes().min(MESSAGE_HEADER_BYTES_MAX);
                (header.group, header.lane, Some((head_bytes, payload)))
            }
            // The publisher's answer to who has missed something.
            Body::ChannelMessage { header, payload } => (
                header.group,
                header.lane,
                Some((CHANNEL_HEADER_BYTES, payload)),
            ),
            Body::Channel {
                group,
                notice: ChannelNotice::Skip { .. } | ChannelNotice::CaughtUp { .. },
                ..
            } => (group, Lane::Reliable, None),
            _ => {
                self.counters.drop_frame(DropReason::BadRecord);
                return;
            }
        };
        if key.is_some() && lane != Lane::Sequenced {
            self.counters.drop_frame(DropReason::BadRecord);
            return;
        }
        let expected = self.uplinks[at]
            .group
            .filter(|&index| self.config.groups[index].group == group);
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return;
        };
        let binding = expected.and_then(|index| connection.session()?.bindings.get(index));
        let binding = binding
            .filter(|it| it.uplink == Some(at as u16) && self.uplinks[at].holds(it))
            .copied();
        let Some(binding) = binding else {
            self.counters.drop_frame(DropReason::WrongGroup);
            return;
        };
        let (flags, head, rest) = match message {
            Some((head_bytes, payload)) => {
                let bytes_min = self.config.compress_bytes_min;
                let (flags, payload) = compressed(payload, bytes_min, &mut self.scratch);
                if payload.len() > PAYLOAD_BYTES_MAX {
                    self.counters.drop_frame(DropReason::BadRecord);
                    return;
                }
                (flags, &bytes[..head_bytes], payload)
            }
            None => (0, bytes, &[][..]),
        };
        let outgoing = Outgoing {
            lane,
            key: key.map(|key| Key { group, key }),
            flags,
            head,
            rest,
        };
        let buffers = &mut self.buffers;
        connection.corked = false;
        let way = connection.take(now.time, &outgoing, &self.config, &self.counters, buffers);
        if let (Way::Stream, Body::Sync(_), Some(bytes)) = (&way, body, binding.credit.told()) {
            // SYNC has lifted it.
            connection.seal(now.time, &Body::Credit { group, bytes });
            self.counters.frames_sent.add(1);
            self.counters.credits_told.add(1);
        }
        self.send_on(now, id, way);
    }

    /// Sends a client a body in two pieces, its head and the rest, as its lane demands.
    pub(super) fn deliver(
        &mut self,
        now: Now,
        id: ConnId,
        lane: Lane,
        flags: u8,
        head: &[u8],
        rest: &[u8],
    ) {
        let Some(connection) = Self::at(&mut self.connections, id) else {
            return;
        };
        let outgoing = Outgoing {
            lane,
            key: None,
            flags,
            head,
            rest,
        };
        let buffers = &mut self.buffers;
        let way = connection.take(now.time, &outgoing, &self.config, &self.counters, buffers);
        self.send_on(now, id, way);
    }

    /// What a connection has taken goes on its way.
    fn send_on(&mut self, now: Now, id: ConnId, way: Way) {
        match way {
            Way::Stream => {
                self.counters.frames_sent.add(1);
                self.list_for_send(id);
            }
            Way::Beside => {
                self.counters.side_messages_sent.add(1);
                self.list_datagrams(id);
            }
            Way::Backlog | Way::Lost => {}
            Way::TooSlow => self.close(now, id, CloseReason::SlowConsumer),
        }
    }
}
