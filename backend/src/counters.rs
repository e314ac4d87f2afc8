//! What the roles count, for `/metrics`: plain numbers with one writer, the role's thread, and
//! any number of readers.
//!
//! The cores count in plain fields; the drivers copy them here once a turn. Label values come
//! from closed enums only, so no peer can create a time series.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use protocol::reason::{CloseReason, DropReason};

use crate::center::{CenterCounts, Online};
use crate::link::LinkFault;
use crate::link_driver::LinkCounts;
use crate::stub::{GameCounts, StubCounts};

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
}

impl MetricKind {
    /// As Prometheus writes it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One number, described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name of the family.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Name and value of its label, if it has one.
    pub label: Option<(&'static str, &'static str)>,
    /// One line for people.
    pub help: &'static str,
}

const fn plain(name: &'static str, kind: MetricKind, help: &'static str) -> Metric {
    Metric {
        name,
        kind,
        label: None,
        help,
    }
}

/// A fixed list of numbers with their descriptions.
#[derive(Debug)]
struct Board {
    metrics: Vec<Metric>,
    values: Vec<AtomicU64>,
}

impl Board {
    fn new(metrics: Vec<Metric>) -> Self {
        let values = metrics.iter().map(|_| AtomicU64::new(0)).collect();
        Self { metrics, values }
    }

    fn set_all(&self, values: impl IntoIterator<Item = u64>) {
        for (slot, value) in self.values.iter().zip(values) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    fn samples(&self) -> impl Iterator<Item = (Metric, u64)> {
        let values = self.values.iter().map(|slot| slot.load(Ordering::Relaxed));
        self.metrics.iter().copied().zip(values)
    }
}

use MetricKind::{Counter, Gauge};

fn link_metrics(names: [&'static str; 7]) -> Vec<Metric> {
    let [links, accepted, wrong_keys, refused, bytes, lost, faults] = names;
    let mut metrics = vec![
        plain(links, Gauge, "Uplinks that are up."),
        plain(accepted, Counter, "Uplinks accepted."),
        plain(
            wrong_keys,
            Counter,
            "Uplinks refused for a key that is not in the list.",
        ),
        plain(
            refused,
            Counter,
            "Uplinks refused otherwise: too many, too slow, no uplink at all.",
        ),
        plain(bytes, Counter, "Bytes read from uplinks."),
        plain(lost, Counter, "Uplinks that ended, for whatever reason."),
    ];
    metrics.extend(LinkFault::ALL.iter().map(|fault| Metric {
        name: faults,
        kind: Counter,
        label: Some(("reason", fault.label())),
        help: "Uplinks closed by this side.",
    }));
    metrics
}

fn link_values(links: &LinkCounts) -> impl Iterator<Item = u64> + '_ {
    [
        links.links,
        links.accepted,
        links.wrong_keys,
        links.refused,
        links.read_bytes,
        links.lost,
    ]
    .into_iter()
    .chain(links.faults)
}

/// The numbers of a center.
#[derive(Debug)]
pub struct CenterCounters {
    board: Board,
    online: Mutex<Online>,
}

impl Default for CenterCounters {
    fn default() -> Self {
        const CLAIMS: &str = "sallyport_center_claims_total";
        let claim = |result| Metric {
            name: CLAIMS,
            kind: Counter,
            label: Some(("result", result)),
            help: "Claims of sessions, by what became of them.",
        };
        let mut metrics = vec![
            claim("granted"),
            claim("token_reused"),
            claim("already_online"),
            claim("degraded"),
            claim("full"),
            claim("banned"),
            claim("place_taken"),
            claim("abandoned"),
            plain(
                "sallyport_center_queued_total",
                Counter,
                "Claims that had to wait in the queue, each connection once.",
            ),
            plain(
                "sallyport_center_queue_admitted_total",
                Counter,
                "Players who were let in from the queue.",
            ),
            plain(
                "sallyport_center_queue_waited_ms_total",
                Counter,
                "How long these waited in all, milliseconds.",
            ),
            plain(
                "sallyport_center_queue_places_told_total",
                Counter,
                "Changes of a position that were told.",
            ),
            plain(
                "sallyport_center_released_total",
                Counter,
                "Sessions released by their shard.",
            ),
            plain(
                "sallyport_center_releases_ignored_total",
                Counter,
                "Releases of a session or fence that the shard does not hold.",
            ),
            plain(
                "sallyport_center_rebuilt_total",
                Counter,
                "Sessions listed by their shard.",
            ),
            plain(
                "sallyport_center_revoked_total",
                Counter,
                "Sessions that a shard was told to close.",
            ),
            plain(
                "sallyport_center_banned_total",
                Counter,
                "Sessions that ended because of a ban.",
            ),
            plain(
                "sallyport_center_replaced_total",
                Counter,
                "Of the revoked ones, those that nobody held when their account logged in anew.",
            ),
            plain(
                "sallyport_center_vanished_total",
                Counter,
                "Sessions that their shard does not list any more.",
            ),
            plain(
                "sallyport_center_seeks_total",
                Counter,
                "Tickets that a shard asked for.",
            ),
            plain(
                "sallyport_center_moved_total",
                Counter,
                "Sessions that went to another shard with their client.",
            ),
            plain(
                "sallyport_center_moves_refused_total",
                Counter,
                "Moves refused: the ticket was used, or center could not say.",
            ),
            plain(
                "sallyport_center_leases_lost_total",
                Counter,
                "Leases that ran out with sessions.",
            ),
            plain(
                "sallyport_center_sessions_lost_total",
                Counter,
                "Sessions that ended with their shard.",
            ),
            plain(
                "sallyport_center_orphaned_total",
                Counter,
                "Sessions that stayed when their shard was lost or gave them up.",
            ),
            plain(
                "sallyport_center_orphans_ended_total",
                Counter,
                "Of these, those to whom nobody came back.",
            ),
            plain(
                "sallyport_center_journal_batches_total",
                Counter,
                "Group commits on disk.",
            ),
            plain(
                "sallyport_center_journal_failures_total",
                Counter,
                "Group commits that failed.",
            ),
            plain(
                "sallyport_center_journal_bytes",
                Gauge,
                "Size of the journal.",
            ),
            plain(
                "sallyport_center_sessions",
                Gauge,
                "Sessions, granted or about to be.",
            ),
            plain(
                "sallyport_center_orphans",
                Gauge,
                "Of these, those that no shard holds.",
            ),
            plain(
                "sallyport_center_shards",
                Gauge,
                "Shards that may hold sessions.",
            ),
            plain(
                "sallyport_center_queue",
                Gauge,
                "Players who wait in the queue.",
            ),
            plain(
                "sallyport_center_queue_away",
                Gauge,
                "Places in the queue that are kept for lost connections.",
            ),
            plain(
                "sallyport_center_claims_waiting",
                Gauge,
                "Claims that wait.",
            ),
            plain(
                "sallyport_center_bans",
                Gauge,
                "Accounts, devices and networks that are banned.",
            ),
            plain(
                "sallyport_center_tokens",
                Gauge,
                "Used token ids that are remembered.",
            ),
            plain(
                "sallyport_center_degraded",
                Gauge,
                "1 while the journal cannot be written.",
            ),
            plain(
                "sallyport_center_restarting",
                Gauge,
                "1 while claims wait for the shards after a restart.",
            ),
        ];
        metrics.extend(link_metrics([
            "sallyport_center_links",
            "sallyport_center_links_accepted_total",
            "sallyport_center_links_wrong_key_total",
            "sallyport_center_links_refused_total",
            "sallyport_center_link_read_bytes_total",
            "sallyport_center_links_lost_total",
            "sallyport_center_links_closed_total",
        ]));
        Self {
            board: Board::new(metrics),
            online: Mutex::default(),
        }
    }
}

impl CenterCounters {
    /// Every number with its description.
    pub fn samples(&self) -> impl Iterator<Item = (Metric, u64)> {
        self.board.samples()
    }

    /// Who was online a moment ago.
    pub fn online(&self) -> Online {
        let online = self.online.lock().unwrap_or_else(PoisonError::into_inner);
        online.clone()
    }

    pub(crate) fn publish_online(&self, now: Online) {
        *self.online.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    pub(crate) fn publish(&self, center: &CenterCounts, links: &LinkCounts) {
        let values = [
            center.granted,
            center.refused_token_reused,
            center.refused_already_online,
            center.refused_degraded,
            center.refused_full,
            center.refused_banned,
            center.refused_place_taken,
            center.claims_abandoned,
            center.queued,
            center.admitted,
            center.waited_ms,
            center.places_told,
            center.released,
            center.releases_ignored,
            center.rebuilt,
            center.revoked,
            center.banned,
            center.replaced,
            center.vanished,
            center.seeks,
            center.moved,
            center.moves_refused,
            center.leases_lost,
            center.sessions_lost,
            center.orphaned,
            center.orphans_ended,
            center.batches,
            center.batches_failed,
            center.journal_bytes,
            center.sessions,
            center.orphans,
            center.shards,
            center.queue,
            center.queue_away,
            center.claims_waiting,
            center.bans,
            center.tokens,
            u64::from(center.degraded),
            u64::from(center.restarting),
        ];
        self.board
            .set_all(values.into_iter().chain(link_values(links)));
    }
}

/// The numbers of a game process.
#[derive(Debug)]
pub struct GameCounters(Board);

impl Default for GameCounters {
    fn default() -> Self {
        let mut metrics = vec![
            plain("sallyport_game_sessions", Gauge, "Sessions that are here."),
            plain(
                "sallyport_game_sessions_detached",
                Gauge,
                "Of these, those whose uplink is lost.",
            ),
            plain(
                "sallyport_game_connected_total",
                Counter,
                "Sessions that came.",
            ),
            plain(
                "sallyport_game_disconnected_total",
                Counter,
                "Sessions that ended.",
            ),
            plain(
                "sallyport_game_messages_received_total",
                Counter,
                "Messages given to the game.",
            ),
            plain(
                "sallyport_game_messages_sent_total",
                Counter,
                "Messages of the game, resends not counted.",
            ),
            plain(
                "sallyport_game_records_received_total",
                Counter,
                "Records read from uplinks.",
            ),
            plain(
                "sallyport_game_syncs_total",
                Counter,
                "Times that both ends of a stream agreed anew.",
            ),
            plain(
                "sallyport_game_qualities_total",
                Counter,
                "Times that a gateway told how good a client's connection is.",
            ),
            plain("sallyport_game_channels", Gauge, "Channels with a member."),
            plain(
                "sallyport_game_published_total",
                Counter,
                "Messages published to channels.",
            ),
            plain(
                "sallyport_game_caught_up_total",
                Counter,
                "Messages of channels that were sent once more to members who had missed them.",
            ),
            plain(
                "sallyport_game_players",
                Gauge,
                "Players on the map, in a game that has one.",
            ),
            plain("sallyport_game_ticks_total", Counter, "Looks at the map."),
            plain(
                "sallyport_game_ticks_skipped_total",
                Counter,
                "Looks at the map left out, because the one before came too late.",
            ),
            plain(
                "sallyport_game_tick_us_total",
                Counter,
                "Time that looks at the map took, frames handed over, microseconds.",
            ),
            plain(
                "sallyport_game_tick_us_max",
                Gauge,
                "The longest of them since the start, microseconds.",
            ),
            plain(
                "sallyport_game_tick_late_us_max",
                Gauge,
                "Longest time from when a look was due to its begin, microseconds.",
            ),
            plain(
                "sallyport_game_snapshots_written_total",
                Counter,
                "Snapshots of the whole map that are on disk.",
            ),
            plain(
                "sallyport_game_snapshots_failed_total",
                Counter,
                "Snapshots of which a file could not be written.",
            ),
            plain(
                "sallyport_game_snapshots_unreadable_total",
                Counter,
                "Files of snapshots that were torn or foreign at the start.",
            ),
            plain(
                "sallyport_game_players_restored_total",
                Counter,
                "Players put back where an earlier process had them.",
            ),
            plain(
                "sallyport_game_moves_refused_total",
                Counter,
                "Moves that were malformed, off the map, or by nobody on it.",
            ),
            plain(
                "sallyport_game_frames_unsent_total",
                Counter,
                "Views not sent to players who are on their way out.",
            ),
        ];
        metrics.extend(DropReason::ALL.iter().map(|reason| Metric {
            name: "sallyport_game_drops_total",
            kind: Counter,
            label: Some(("reason", reason.label())),
            help: "Records and messages dropped.",
        }));
        metrics.extend(CloseReason::ALL.iter().map(|reason| Metric {
            name: "sallyport_game_kicks_total",
            kind: Counter,
            label: Some(("reason", reason.label())),
            help: "Sessions ended by this side.",
        }));
        metrics.extend(link_metrics([
            "sallyport_game_links",
            "sallyport_game_links_accepted_total",
            "sallyport_game_links_wrong_key_total",
            "sallyport_game_links_refused_total",
            "sallyport_game_link_read_bytes_total",
            "sallyport_game_links_lost_total",
            "sallyport_game_links_closed_total",
        ]));
        Self(Board::new(metrics))
    }
}

impl GameCounters {
    /// Every number with its description.
    pub fn samples(&self) -> impl Iterator<Item = (Metric, u64)> {
        self.0.samples()
    }

    pub(crate) fn publish(&self, stub: &StubCounts, game: &GameCounts, links: &LinkCounts) {
        let values = [
            stub.sessions,
            stub.detached,
            stub.connected,
            stub.disconnected,
            stub.received,
            stub.sent,
            stub.records,
            stub.syncs,
            stub.qualities,
            stub.channels,
            stub.published,
            stub.caught_up,
            game.players,
            game.ticks,
            game.ticks_skipped,
            game.tick_us,
            game.tick_us_max,
            game.tick_late_us_max,
            game.snapshots_written,
            game.snapshots_failed,
            game.snapshots_unreadable,
            game.players_restored,
            game.moves_refused,
            game.frames_unsent,
        ];
        let values = values.into_iter().chain(stub.drops.iter().copied());
        let values = values.chain(stub.kicks.iter().copied());
        self.0.set_all(values.chain(link_values(links)));
    }
}

#[cfg(test)]
mod tests;
