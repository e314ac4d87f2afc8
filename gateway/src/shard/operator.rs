//! What an operator changes in a running shard: its configuration, and who is there.
//!
//! Owns which parts of the configuration are live. Invariant: nobody who is connected is held to
//! what was never told to it: its heartbeat, the keys of its ciphers and where its session lives
//! stay as they were.

use protocol::ids::{Fence, SessionId};
use protocol::reason::CloseReason;
use protocol::time::Now;
use protocol::token::Verifier;

use super::{Shard, ShardConfig};

impl ShardConfig {
    /// Takes over what can change while a shard runs, and passes over the rest. Groups have to
    /// be those of before: only the versions that their instances take are looked at.
    pub fn take_live(&mut self, new: Self) {
        let Self {
            groups,
            sessions_max,
            connections_before_login_max,
            handshake_timeout_ms,
            login_timeout_ms,
            heartbeat_interval_ms,
            idle_timeout_ms,
            frames,
            bytes,
            send_queue_bytes_max,
            write_timeout_ms,
            uplink_queue_bytes_max,
            rekey,
            compress_bytes_min,
            version_min,
            upgrade_address,
            limits,
            front,
            // Who this shard is, what its tables were made for, and what center was told.
            gateway: _,
            shard: _,
            boot: _,
            key: _,
            resume_ms: _,
            seal_channels_once: _,
            usage: _,
            tickets: _,
            datagrams: _,
        } = new;
        self.sessions_max = sessions_max;
        self.connections_before_login_max = connections_before_login_max;
        self.handshake_timeout_ms = handshake_timeout_ms;
        self.login_timeout_ms = login_timeout_ms;
        self.heartbeat_interval_ms = heartbeat_interval_ms;
        self.idle_timeout_ms = idle_timeout_ms;
        self.frames = frames;
        self.bytes = bytes;
        self.send_queue_bytes_max = send_queue_bytes_max;
        self.write_timeout_ms = write_timeout_ms;
        self.uplink_queue_bytes_max = uplink_queue_bytes_max;
        self.rekey = rekey;
        self.compress_bytes_min = compress_bytes_min;
        self.version_min = version_min;
        self.upgrade_address = upgrade_address;
        self.limits = limits;
        self.front.trusted = front.trusted;
        self.front.origins = front.origins;
        for (group, new) in self.groups.iter_mut().zip(groups) {
            for (versions, new) in group.instances.iter_mut().zip(new.instances) {
                *versions = new;
            }
        }
    }
}

impl Shard {
    /// The process is to end: clients are told to go elsewhere.
    pub fn handle_drain(&mut self) {
        self.draining = true;
        self.closing_sweep = Some((CloseReason::Draining, 0));
    }

    /// The operator ends a session, be its client there or not.
    pub fn handle_operator_kick(&mut self, now: Now, session: SessionId, fence: Fence, text: &str) {
        self.close_session(now, session, fence, CloseReason::Kicked, text);
    }

    /// The operator has changed the configuration: see [`ShardConfig::take_live`]. Sessions stay
    /// bound where they are, whatever versions their instances take from now on.
    pub fn handle_config(&mut self, new: ShardConfig, verifier: Verifier) {
        self.verifier = verifier;
        self.config.take_live(new);
        for (group, &first) in self.config.groups.iter().zip(&self.group_first_uplink) {
            for (uplink, versions) in self.uplinks[first..].iter_mut().zip(&group.instances) {
                uplink.versions.clone_from(versions);
            }
        }
    }
}
