//! Every bound of the wire, with its unit and its reason. Bounds that a
//! process may choose (rates, queue sizes) are configuration; these are not.

/// Bytes of the fixed frame header.
pub const FRAME_HEADER_BYTES: usize = 16;

/// Bytes of the Poly1305 tag behind each sealed body (RFC 8439 §2.8).
pub const TAG_BYTES: usize = 16;

/// Largest frame, header included. Large enough for an inventory or a chunk of
/// a map, small enough that one frame never holds a shard up: opening it takes
/// about 20 µs.
pub const FRAME_BYTES_MAX: usize = 32_768;

/// Smallest handshake frame: header and the four clear bytes.
pub const HANDSHAKE_FRAME_BYTES_MIN: usize = FRAME_HEADER_BYTES + 4;

/// Smallest sealed frame: header, a kind, the tag.
pub const SEALED_FRAME_BYTES_MIN: usize = FRAME_HEADER_BYTES + 1 + TAG_BYTES;

/// Largest frame before the handshake is done. A HELLO has 68 bytes; the rest
/// is room for a later version. It bounds what an unknown peer makes us keep.
pub const HELLO_FRAME_BYTES_MAX: usize = 512;

/// Largest frame before login is done: a token is under 1 KiB, a session key
/// shorter.
pub const LOGIN_FRAME_BYTES_MAX: usize = 4_096;

/// Bytes of the longest message header (kinds with a request id).
pub const MESSAGE_HEADER_BYTES_MAX: usize = 18;

/// Largest payload of one message as sent, uncompressed: what fits into a frame.
pub const PAYLOAD_BYTES_MAX: usize =
    FRAME_BYTES_MAX - FRAME_HEADER_BYTES - MESSAGE_HEADER_BYTES_MAX - TAG_BYTES;

/// Largest payload after decompression. Fixed, so that the output buffer of a
/// shard is one allocation for all its connections.
pub const DECOMPRESSED_BYTES_MAX: usize = 32_768;

/// Largest ratio of decompressed to compressed size. Game messages reach 10;
/// LZ4 itself ends at about 255.
pub const DECOMPRESSED_RATIO_MAX: usize = 64;

/// Frames under one key before the sender changes it.
pub const REKEY_FRAMES: u64 = 1 << 20;

/// Bytes under one key before the sender changes it.
pub const REKEY_BYTES: u64 = 1 << 30;

/// Age of a key, ms, at which the sender changes it.
pub const REKEY_AGE_MS: u64 = 3_600_000;

/// Frames under one key after which the receiver refuses more. Far below the
/// 2⁶⁴ at which a nonce would repeat; a peer that gets here ignores the rules.
pub const KEY_FRAMES_MAX: u64 = 1 << 32;

/// Largest datagram, our own bytes only. What every path carries that carries QUIC
/// (RFC 9000 §14); a larger one would be cut or lost on some.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;

/// Sequences behind the newest that a receiver of datagrams remembers. At 10,000
/// datagrams a second, far above any client's rate, what is reordered by 200 ms
/// is still told from a repeat.
pub const REPLAY_WINDOW: u64 = 2_048;

/// Segments of the reliable lane on their way in one direction of a datagram
/// connection: 70 KB, which at 100 ms of round trip are 700 KB/s; and the most that
/// a peer can make the other end keep out of order.
pub const DATAGRAM_WINDOW: u32 = 64;

/// The same towards a gateway before login: what a LOGIN needs.
pub const DATAGRAM_WINDOW_BEFORE_LOGIN: u32 = 4;

/// Bytes of a body in one segment of the reliable lane. Beside it a datagram has
/// room for its headers and one of each other chunk.
pub const SEGMENT_BYTES_MAX: usize = 1_104;

/// Age, ms, past which a frame is old. Above what a stalled phone recovers from.
pub const TIMESTAMP_AGE_MS_MAX: i64 = 10_000;

/// How far, ms, a frame may come from the future: the delay that even the most
/// prompt frame of the settling time (`CLOCK_SETTLE_MS`) can have had.
pub const TIMESTAMP_AHEAD_MS_MAX: i64 = 2_000;

/// Drift between two honest clocks, parts per million; quartz stays under 100.
pub const CLOCK_DRIFT_PPM_MAX: u64 = 500;

/// Time, ms, after the first frame in which the estimate of the peer's clock may
/// sink by any amount: the first frames may have been retransmitted for seconds,
/// and prompt ones after them must not look as if they came from the future. As
/// long as a slow login; a clock that runs fast gains nothing in it for later.
pub const CLOCK_SETTLE_MS: u64 = 15_000;

/// Reliable frames in a row with a bad timestamp after which the connection is
/// closed. The first ones are let through: a stalled phone is not an attack.
pub const TIMESTAMP_FAILURES_MAX: u16 = 64;

/// Bytes of an account name.
pub const ACCOUNT_BYTES_MAX: usize = 64;

/// Bytes of a token's id.
pub const TOKEN_ID_BYTES_MAX: usize = 64;

/// Bytes of a distribution channel or a device name in LOGIN.
pub const LABEL_BYTES_MAX: usize = 64;

/// Longest life of a login token, ms.
pub const TOKEN_LIFE_MS_MAX: u64 = 60_000;

/// Difference, ms, between the clocks of who issues and who checks a token.
pub const TOKEN_CLOCK_TOLERANCE_MS: u64 = 5_000;

/// Bytes of the text in CLOSE and ERROR.
pub const REASON_TEXT_BYTES_MAX: usize = 256;

/// Bans of accounts, devices and networks together. A list that people keep; each takes about
/// 300 bytes at center, and each network 60 in every shard.
pub const BANS_MAX: usize = 20_000;

/// Bytes of the text that a ban tells the player; with the key it fits into an entry of
/// center's journal.
pub const BAN_TEXT_BYTES_MAX: usize = 128;

/// Messages in the outbox of one reliable stream.
pub const OUTBOX_MESSAGES_MAX: usize = 1_024;

/// Bytes in the outbox of one reliable stream.
pub const OUTBOX_BYTES_MAX: usize = 262_144;

/// Received reliable messages after which an ACK is sent by itself.
pub const ACK_MESSAGES_MAX: u32 = 16;

/// Time, ms, after which a received reliable message is acknowledged by itself.
/// Long, because nearly every acknowledgement rides on a message; it only
/// bounds how long the sender keeps a tail.
pub const ACK_DELAY_MS: u64 = 5_000;

/// Groups that one client talks to.
pub const GROUPS_MAX: usize = 16;

/// Instances that one session may have been moved away from. One that left more has seen its
/// backends come and go for as long as it lives, and ends.
pub const INSTANCES_LEFT_MAX: usize = 64;

/// Channels that one session is a member of: world, guild, party, and a few rooms. It bounds
/// what a client keeps of keys and numbers.
pub const CHANNELS_PER_SESSION_MAX: usize = 32;

/// Attributes of a session, of all groups together: 128 bytes where there are any.
pub const ATTRIBUTES_MAX: usize = 8;

/// Receivers in one LIST record; a longer list goes in several.
pub const LIST_SESSIONS_MAX: usize = 512;

/// Bytes in front of the payload of a channel's message.
pub const CHANNEL_HEADER_BYTES: usize = 14;

/// Data streams of one uplink; a session's records all go through one of them.
/// More streams, less head-of-line blocking after a lost packet.
pub const UPLINK_STREAMS: u8 = 4;

/// Bytes of one control message of an uplink.
pub const CONTROL_BYTES_MAX: usize = 1 << 20;

/// Bytes of the largest record: a decompressed message with its headers, to a whole list.
pub const RECORD_BYTES_MAX: usize = crate::uplink::RECORD_HEADER_BYTES
    + 8 * LIST_SESSIONS_MAX
    + MESSAGE_HEADER_BYTES_MAX
    + DECOMPRESSED_BYTES_MAX;

// Relations that the code relies on.
const _: () = assert!(FRAME_BYTES_MAX < 1 << 24, "length is a u24");
const _: () = assert!(RECORD_BYTES_MAX < 1 << 24, "length is a u24");
const _: () = assert!(
    FRAME_BYTES_MAX < 0x0054_4547,
    "`GET ` must not be a legal start of a frame"
);
const _: () = assert!(LOGIN_FRAME_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(REKEY_FRAMES < KEY_FRAMES_MAX);
const _: () = assert!(
    crate::channel::KEY_ID_BYTES + CHANNEL_HEADER_BYTES <= MESSAGE_HEADER_BYTES_MAX,
    "the longest payload must fit into a frame for a channel too"
);
const _: () = assert!(
    REPLAY_WINDOW <= REKEY_FRAMES,
    "a window must not span more than two keys"
);
const _: () = assert!(
    DATAGRAM_WINDOW_BEFORE_LOGIN as usize * SEGMENT_BYTES_MAX >= LOGIN_FRAME_BYTES_MAX,
    "a LOGIN must fit"
);
const _: () = assert!(
    ACK_MESSAGES_MAX as usize <= OUTBOX_MESSAGES_MAX / 4,
    "an outbox must not fill up while its acknowledgement is still allowed to wait"
);
