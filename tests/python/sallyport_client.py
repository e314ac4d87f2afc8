"""A client of the Sallyport client protocol, version 1, over TCP.

Written from `docs/PROTOCOL.md` alone: it shares no code with the Rust crates, so that it shows
whether that page is enough. It covers frames (§2), the handshake (§3), sealing, rekeying and
compression (§4), messages (§5) and reliable streams (§6).

It does not reconnect and keeps nothing over the end of a connection.

Invariant: everything above `Client` reads no clock and no socket; the time comes in as `now_ms`,
milliseconds on a steady clock of any origin that never goes back.
"""

import base64
import json
import select
import socket
import struct
import time
import zlib
from collections import deque
from dataclasses import dataclass, field

import lz4.block
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection

# ---------------------------------------------------------------------------------- constants

HEADER_BYTES = 16
TAG_BYTES = 16
FRAME_BYTES_MAX = 32_768
FRAME_BYTES_MAX_BEFORE_HANDSHAKE = 512
FRAME_BYTES_MAX_BEFORE_LOGIN = 4_096
HANDSHAKE_FRAME_BYTES_MIN = 20
SEALED_FRAME_BYTES_MIN = 33

HANDSHAKE, COMPRESSED, KEY_PHASE = 1, 2, 4

HELLO, WELCOME, REJECT = 1, 2, 3
VERSION = 1
NOISE_NAME = b"Noise_NK_25519_ChaChaPoly_BLAKE2s"
PROLOGUE = b"sallyport-nk-1"

REKEY_FRAMES_MAX = 1 << 20
REKEY_BYTES_MAX = 1 << 30
REKEY_MS_MAX = 3_600_000
KEY_FRAMES_MAX = 1 << 32

INFLATED_BYTES_MAX = 32_768
INFLATION_MAX = 64

AGE_MS_MAX = 10_000
AHEAD_MS_MAX = 2_000
DRIFT_PPM = 500

LOGIN, LOGIN_OK, LOGOUT, CLOSE, PING, PONG, SYNC, ACK, GROUP_DOWN = range(1, 10)
MESSAGE, REQUEST, REPLY, ERROR = range(16, 20)
RELIABLE, UNRELIABLE, SEQUENCED = range(3)
CLOSE_TEXT_BYTES_MAX = 256
LOGIN_METHOD_TOKEN = 1

ACK_AFTER_MESSAGES = 16
ACK_AFTER_MS = 5_000
OUTBOX_MESSAGES_MAX = 1_024
OUTBOX_BYTES_MAX = 256 * 1_024

# Bounds of this client's own, not of the protocol: what a gateway can make it keep.
STREAMS_MAX = 64
EVENTS_MAX = 65_536


class Refused(Exception):
    """What arrived, or what was to be sent, breaks a rule; `reason` says which check failed."""

    def __init__(self, reason, detail=""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class OutboxFull(Exception):
    """The outbox of the group is at its bound; nothing was sent or kept."""


# ------------------------------------------------------------------------------- frames (§2)


@dataclass(frozen=True)
class Frame:
    """One frame, length and checksum already checked."""

    flags: int
    sequence_low: int
    timestamp: int
    associated: bytes  # bytes 0–11: what the AEAD authenticates and the prologue repeats
    body: bytes


def encode_frame(flags, sequence, timestamp, body):
    """A whole frame around a handshake message or a sealed body."""
    return frame_around(associated_bytes(flags, sequence, timestamp, len(body)), body)


def associated_bytes(flags, sequence, timestamp, body_bytes):
    length = HEADER_BYTES + body_bytes
    if length > FRAME_BYTES_MAX:
        raise Refused("length", f"a frame of {length} bytes cannot be sent")
    sequence_low, timestamp = sequence & 0xFFFFFFFF, timestamp & 0xFFFFFFFF
    return length.to_bytes(3, "little") + struct.pack("<BII", flags, sequence_low, timestamp)


def frame_around(associated, body):
    crc = zlib.crc32(body, zlib.crc32(associated))
    return associated + struct.pack("<I", crc) + body


def split_frame(buffer, bytes_max):
    """The first whole frame of `buffer` as bytes, or None when it has not arrived yet.

    The length alone is judged here, because a wrong one leaves nothing to go on with.
    """
    if len(buffer) < 3:
        return None
    length = int.from_bytes(buffer[:3], "little")
    if not HANDSHAKE_FRAME_BYTES_MIN <= length <= bytes_max:
        raise Refused("length", f"{length} bytes")
    if len(buffer) < length:
        return None
    return bytes(buffer[:length])


def decode_frame(data, bytes_max=FRAME_BYTES_MAX, handshake=False):
    """Checks length, flags and checksum, in the order of §4."""
    if len(data) < HEADER_BYTES or int.from_bytes(data[:3], "little") != len(data):
        raise Refused("length", f"{len(data)} bytes do not hold the frame they announce")
    bytes_min = HANDSHAKE_FRAME_BYTES_MIN if handshake else SEALED_FRAME_BYTES_MIN
    if not bytes_min <= len(data) <= bytes_max:
        raise Refused("length", f"{len(data)} bytes")
    flags, sequence_low, timestamp, crc = struct.unpack_from("<BIII", data, 3)
    allowed = HANDSHAKE if handshake else COMPRESSED | KEY_PHASE
    if flags & ~allowed or (handshake and flags != HANDSHAKE):
        raise Refused("flags", f"{flags:#04x}")
    associated, body = data[:12], data[HEADER_BYTES:]
    if zlib.crc32(body, zlib.crc32(associated)) != crc:
        raise Refused("crc")
    return Frame(flags, sequence_low, timestamp, associated, body)


# ---------------------------------------------------------------------------- handshake (§3)


@dataclass(frozen=True)
class Welcome:
    """The payload of `WELCOME`."""

    frame_bytes_max: int
    heartbeat_interval_ms: int
    idle_timeout_ms: int
    login_deadline_ms: int
    unix_ms: int

    LAYOUT = struct.Struct("<IIIIQ")

    @classmethod
    def decode(cls, payload):
        if len(payload) != cls.LAYOUT.size:
            raise Refused("handshake", f"WELCOME carries {len(payload)} bytes")
        return cls(*cls.LAYOUT.unpack(payload))

    def encode(self):
        return self.LAYOUT.pack(
            self.frame_bytes_max,
            self.heartbeat_interval_ms,
            self.idle_timeout_ms,
            self.login_deadline_ms,
            self.unix_ms,
        )


class Rejected(Refused):
    """The gateway answered `REJECT`. Not authenticated: all it says is that there is no connection."""

    def __init__(self, code):
        super().__init__("rejected", f"reason {code}")
        self.code = code


class Handshake:
    """The initiator's side of the handshake.

    Call `hello` once, then `welcome` once; then `client_key`, `gateway_key` and `hash` are set.
    `ephemeral_private` is for test vectors only.
    """

    def __init__(self, gateway_key, ephemeral_private=None):
        self.noise = NoiseConnection.from_name(NOISE_NAME)
        self.noise.set_as_initiator()
        self.noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, gateway_key)
        if ephemeral_private is not None:
            self.noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral_private)
        self.client_key = self.gateway_key = self.hash = None

    def hello(self, timestamp, version=VERSION):
        clear = struct.pack("<BBH", HELLO, version, 0)
        noise_bytes = 32 + TAG_BYTES
        associated = associated_bytes(HANDSHAKE, 0, timestamp, len(clear) + noise_bytes)
        self.noise.set_prologue(PROLOGUE + associated + clear)
        self.noise.start_handshake()
        return frame_around(associated, clear + bytes(self.noise.write_message(b"")))

    def welcome(self, frame):
        """Takes a checked handshake frame of the gateway, gives the `Welcome` in it."""
        if frame.sequence_low != 0:
            raise Refused("handshake", "sequence is not 0")
        kind, version, code = struct.unpack_from("<BBH", frame.body)
        if kind == REJECT:
            raise Rejected(code)
        if (kind, version, code) != (WELCOME, VERSION, 0):
            raise Refused("handshake", f"type {kind}, version {version}, {code}")
        try:
            payload = self.noise.read_message(frame.body[4:])
        except (InvalidTag, ValueError) as error:
            raise Refused("handshake", "not from the gateway that has this key") from error
        welcome = Welcome.decode(bytes(payload))
        self.client_key = bytes(self.noise.noise_protocol.cipher_state_encrypt.k)
        self.gateway_key = bytes(self.noise.noise_protocol.cipher_state_decrypt.k)
        self.hash = bytes(self.noise.get_handshake_hash())
        return welcome


# ------------------------------------------------------------------------ sealed bodies (§4)


def nonce(sequence):
    return struct.pack("<IQ", 0, sequence)


def next_key(key):
    """Noise §4.2 `REKEY`."""
    return ChaCha20Poly1305(key).encrypt(nonce((1 << 64) - 1), bytes(32), None)[:32]


def expand_sequence(low, expected):
    """The 64-bit sequence with these low 32 bits that is nearest to the expected one."""
    distance = (low - expected) & 0xFFFFFFFF
    if distance >= 1 << 31:
        distance -= 1 << 32
    sequence = expected + distance
    return sequence if sequence >= 0 else sequence + (1 << 32)


class Sealer:
    """The sending side of one direction: its key, its phase and its sequence."""

    def __init__(self, key, now_ms=0, sequence=0, key_phase=0):
        self.key, self.key_phase, self.sequence = key, key_phase, sequence
        self.frames = self.bytes = 0
        self.since_ms = now_ms

    def rekey(self, now_ms=0):
        self.key, self.key_phase = next_key(self.key), self.key_phase ^ 1
        self.frames = self.bytes = 0
        self.since_ms = now_ms

    def seal(self, body, timestamp, now_ms=0, compressed=False):
        if (
            self.frames >= REKEY_FRAMES_MAX
            or self.bytes >= REKEY_BYTES_MAX - FRAME_BYTES_MAX
            or now_ms - self.since_ms >= REKEY_MS_MAX
        ):
            self.rekey(now_ms)
        flags = (COMPRESSED if compressed else 0) | (KEY_PHASE if self.key_phase else 0)
        associated = associated_bytes(flags, self.sequence, timestamp, len(body) + TAG_BYTES)
        sealed = ChaCha20Poly1305(self.key).encrypt(nonce(self.sequence), body, associated)
        self.sequence += 1
        self.frames += 1
        self.bytes += len(associated) + 4 + len(sealed)
        return frame_around(associated, sealed)


class Opener:
    """The receiving side of one direction. `rekeys` counts how often the sender changed its key."""

    def __init__(self, key, expected=0, key_phase=0):
        self.key, self.key_phase, self.expected = key, key_phase, expected
        self.frames = self.rekeys = 0

    def open(self, frame):
        """The body in the clear, still compressed where the flag says so."""
        sequence = expand_sequence(frame.sequence_low, self.expected)
        phase = 1 if frame.flags & KEY_PHASE else 0
        changed = phase != self.key_phase
        key = next_key(self.key) if changed else self.key
        if not changed and self.frames >= KEY_FRAMES_MAX:
            raise Refused("key_exhausted")
        try:
            body = ChaCha20Poly1305(key).decrypt(nonce(sequence), frame.body, frame.associated)
        except InvalidTag as error:
            raise Refused("aead") from error
        if sequence != self.expected:
            raise Refused("sequence", f"{sequence} instead of {self.expected}")
        if changed:
            self.key, self.key_phase = key, phase
            self.frames = 0
            self.rekeys += 1
        self.expected += 1
        self.frames += 1
        return body


class PeerClock:
    """Judges timestamps by the difference of clocks at the handshake, following slow drift."""

    def __init__(self, peer_timestamp, now_ms):
        self.origin_ms, self.peer_origin = now_ms, peer_timestamp
        self.correction_ms = 0.0
        self.last_ms = now_ms

    def check(self, timestamp, now_ms):
        peer_elapsed = (timestamp - self.peer_origin) & 0xFFFFFFFF
        own_elapsed = now_ms - self.origin_ms
        # Both clocks wrap at 32 bits on the wire, so only the difference near 0 means something.
        age = (int(own_elapsed - self.correction_ms) - peer_elapsed) & 0xFFFFFFFF
        if age >= 1 << 31:
            age -= 1 << 32
        if age > AGE_MS_MAX or age < -AHEAD_MS_MAX:
            raise Refused("timestamp", f"{age} ms old")
        step_ms = (now_ms - self.last_ms) * DRIFT_PPM / 1_000_000
        self.correction_ms += max(-step_ms, min(step_ms, age))
        self.last_ms = now_ms


def compress(payload):
    """The compressed form of a payload, or None where it would not be smaller."""
    if len(payload) > INFLATED_BYTES_MAX:
        raise Refused("length", "more than a receiver may decompress")
    block = lz4.block.compress(payload, store_size=False)
    small = struct.pack("<I", len(payload)) + block
    if len(small) >= len(payload) or len(payload) > INFLATION_MAX * len(block):
        return None
    return small


def decompress(data):
    if len(data) < 5:
        raise Refused("decompression", "too short")
    size, block = int.from_bytes(data[:4], "little"), data[4:]
    if size > INFLATED_BYTES_MAX or size > INFLATION_MAX * len(block):
        raise Refused("decompression", f"{size} bytes from {len(block)}")
    try:
        payload = lz4.block.decompress(block, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise Refused("decompression", str(error)) from error
    if len(payload) != size:
        raise Refused("decompression", f"{len(payload)} bytes instead of {size}")
    return payload


# -------------------------------------------------------------------------------- bodies (§5)

# Kinds of a fixed layout: what follows the kind byte, and the names of the fields.
FIXED = {
    LOGIN_OK: (struct.Struct("<xQQ"), ("session", "unix_ms")),
    LOGOUT: (struct.Struct("<"), ()),
    PING: (struct.Struct("<xI"), ("stamp",)),
    PONG: (struct.Struct("<xI"), ("stamp",)),
    ACK: (struct.Struct("<xHI"), ("group", "ack")),
    GROUP_DOWN: (struct.Struct("<xH"), ("group",)),
}
SYNC_LAYOUT = struct.Struct("<BHQII")
CLOSE_LAYOUT = struct.Struct("<xHI")
MESSAGE_LAYOUT = struct.Struct("<BHIIH")
LANE_MASK, MORE = 3, 4


def encode_body(fields):
    """A body from its fields: `kind` and the names of §5; `payload` goes in as it is."""
    kind = fields["kind"]
    head = bytes([kind])
    if kind in FIXED:
        layout, names = FIXED[kind]
        return head + layout.pack(*(fields[name] for name in names))
    if kind == LOGIN:
        channel, device = fields["channel"], fields["device"]
        return (
            head
            + struct.pack("<BI", fields["method"], fields["client_version"])
            + bytes([len(channel)])
            + channel
            + bytes([len(device)])
            + device
            + fields["credential"]
        )
    if kind == CLOSE:
        return head + CLOSE_LAYOUT.pack(fields["reason"], fields["retry_after_ms"]) + fields["text"]
    if kind == SYNC:
        flags = 1 if fields["fresh"] else 0
        names = ("group", "incarnation", "next", "base")
        return head + SYNC_LAYOUT.pack(flags, *(fields[name] for name in names))
    flags = fields["lane"] | (MORE if fields["more"] else 0)
    names = ("group", "number", "ack", "message_id")
    body = head + MESSAGE_LAYOUT.pack(flags, *(fields[name] for name in names))
    if kind != MESSAGE:
        body += struct.pack("<I", fields["request"])
    return body + fields["payload"]


def decode_body(body, compressed=False):
    """The fields of an opened body. Refuses what §5 does not allow, then decompresses."""
    if not body:
        raise Refused("malformed", "empty")
    try:
        fields = decode_kind(body[0], body[1:])
    except (struct.error, IndexError) as error:
        raise Refused("malformed", f"kind {body[0]}: {error}") from error
    if compressed:
        if "payload" not in fields:
            raise Refused("malformed", f"kind {body[0]} has no payload to compress")
        fields["payload"] = decompress(fields["payload"])
    return fields


def decode_kind(kind, rest):
    if kind in FIXED:
        layout, names = FIXED[kind]
        values = layout.unpack(rest)
        if kind != LOGOUT and rest[0] != 0:
            raise Refused("malformed", "reserved byte")
        return {"kind": kind, **dict(zip(names, values))}
    if kind == LOGIN:
        method, client_version, channel_bytes = struct.unpack_from("<BIB", rest)
        device_at = 6 + channel_bytes
        credential_at = device_at + 1 + rest[device_at]
        if credential_at > len(rest):
            raise Refused("malformed", "LOGIN is cut off")
        return {
            "kind": kind,
            "method": method,
            "client_version": client_version,
            "channel": rest[6:device_at],
            "device": rest[device_at + 1 : credential_at],
            "credential": rest[credential_at:],
        }
    if kind == CLOSE:
        reason, retry_after_ms = CLOSE_LAYOUT.unpack_from(rest)
        text = rest[CLOSE_LAYOUT.size :]
        if rest[0] != 0 or len(text) > CLOSE_TEXT_BYTES_MAX:
            raise Refused("malformed", "CLOSE")
        return {"kind": kind, "reason": reason, "retry_after_ms": retry_after_ms, "text": text}
    if kind == SYNC:
        flags, group, incarnation, next_, base = SYNC_LAYOUT.unpack(rest)
        if flags & ~1:
            raise Refused("malformed", "flags of SYNC")
        return {
            "kind": kind,
            "fresh": bool(flags & 1),
            "group": group,
            "incarnation": incarnation,
            "next": next_,
            "base": base,
        }
    if not MESSAGE <= kind <= ERROR:
        raise Refused("kind", str(kind))
    flags, group, number, ack, message_id = MESSAGE_LAYOUT.unpack_from(rest)
    lane, more = flags & LANE_MASK, bool(flags & MORE)
    if flags & ~(LANE_MASK | MORE) or lane > SEQUENCED or (more and kind != REPLY):
        raise Refused("lane", f"{flags:#04x}")
    if (number == 0) != (lane == UNRELIABLE):
        raise Refused("lane", f"number {number} in lane {lane}")
    fields = {
        "kind": kind,
        "lane": lane,
        "more": more,
        "group": group,
        "number": number,
        "ack": ack,
        "message_id": message_id,
    }
    at = MESSAGE_LAYOUT.size
    if kind != MESSAGE:
        (fields["request"],) = struct.unpack_from("<I", rest, at)
        at += 4
    fields["payload"] = rest[at:]
    return fields


# --------------------------------------------------------------------------------- token (§5)


def pre_authentication_encoding(*pieces):
    """PAE of the PASETO specification: the count, then each piece after its length."""
    return struct.pack("<Q", len(pieces)) + b"".join(
        struct.pack("<Q", len(piece)) + piece for piece in pieces
    )


def sign_token(secret, claims_json):
    """A PASETO v4.public token without footer; `secret` is seed followed by public key."""
    header = b"v4.public."
    signed = pre_authentication_encoding(header, claims_json, b"", b"")
    signature = Ed25519PrivateKey.from_private_bytes(secret[:32]).sign(signed)
    return header + base64.urlsafe_b64encode(claims_json + signature).rstrip(b"=")


def verify_token(public, token):
    """The claims of a token as JSON bytes; raises `InvalidSignature`. Used by tests only."""
    header, _, encoded = token.rpartition(b".")
    raw = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    claims_json, signature = raw[:-64], raw[-64:]
    signed = pre_authentication_encoding(header + b".", claims_json, b"", b"")
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    return claims_json


def issue_token(secret, audience, account, token_id, issued_unix_s, life_s=30):
    """What a login service does: a token for one login of one account."""

    def rfc3339(unix_s):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))

    claims = {
        "aud": audience,
        "sub": account,
        "jti": token_id,
        "iat": rfc3339(issued_unix_s),
        "exp": rfc3339(issued_unix_s + life_s),
    }
    return sign_token(secret, json.dumps(claims).encode())


# ------------------------------------------------------------------------------- streams (§6)


@dataclass
class Kept:
    """A message in the outbox; its acknowledgement is filled in each time it is sent."""

    fields: dict
    compressed: bool
    bytes: int


@dataclass
class Stream:
    """The client's end of the streams with one group.

    `push` and `handle_*` give the list of bodies to send now, as pairs of fields and a flag
    that says whether the payload is compressed. Invariant: the numbers in the outbox are
    consecutive and end right below `next_number`.
    """

    group: int
    up: bool = False
    incarnation: int | None = None
    next_number: int = 1
    expected: int = 1
    sequenced_sent: int = 0
    sequenced_seen: int = 0
    outbox: deque = field(default_factory=deque)
    outbox_bytes: int = 0
    # What was received in order and not acknowledged yet, and when the first of it came.
    owed: int = 0
    owed_since_ms: int | None = None
    # The expected number for which a SYNC was already sent, so that a gap asks once.
    asked_for: int | None = None
    # Counters for tests: losses are never silent.
    repeats: int = 0
    gaps: int = 0
    stale: int = 0
    acks_sent: int = 0

    def push(self, fields, compressed=False):
        lane = fields["lane"]
        if lane == RELIABLE:
            fields["number"] = self.next_number
            kept = Kept(fields, compressed, len(encode_body({**fields, "ack": 0})))
            if (
                len(self.outbox) >= OUTBOX_MESSAGES_MAX
                or self.outbox_bytes + kept.bytes > OUTBOX_BYTES_MAX
            ):
                raise OutboxFull(self.group)
            self.next_number += 1
            self.outbox.append(kept)
            self.outbox_bytes += kept.bytes
        elif lane == SEQUENCED:
            self.sequenced_sent += 1
            fields["number"] = self.sequenced_sent
        else:
            fields["number"] = 0
        return [self.acknowledging(fields, compressed)] if self.up else []

    def acknowledging(self, fields, compressed):
        self.owed, self.owed_since_ms = 0, None
        return {**fields, "ack": self.expected - 1}, compressed

    def sync(self):
        self.owed, self.owed_since_ms = 0, None
        base = self.outbox[0].fields["number"] if self.outbox else self.next_number
        return {
            "kind": SYNC,
            "fresh": False,
            "group": self.group,
            "incarnation": self.incarnation,
            "next": self.expected,
            "base": base,
        }, False

    def handle_sync(self, fields):
        if fields["incarnation"] != self.incarnation:
            self.incarnation = fields["incarnation"]
            self.expected, self.sequenced_seen = 1, 0
        elif not fields["fresh"]:
            self.handle_ack(fields["next"] - 1)
        self.up, self.asked_for = True, None
        replies = [self.sync()]
        replies += [self.acknowledging(kept.fields, kept.compressed) for kept in self.outbox]
        return replies

    def handle_down(self):
        self.up = False

    def handle_ack(self, ack):
        if ack >= self.next_number:
            raise Refused("ack", f"{ack} was never sent")
        while self.outbox and self.outbox[0].fields["number"] <= ack:
            self.outbox_bytes -= self.outbox.popleft().bytes

    def handle_message(self, fields, now_ms):
        """Gives (is it for the application, bodies to send)."""
        self.handle_ack(fields["ack"])
        lane, number = fields["lane"], fields["number"]
        if lane == UNRELIABLE:
            return True, []
        if lane == SEQUENCED:
            if number <= self.sequenced_seen:
                self.stale += 1
                return False, []
            self.sequenced_seen = number
            return True, []
        if number > self.expected:
            self.gaps += 1
            if self.asked_for == self.expected:
                return False, []
            self.asked_for = self.expected
            return False, [self.sync()]
        fresh = number == self.expected
        if fresh:
            self.expected += 1
        else:
            self.repeats += 1
        # A repeat is owed an acknowledgement too: its sender has missed the first one.
        self.owed += 1
        if self.owed_since_ms is None:
            self.owed_since_ms = now_ms
        return fresh, self.poll_ack(now_ms)

    def poll_ack(self, now_ms):
        late = self.owed_since_ms is not None and now_ms - self.owed_since_ms >= ACK_AFTER_MS
        if self.owed < ACK_AFTER_MESSAGES and not late:
            return []
        self.owed, self.owed_since_ms = 0, None
        # While the group is down an ACK would be lost; the next SYNC says the same.
        if not self.up:
            return []
        self.acks_sent += 1
        return [({"kind": ACK, "group": self.group, "ack": self.expected - 1}, False)]


# ------------------------------------------------------------------------------- connection


class Connection:
    """The protocol of one connection, without a socket and without a clock.

    Order of calls: `handle_bytes` for what arrived, `handle_time` when `poll_deadline_ms` has
    come, and after each call `poll_output` for what is to be written and `events` for what
    happened. Raises `Refused` when the gateway broke a rule; the connection is over then.
    """

    def __init__(self, gateway_key, now_ms, timestamp_origin=0):
        self.timestamp_origin = timestamp_origin
        self.handshake = Handshake(gateway_key)
        self.welcome = self.session = self.closed = None
        self.sealer = self.opener = self.peer_clock = None
        self.streams = {}
        self.events = deque()
        self.received_kinds = {}
        self.input = bytearray()
        self.output = bytearray()
        self.sent_at_ms = self.heard_at_ms = now_ms
        self.next_request = self.next_stamp = 1
        self.heartbeats = True
        self.acknowledges = True
        self.output += self.handshake.hello(self.timestamp(now_ms))

    def timestamp(self, now_ms):
        return (now_ms + self.timestamp_origin) & 0xFFFFFFFF

    # What arrives

    def frame_bytes_max(self):
        if self.welcome is None:
            return FRAME_BYTES_MAX_BEFORE_HANDSHAKE
        return FRAME_BYTES_MAX if self.session is not None else FRAME_BYTES_MAX_BEFORE_LOGIN

    def handle_bytes(self, data, now_ms):
        # After CLOSE nothing counts any more, so nothing is kept either.
        if self.closed is None:
            self.input += data
        while self.closed is None:
            frame = split_frame(self.input, self.frame_bytes_max())
            if frame is None:
                return
            del self.input[: len(frame)]
            self.handle_frame(frame, now_ms)

    def handle_frame(self, data, now_ms):
        frame = decode_frame(data, self.frame_bytes_max(), handshake=self.welcome is None)
        self.heard_at_ms = now_ms
        if self.welcome is None:
            self.welcome = self.handshake.welcome(frame)
            self.sealer = Sealer(self.handshake.client_key, now_ms)
            self.opener = Opener(self.handshake.gateway_key)
            self.peer_clock = PeerClock(frame.timestamp, now_ms)
            return
        body = self.opener.open(frame)
        self.peer_clock.check(frame.timestamp, now_ms)
        fields = decode_body(body, bool(frame.flags & COMPRESSED))
        kind = fields["kind"]
        self.received_kinds[kind] = self.received_kinds.get(kind, 0) + 1
        self.handle_body(kind, fields, now_ms)

    def handle_body(self, kind, fields, now_ms):
        if kind == PING:
            self.send({"kind": PONG, "stamp": fields["stamp"]}, now_ms)
        elif kind == LOGIN_OK:
            self.session = fields["session"]
        elif kind == CLOSE:
            self.closed = fields
        elif kind == PONG:
            pass
        elif self.session is None or kind in (LOGIN, LOGOUT, REQUEST):
            raise Refused("kind", f"{kind} at this moment")
        elif kind == SYNC:
            self.send_all(self.stream(fields["group"]).handle_sync(fields), now_ms)
        elif kind == ACK:
            self.stream(fields["group"]).handle_ack(fields["ack"])
        elif kind == GROUP_DOWN:
            self.stream(fields["group"]).handle_down()
        else:
            wanted, replies = self.stream(fields["group"]).handle_message(fields, now_ms)
            if self.acknowledges:
                self.send_all(replies, now_ms)
            if not wanted:
                return
        if len(self.events) >= EVENTS_MAX:
            raise Refused("events", "the application does not read")
        self.events.append(fields)

    def stream(self, group):
        if group not in self.streams:
            if len(self.streams) >= STREAMS_MAX:
                raise Refused("group", f"more than {STREAMS_MAX} groups")
            self.streams[group] = Stream(group)
        return self.streams[group]

    # Time

    def handle_time(self, now_ms):
        if self.welcome is None or self.closed is not None:
            return
        if now_ms - self.heard_at_ms >= self.welcome.idle_timeout_ms:
            raise Refused("idle", "the gateway has been silent for too long")
        if self.acknowledges:
            for stream in self.streams.values():
                self.send_all(stream.poll_ack(now_ms), now_ms)
        if self.heartbeats and now_ms - self.sent_at_ms >= self.welcome.heartbeat_interval_ms:
            self.ping(now_ms)

    def poll_deadline_ms(self):
        """When `handle_time` is to be called next, or None."""
        if self.welcome is None or self.closed is not None:
            return None
        deadlines = [self.heard_at_ms + self.welcome.idle_timeout_ms]
        if self.heartbeats:
            deadlines.append(self.sent_at_ms + self.welcome.heartbeat_interval_ms)
        if self.acknowledges:
            since = [s.owed_since_ms for s in self.streams.values()]
            deadlines += [ms + ACK_AFTER_MS for ms in since if ms is not None]
        return min(deadlines)

    # What is sent

    def poll_output(self):
        data, self.output = bytes(self.output), bytearray()
        return data

    def seal(self, body, now_ms, compressed=False):
        self.sent_at_ms = now_ms
        return self.sealer.seal(body, self.timestamp(now_ms), now_ms, compressed)

    def send(self, fields, now_ms, compressed=False):
        frame = self.seal(encode_body(fields), now_ms, compressed)
        if len(frame) > self.welcome.frame_bytes_max:
            raise Refused("length", "larger than the gateway accepts")
        self.output += frame

    def send_all(self, bodies, now_ms):
        for fields, compressed in bodies:
            self.send(fields, now_ms, compressed)

    def ping(self, now_ms):
        stamp, self.next_stamp = self.next_stamp, self.next_stamp + 1
        self.send({"kind": PING, "stamp": stamp}, now_ms)
        return stamp

    def login(self, token, now_ms, client_version=1, channel=b"python", device=b"python"):
        fields = {
            "kind": LOGIN,
            "method": LOGIN_METHOD_TOKEN,
            "client_version": client_version,
            "channel": channel,
            "device": device,
            "credential": token,
        }
        self.send(fields, now_ms)

    def push(self, kind, group, message_id, payload, now_ms, lane=RELIABLE, compressed=False):
        """Sends or keeps a message; gives the request's number for a `REQUEST`."""
        if compressed:
            small = compress(payload)
            compressed = small is not None
            payload = small if compressed else payload
        fields = {
            "kind": kind,
            "lane": lane,
            "more": False,
            "group": group,
            "message_id": message_id,
            "payload": payload,
        }
        if kind == REQUEST:
            fields["request"], self.next_request = self.next_request, self.next_request + 1
        self.send_all(self.stream(group).push(fields, compressed), now_ms)
        return fields.get("request")


# ----------------------------------------------------------------------------------- driver


class Disconnected(Exception):
    """The socket is closed; `close` holds the fields of the `CLOSE` that came before, or None."""

    def __init__(self, close):
        super().__init__(f"closed: {close}")
        self.close = close


def steady_ms():
    return time.monotonic_ns() // 1_000_000


class Client:
    """Joins a `Connection` to a TCP socket. Every wait has a limit in seconds."""

    def __init__(self, address, gateway_key, timestamp_origin=0, timeout_s=10.0):
        self.socket = socket.create_connection(address, timeout=timeout_s)
        try:
            self.socket.setblocking(False)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connection = Connection(gateway_key, steady_ms(), timestamp_origin)
            self.unsent = b""
            self.ended = False
            self.wait(lambda: self.connection.welcome is not None, timeout_s)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def write_raw(self, data):
        """Puts bytes on the socket behind everything sent so far."""
        self.unsent += self.connection.poll_output() + data

    def turn(self, timeout_s):
        """One turn of the loop: writes, reads and timers, waiting at most `timeout_s`."""
        connection = self.connection
        self.unsent += connection.poll_output()
        deadline_ms = connection.poll_deadline_ms()
        if deadline_ms is not None:
            timeout_s = min(timeout_s, max(0.0, (deadline_ms - steady_ms()) / 1000))
        writing = [self.socket] if self.unsent else []
        readable, writable, _ = select.select([self.socket], writing, [], timeout_s)
        try:
            if writable:
                sent = self.socket.send(self.unsent)
                self.unsent = self.unsent[sent:]
            if readable:
                data = self.socket.recv(65_536)
                if not data:
                    self.ended = True
                else:
                    connection.handle_bytes(data, steady_ms())
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            self.ended = True
        if not self.ended:
            connection.handle_time(steady_ms())

    def wait(self, condition, timeout_s=10.0):
        """Turns until `condition()` is true and gives its value."""
        end_ms = steady_ms() + int(timeout_s * 1000)
        while True:
            value = condition()
            if value:
                return value
            if self.ended:
                raise Disconnected(self.connection.closed)
            left_ms = end_ms - steady_ms()
            if left_ms <= 0:
                raise TimeoutError(f"nothing after {timeout_s} s")
            self.turn(left_ms / 1000)

    def next_event(self, wanted=lambda fields: True, timeout_s=10.0):
        """The first event that is wanted; those before it are dropped."""

        def found():
            while self.connection.events:
                fields = self.connection.events.popleft()
                if wanted(fields):
                    return fields
            return None

        return self.wait(found, timeout_s)

    def wait_closed(self, timeout_s=10.0):
        """Waits until the gateway has closed the socket; gives the CLOSE before it, or None."""
        self.wait(lambda: self.ended, timeout_s)
        return self.connection.closed

    # The application's calls

    def login(self, token, timeout_s=10.0, **fields):
        """Logs in and gives the session; a refusal raises `Disconnected` with the `CLOSE`."""
        self.connection.login(token, steady_ms(), **fields)
        self.wait(lambda: self.connection.session is not None, timeout_s)
        return self.connection.session

    def wait_group(self, group, timeout_s=10.0):
        self.wait(lambda: self.connection.stream(group).up, timeout_s)
        return self.connection.stream(group)

    def push(self, kind, group, message_id, payload, **options):
        return self.connection.push(kind, group, message_id, payload, steady_ms(), **options)

    def request(self, group, message_id, payload, timeout_s=10.0, **options):
        """Sends a request and waits for its reply."""
        number = self.push(REQUEST, group, message_id, payload, **options)
        return self.next_event(
            lambda f: f["kind"] in (REPLY, ERROR) and f["request"] == number, timeout_s
        )

    def ping(self):
        return self.connection.ping(steady_ms())

    def send(self, fields):
        self.connection.send(fields, steady_ms())

    def logout(self, timeout_s=10.0):
        """Logs out; gives the gateway's CLOSE."""
        self.send({"kind": LOGOUT})
        return self.wait_closed(timeout_s)
