//! How clients get in and how they leave: retries, the end of each phase that
//! waits for all of them, and the result of the worker.

use protocol::body::QueuePosition;
use protocol::client::Closed;
use protocol::reason::CloseReason;
use protocol::time::Time;

use super::storm::Return;
use super::{
    ATTEMPTS_MAX, BACKOFF_MS, Fleet, GROUP_UP_MS, LOGOUTS_A_TURN, Milestone, Phase, Stage, landed,
};
use crate::messages::{Outcome, Progress};
use crate::payload::mix;
use crate::schedule;
use crate::tally::closed_reason;

/// Reasons that another attempt does not change.
const FINAL: &[&str] = &[
    CloseReason::BadToken.label(),
    CloseReason::TokenAudience.label(),
    CloseReason::TokenExpired.label(),
    CloseReason::BadVersion.label(),
    CloseReason::BadHandshake.label(),
    "token_unusable",
    "websocket_refused",
];

/// What to say when nobody got in.
fn advice(reason: &str) -> &'static str {
    match reason {
        "bad_handshake" => "is --key the public key of this gateway?",
        "bad_token" => "is --token-key the secret whose public key the gateway trusts?",
        "token_audience" => "is --audience that of the gateway?",
        "token_expired" => "do the clocks of both machines agree?",
        "token_unusable" => "--token-key must be a secret of `sallyport keygen token`",
        "connection_refused" => {
            "nobody listens there; is the gateway running (and for --transport udp, is `listen.udp` on)?"
        }
        "connect_timeout" => "nobody answers there; is the address right?",
        "open_files" => "raise the open-file limit (ulimit -n)",
        "center_unavailable" => "the gateway cannot reach center; is it running?",
        "peer_closed" | "connection_reset" | "bad_length" | "bad_crc" => {
            "it closed without a word; is this the gateway's client port, and --key its key?"
        }
        "websocket_refused" => "does this port speak WebSocket? --transport tcp does without",
        "login_timeout" => "it does not answer; is this the gateway's client port?",
        _ => "the gateway's log and counters may say more",
    }
}

impl Fleet {
    /// A client is in.
    pub(super) fn enter(&mut self, index: u32, now: Time) {
        let slot = &mut self.slots[index as usize];
        // Who logs in anew is seen to by `note_session`.
        if slot.stage != Stage::LoggingIn || slot.was_in {
            return;
        }
        slot.stage = Stage::In;
        slot.was_in = true;
        self.in_flight -= landed(&mut slot.waits);
        self.arriving -= 1;
        self.last_login = Some(now);
        self.group_deadline = now.after_ms(GROUP_UP_MS);
        self.tally.enter();
        self.unable = None;
        self.note_arrival(index, now);
    }

    /// A client is told where it is in the queue. There it may wait as long as that moves, and
    /// keeps nobody else from connecting.
    pub(super) fn wait_in_queue(&mut self, index: u32, position: QueuePosition, now: Time) {
        let slot = &mut self.slots[index as usize];
        if slot.stage == Stage::LoggingIn && !std::mem::replace(&mut slot.waits, true) {
            self.in_flight -= 1;
        }
        self.unable = None;
        let patient_until = now.after_ms(self.plan.queue_ms());
        self.connect_deadline = self.connect_deadline.max(patient_until);
        self.note_position(index, position, now);
    }

    /// A connection is over, as the client's core says.
    pub(super) fn end_by(&mut self, index: u32, closed: Closed, now: Time) {
        let reason = closed_reason(closed);
        let slot = &self.slots[index as usize];
        let is_logged_out = reason == CloseReason::LoggedOut.label();
        if !self.comes_back(index) || (slot.stage == Stage::LoggingOut && is_logged_out) {
            return self.end_here(index, reason, now);
        }
        let has_left = is_logged_out && slot.storm.as_deref().is_some_and(Return::has_left);
        // Nobody cut it. That an attempt is refused is part of coming back.
        if slot.stage == Stage::In && !has_left {
            self.tally.error(reason);
        }
        self.fall(index, closed, now);
    }

    /// An attempt, or a session, is over.
    pub(super) fn end(&mut self, index: u32, reason: &'static str, now: Time) {
        if self.comes_back(index) {
            return self.end_by(index, Closed::ByClient(CloseReason::PeerClosed), now);
        }
        self.end_here(index, reason, now);
    }

    /// The same of a client that does not come back.
    fn end_here(&mut self, index: u32, reason: &'static str, now: Time) {
        let is_time = self.phase == Phase::Connecting || self.is_storming();
        let slot = &mut self.slots[index as usize];
        self.closes.extend(slot.conn.take());
        self.closes.extend(std::mem::take(&mut slot.side).conn);
        slot.client = None;
        slot.is_sending = false;
        match slot.stage {
            Stage::Connecting(_) | Stage::LoggingIn => {
                self.in_flight -= landed(&mut slot.waits);
                slot.attempts += 1;
                let is_final = slot.attempts >= ATTEMPTS_MAX || FINAL.contains(&reason);
                if is_final || !is_time {
                    self.fail(index, reason);
                } else {
                    let pause_ms = BACKOFF_MS << (slot.attempts - 1);
                    let jitter_ms = mix(u64::from(index) ^ now.0) % pause_ms;
                    slot.stage = Stage::Waiting(now.after_ms(pause_ms + jitter_ms));
                }
            }
            Stage::In => {
                self.tally.error(reason);
                self.bury(index);
            }
            Stage::LoggingOut => {
                if reason != CloseReason::LoggedOut.label() {
                    self.tally.error(reason);
                }
                self.bury(index);
            }
            Stage::Queued | Stage::Waiting(_) | Stage::Ended | Stage::Failed => {}
        }
    }

    /// A client never gets in.
    fn fail(&mut self, index: u32, reason: &'static str) {
        self.slots[index as usize].stage = Stage::Failed;
        self.arriving -= 1;
        self.tally.failed += 1;
        self.tally.error(reason);
        if self.tally.ever_in == 0 && self.unable.is_none() {
            self.unable = Some(format!("{reason}: {}", advice(reason)));
        }
    }

    /// What a client that was in leaves behind.
    pub(super) fn bury(&mut self, index: u32) {
        self.set_group_up(index, false);
        self.leave_map(index);
        self.leave_room(index);
        let slot = &mut self.slots[index as usize];
        slot.stage = Stage::Ended;
        // A move has no reply; what became of it shows in the views. What was said in a channel
        // is missed by who did not hear it.
        let (missing, allowed) = if self.world.is_some() || self.rooms.is_some() {
            (0, 0)
        } else {
            slot.books.missing()
        };
        self.pending -= u64::from(slot.books.due() - slot.books.sent());
        self.tally.logged_in -= 1;
        self.tally.mixed.frames_lost_allowed += allowed;
        self.tally.lost += missing;
        self.tally.outstanding = self.tally.outstanding.saturating_sub(missing);
    }

    /// Those that are not in by now never get in.
    pub(super) fn give_up_arriving(&mut self) {
        for index in 0..self.slots.len() as u32 {
            let stage = self.slots[index as usize].stage;
            if stage.is_arriving() {
                let slot = &mut self.slots[index as usize];
                self.closes.extend(slot.conn.take());
                slot.client = None;
                slot.waits = false;
                self.fail(index, "connect_timeout");
            }
        }
        self.queue.clear();
        self.in_flight = 0;
    }

    pub(super) fn advance_connecting(&mut self, now: Time) {
        if self.plan.login_storm.is_some() {
            // Clients come when the window has begun.
            self.phase = Phase::Ready;
            self.milestone = Some(Milestone::Ready);
            return;
        }
        if self.tally.ever_in == 0 && self.unable.is_some() {
            self.finish();
            return;
        }
        if self.arriving > 0 && now >= self.connect_deadline {
            return self.give_up_arriving();
        }
        if self.arriving > 0 {
            return;
        }
        let missing = self.tally.logged_in - self.able();
        let is_refused = self.able() == 0 && self.world.as_ref().is_some_and(|w| w.refused > 0);
        if is_refused {
            self.unable = Some(format!(
                "enter_refused: group {} lets nobody on a map; is its game `walk`?",
                self.plan.group
            ));
            self.finish();
            return;
        }
        let is_refused = self.able() == 0 && self.rooms.as_ref().is_some_and(|it| it.refused > 0);
        if is_refused {
            self.unable = Some(format!(
                "join_refused: group {} lets nobody into a channel; is its game `chat`?",
                self.plan.group
            ));
            self.finish();
            return;
        }
        if missing > 0 && now < self.group_deadline {
            return;
        }
        if self.groups_up == 0 {
            self.unable = Some(format!(
                "group_not_up: no backend of group {} answers; is the game running?",
                self.plan.group
            ));
            self.finish();
            return;
        }
        let reason = if self.world.is_some() {
            "not_on_map"
        } else if self.rooms.is_some() {
            "not_in_channel"
        } else {
            "group_not_up"
        };
        self.tally.errors_add(reason, u64::from(missing));
        self.phase = Phase::Ready;
        self.milestone = Some(Milestone::Ready);
    }

    pub(super) fn advance_logout(&mut self, now: Time, deadline: Time) {
        let until = (self.logout_position + LOGOUTS_A_TURN).min(self.slots.len());
        for index in self.logout_position..until {
            let slot = &mut self.slots[index];
            if slot.stage == Stage::In {
                self.log_out_one(index as u32, now);
            } else if slot.stage.is_arriving() && !slot.was_in {
                self.closes.extend(slot.conn.take());
                slot.client = None;
                slot.stage = Stage::Failed;
            }
        }
        self.logout_position = until;
        let is_begun = until == self.slots.len();
        if (is_begun && self.tally.logged_in == 0) || now >= deadline {
            for index in 0..self.slots.len() as u32 {
                let stage = self.slots[index as usize].stage;
                if matches!(stage, Stage::In | Stage::LoggingOut) {
                    self.tally.error("logout_timeout");
                    self.bury(index);
                } else {
                    self.give_up(index);
                }
            }
            self.finish();
        }
    }

    /// Ends the session of a client that is in.
    pub(super) fn log_out_one(&mut self, index: u32, now: Time) {
        let slot = &mut self.slots[index as usize];
        if let Some(client) = &mut slot.client {
            client.logout(now);
            slot.stage = Stage::LoggingOut;
            self.mark(index);
        }
    }

    pub(super) fn finish(&mut self) {
        self.phase = Phase::Done;
        self.milestone = Some(Milestone::Done);
    }

    /// Where the worker stands. Takes the latencies since the last time.
    pub fn progress(&mut self, now: Time) -> Progress {
        let latency = self.tally.interval.take_counts();
        self.tally.earlier.add_counts(&latency);
        Progress {
            at_us: now.0,
            logged_in: self.tally.logged_in,
            failed: self.tally.failed,
            waiting: self.slots.iter().filter(|slot| slot.waits).count() as u32,
            sent: self.tally.sent,
            received: self.tally.received,
            errors: self.tally.errors_total()
                + self.tally.lost
                + self.tally.duplicated
                + self.tally.out_of_order,
            latency,
        }
    }

    /// The result, when everything is over.
    pub fn outcome(&mut self) -> Outcome {
        let latency = self.tally.interval.take_counts();
        self.tally.earlier.add_counts(&latency);
        let queued = self.queued();
        let not_sent = self.not_sent();
        self.tally.errors_add("not_sent", not_sent);
        Outcome {
            unable: self.unable.take(),
            logged_in_most: self.tally.logged_in_most,
            connect_failures: self.plan.count - self.tally.ever_in + self.tally.never_back,
            first_attempt_us: self.first_attempt.map(|at| at.0),
            last_login_us: self.last_login.map(|at| at.0),
            window_end_us: self.window_end.map(|at| at.0),
            sent_in_window: self.tally.sent_in_window,
            sent: self.tally.sent,
            received: self.tally.received,
            lost: self.tally.lost,
            duplicated: self.tally.duplicated,
            out_of_order: self.tally.out_of_order,
            visible: self.world.as_ref().map(|world| world.looked),
            sent_beside: self.plan.side_path.then_some(self.tally.sent_beside),
            mixed: self.plan.is_mixed().then_some(self.tally.mixed),
            queued,
            waits: self.tally.waits.take_counts(),
            resumes: self.tally.resumes,
            relogins: self.tally.relogins,
            back: self.tally.back.take_counts(),
            errors: self
                .tally
                .errors()
                .iter()
                .map(|(reason, count)| ((*reason).to_owned(), *count))
                .collect(),
            latency: self.tally.earlier.take_counts(),
        }
    }

    /// Turns of clients that were in, which no send was made for. Those of
    /// clients that never got in are in `connect_failures`.
    fn not_sent(&self) -> u64 {
        let Some(schedule) = &self.schedule else {
            return 0;
        };
        let total = schedule::total(self.plan.rate, self.plan.duration_ms);
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.was_in)
            .map(|(index, slot)| {
                schedule
                    .turns_of(index as u32, total)
                    .saturating_sub(u64::from(slot.books.sent()))
            })
            .sum()
    }
}
