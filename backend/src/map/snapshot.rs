//! Snapshots of a map: where the players of one partition stand, as a file's bytes.
//!
//! Pure: it writes and reads bytes. Which player is copied when is the [`super::Partition`]'s
//! business, and what a file is called that of the driver.
//!
//! # Layout
//! Little-endian. Magic `SPMAP\0\0\x01`, round u64; then for each player session u64, tag u64,
//! id u32, tick u32, x u32, y u32; then the number of players u64 and the CRC-32 of everything
//! before it. A file without its end, or with another length or CRC, is bad as a whole.
//!
//! Invariant: a file is good only if all of it is what was written.

use protocol::ids::SessionId;
use protocol::world::Point;

use super::PLAYERS_MAX;

const MAGIC: [u8; 8] = *b"SPMAP\0\0\x01";

/// Bytes in front of the players.
const HEADER_BYTES: usize = 16;

/// Bytes of one player.
pub const PLAYER_BYTES: usize = 32;

/// Bytes after the players.
const TRAILER_BYTES: usize = 12;

/// Longest file, bytes: one partition has all players of the largest map, and each of them came
/// from elsewhere while it was written.
pub const SNAPSHOT_BYTES_MAX: u64 =
    (HEADER_BYTES + TRAILER_BYTES) as u64 + 2 * PLAYERS_MAX as u64 * PLAYER_BYTES as u64;

/// Where a player stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whose it is.
    pub session: SessionId,
    /// What others were told of it.
    pub tag: u64,
    /// What it was called in frames.
    pub id: u32,
    /// As of which tick.
    pub tick: u32,
    /// Where.
    pub at: Point,
}

impl Standing {
    /// Appends it as it stands in a file.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.0.to_le_bytes());
        out.extend_from_slice(&self.tag.to_le_bytes());
        for field in [self.id, self.tick, self.at.x, self.at.y] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.chunks_exact(4).map_while(|word| {
            let word: [u8; 4] = word.try_into().ok()?;
            Some(u32::from_le_bytes(word))
        });
        let mut word = || words.next();
        let mut long = || Some(u64::from(word()?) | u64::from(word()?) << 32);
        let (session, tag) = (SessionId(long()?), long()?);
        Some(Self {
            session,
            tag,
            id: word()?,
            tick: word()?,
            at: Point {
                x: word()?,
                y: word()?,
            },
        })
    }
}

/// A part of a snapshot, in the order in which they make the file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The round, in a file's first slice.
    pub begins: Option<u64>,
    /// Players, encoded.
    pub players: Vec<u8>,
    /// Whether it is the file's last.
    pub is_last: bool,
}

/// Makes the bytes of a file of its slices.
#[derive(Debug, Default)]
pub struct SnapshotWriter {
    crc: crc32fast::Hasher,
    players: u64,
}

impl SnapshotWriter {
    /// The bytes to append to the file for a slice.
    pub fn handle_slice(&mut self, slice: Slice) -> Vec<u8> {
        let mut bytes = match slice.begins {
            Some(round) => {
                *self = Self::default();
                let mut header = Vec::with_capacity(HEADER_BYTES + slice.players.len());
                header.extend_from_slice(&MAGIC);
                header.extend_from_slice(&round.to_le_bytes());
                header.extend_from_slice(&slice.players);
                header
            }
            None => slice.players,
        };
        let header = slice.begins.map_or(0, |_| HEADER_BYTES);
        self.players += ((bytes.len() - header) / PLAYER_BYTES) as u64;
        if slice.is_last {
            bytes.extend_from_slice(&self.players.to_le_bytes());
        }
        self.crc.update(&bytes);
        if slice.is_last {
            let crc = self.crc.clone().finalize();
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        bytes
    }
}

/// Why a file is not a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    /// It does not begin as one.
    #[error("it does not begin like a snapshot of this version")]
    Magic,
    /// It ends too early, or holds another number of players than it says.
    #[error("it is torn")]
    Torn,
    /// Its checksum is wrong.
    #[error("its checksum is wrong")]
    Checksum,
}

/// A snapshot that was read; borrows the file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// Rises by one with each snapshot of the whole map.
    pub round: u64,
    players: &'a [u8],
}

impl<'a> Snapshot<'a> {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not what was written, all of it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadSnapshot> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(BadSnapshot::Torn)?;
        let (magic, round) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(BadSnapshot::Magic);
        }
        let (rest, crc) = rest.split_last_chunk::<4>().ok_or(BadSnapshot::Torn)?;
        let (players, count) = rest.split_last_chunk::<8>().ok_or(BadSnapshot::Torn)?;
        let wanted = u64::from_le_bytes(*count).checked_mul(PLAYER_BYTES as u64);
        if wanted != Some(players.len() as u64) {
            return Err(BadSnapshot::Torn);
        }
        if crc32fast::hash(&bytes[..bytes.len() - 4]) != u32::from_le_bytes(*crc) {
            return Err(BadSnapshot::Checksum);
        }
        let round = round.try_into().map_err(|_| BadSnapshot::Torn)?;
        Ok(Self {
            round: u64::from_le_bytes(round),
            players,
        })
    }

    /// The players. One may stand in it twice; the later tick counts.
    pub fn players(&self) -> impl Iterator<Item = Standing> + use<'a> {
        self.players
            .chunks_exact(PLAYER_BYTES)
            .map_while(Standing::decode)
    }
}
