"""What the client protocol puts on the wire (`docs/PROTOCOL.md` §2 to §5 and §7), without any state of
a conversation: frames, the handshake, sealing, rekeying, compression, bodies and tokens.

It opens no socket, reads no clock, and knows no streams: those are `sallyport_client.py`.

Invariant: whatever bytes come in, the answer is a value or `Refused`.
"""

import base64
import hashlib
import json
import struct
import time
import zlib
from dataclasses import dataclass

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

HANDSHAKE, COMPRESSED, KEY_PHASE, CHANNEL_FLAG = 1, 2, 4, 8

HELLO, WELCOME, REJECT, RESUME = 1, 2, 3, 4
VERSION = 1
NOISE_NAME = b"Noise_NK_25519_ChaChaPoly_BLAKE2s"
PROLOGUE = b"sallyport-nk-1"
NOISE_RESUME_NAME = b"Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s"
RESUME_PROLOGUE = b"sallyport-re-1"
RESUME_PADDING = bytes(16)

REKEY_FRAMES_MAX = 1 << 20
REKEY_BYTES_MAX = 1 << 30
REKEY_MS_MAX = 3_600_000
KEY_FRAMES_MAX = 1 << 32

INFLATED_BYTES_MAX = 32_768
INFLATION_MAX = 64

AGE_MS_MAX = 10_000
AHEAD_MS_MAX = 2_000
JITTER_STEP_US_MAX = 1_000_000
SETTLE_MS = 15_000
MS_PER_DRIFT_MS = 2_000
FRESH, OLD, FUTURE = "fresh", "old", "future"

LOGIN, LOGIN_OK, LOGOUT, CLOSE, PING, PONG, SYNC, ACK, GROUP_DOWN, ATTACH = range(1, 11)
CREDIT = 13
QUEUE, CHANNEL = 14, 15
MESSAGE, REQUEST, REPLY, ERROR, CHANNEL_MESSAGE = range(16, 21)
CREDIT_UNLIMITED = 0xFFFFFFFF
RELIABLE, UNRELIABLE, SEQUENCED = range(3)
CLOSE_TEXT_BYTES_MAX = 256
LABEL_BYTES_MAX = 64
LOGIN_METHOD_TOKEN = 1


class Refused(Exception):
    """What arrived, or what was to be sent, breaks a rule; `reason` says which check failed."""

    def __init__(self, reason, detail=""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


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
        raise Refused("bad_length", f"a frame of {length} bytes cannot be sent")
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
        raise Refused("bad_length", f"{length} bytes")
    if len(buffer) < length:
        return None
    return bytes(buffer[:length])


def decode_frame(data, bytes_max=FRAME_BYTES_MAX, handshake=False):
    """Checks length, flags and checksum, in the order of §4."""
    if len(data) < HEADER_BYTES or int.from_bytes(data[:3], "little") != len(data):
        raise Refused("bad_length", f"{len(data)} bytes do not hold the frame they announce")
    bytes_min = HANDSHAKE_FRAME_BYTES_MIN if handshake else SEALED_FRAME_BYTES_MIN
    if not bytes_min <= len(data) <= bytes_max:
        raise Refused("bad_length", f"{len(data)} bytes")
    flags, sequence_low, timestamp, crc = struct.unpack_from("<BIII", data, 3)
    allowed = HANDSHAKE if handshake else COMPRESSED | KEY_PHASE
    if flags & ~allowed or (handshake and flags != HANDSHAKE):
        raise Refused("bad_flags", f"{flags:#04x}")
    associated, body = data[:12], data[HEADER_BYTES:]
    if zlib.crc32(body, zlib.crc32(associated)) != crc:
        raise Refused("bad_crc")
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
        return cls(*cls.LAYOUT.unpack_from(payload))

    def encode(self):
        return self.LAYOUT.pack(
            self.frame_bytes_max,
            self.heartbeat_interval_ms,
            self.idle_timeout_ms,
            self.login_deadline_ms,
            self.unix_ms,
        )


class Rejected(Refused):
    """The gateway answered `REJECT`: no connection. The reason in it is not authenticated."""

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
            raise Refused("bad_handshake", "sequence is not 0")
        kind, version, code = struct.unpack_from("<BBH", frame.body)
        if kind == REJECT:
            raise Rejected(code)
        if version != VERSION:
            raise Refused("bad_version", str(version))
        if kind != WELCOME:
            raise Refused("bad_handshake", f"type {kind}, version {version}, {code}")
        if len(frame.body) < 4 + 32 + Welcome.LAYOUT.size + TAG_BYTES:
            raise Refused("bad_handshake", f"WELCOME has {len(frame.body)} bytes")
        try:
            payload = self.noise.read_message(frame.body[4:])
        except (InvalidTag, ValueError) as error:
            raise Refused("bad_handshake", "not from the gateway that has this key") from error
        welcome = Welcome.decode(bytes(payload))
        self.client_key = bytes(self.noise.noise_protocol.cipher_state_encrypt.k)
        self.gateway_key = bytes(self.noise.noise_protocol.cipher_state_decrypt.k)
        self.hash = bytes(self.noise.get_handshake_hash())
        return welcome

    def next_ticket(self):
        return Ticket.derive(self.client_key, self.gateway_key, self.hash)


# ------------------------------------------------------------------------------ tickets (§7)


@dataclass(frozen=True)
class Ticket:
    """What leads back to a session, once."""

    key: bytes

    @classmethod
    def derive(cls, client_key, gateway_key, handshake_hash):
        secret = b"sallyport-ticket-key-1" + client_key + gateway_key + handshake_hash
        return cls(hashlib.blake2s(secret).digest())

    @property
    def id(self):
        return hashlib.blake2s(b"sallyport-ticket-id-1" + self.key).digest()[:8]


class ResumeHandshake(Handshake):
    """The initiator's side of a resume: `resume` instead of `hello`."""

    def __init__(self, ticket, ephemeral_private=None):
        self.ticket = ticket
        self.noise = NoiseConnection.from_name(NOISE_RESUME_NAME)
        self.noise.set_as_initiator()
        self.noise.set_psks(psks=[ticket.key])
        if ephemeral_private is not None:
            self.noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral_private)
        self.client_key = self.gateway_key = self.hash = None

    def hello(self, timestamp, version=VERSION):
        clear = struct.pack("<BBH", RESUME, version, 0) + self.ticket.id
        noise_bytes = 32 + len(RESUME_PADDING) + TAG_BYTES
        associated = associated_bytes(HANDSHAKE, 0, timestamp, len(clear) + noise_bytes)
        self.noise.set_prologue(RESUME_PROLOGUE + associated + clear)
        self.noise.start_handshake()
        return frame_around(associated, clear + bytes(self.noise.write_message(RESUME_PADDING)))


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
            raise Refused("bad_seal") from error
        if sequence != self.expected:
            reason = "sequence_repeated" if sequence < self.expected else "sequence_skipped"
            raise Refused(reason, f"{sequence} instead of {self.expected}")
        if changed:
            self.key, self.key_phase = key, phase
            self.frames = 0
            self.rekeys += 1
        self.expected += 1
        self.frames += 1
        return body


def signed(difference):
    """A difference of two numbers that wrap at 2³², nearest to 0."""
    difference &= 0xFFFFFFFF
    return difference - (1 << 32) if difference >= 1 << 31 else difference


class PeerClock:
    """Judges timestamps by the difference of clocks: `origin` is the lowest of the settling time,
    `estimate` the lowest of late, that follows slow drift upwards."""

    def __init__(self, peer_timestamp, now_ms):
        self.origin, self.estimate = now_ms - peer_timestamp, 0
        self.started_ms = self.drifted_ms = now_ms
        self.transit_ms, self.jitter = now_ms - peer_timestamp, 0.0

    def jitter_us(self):
        return int(self.jitter)

    def judge(self, timestamp, now_ms):
        transit_ms = now_ms - timestamp
        step_us = abs(signed(transit_ms - self.transit_ms)) * 1_000
        self.transit_ms = transit_ms
        self.jitter += (min(step_us, JITTER_STEP_US_MAX) - self.jitter) / 16
        difference = signed(now_ms - timestamp - self.origin)
        since_ms = now_ms - self.started_ms
        if since_ms < SETTLE_MS and difference < 0:
            self.origin += difference
            self.estimate, self.drifted_ms = 0, now_ms
            return FRESH
        risen = (now_ms - self.drifted_ms) // MS_PER_DRIFT_MS
        self.estimate += risen
        self.drifted_ms += risen * MS_PER_DRIFT_MS
        if difference < -AHEAD_MS_MAX - since_ms // MS_PER_DRIFT_MS:
            return FUTURE
        if difference < self.estimate:
            self.estimate, self.drifted_ms = difference, now_ms
        return OLD if difference - self.estimate > AGE_MS_MAX else FRESH


class ChannelOpener:
    """One key of a channel at one member (§13). What it refuses is dropped."""

    def __init__(self, key_id, key, sequence):
        self.key_id, self.key, self.next = key_id, key, sequence

    def open(self, data):
        """The fields of the message in a whole frame."""
        flags, sequence_low, _, crc = struct.unpack_from("<BIII", data, 3)
        if flags & ~COMPRESSED != CHANNEL_FLAG:
            raise Refused("bad_flags", f"{flags:#04x}")
        associated, body = data[:12], data[HEADER_BYTES:]
        if zlib.crc32(body, zlib.crc32(associated)) != crc:
            raise Refused("bad_crc")
        key_id, sealed = body[:KEY_ID_BYTES], body[KEY_ID_BYTES:]
        if int.from_bytes(key_id, "little") != self.key_id:
            raise Refused("unknown_key")
        sequence = expand_sequence(sequence_low, self.next)
        try:
            opened = ChaCha20Poly1305(self.key).decrypt(
                nonce(sequence), sealed, associated + key_id
            )
        except InvalidTag as error:
            raise Refused("bad_seal") from error
        if sequence < self.next:
            raise Refused("sequence_repeated", f"{sequence} below {self.next}")
        if opened[:1] != bytes([CHANNEL_MESSAGE]):
            raise Refused("bad_body", "no message of a channel")
        self.next = sequence + 1
        return decode_body(opened, bool(flags & COMPRESSED))


def compress(payload):
    """The compressed form of a payload, or None where it would not be smaller."""
    if len(payload) > INFLATED_BYTES_MAX:
        raise Refused("bad_length", "more than a receiver may decompress")
    block = lz4.block.compress(payload, store_size=False)
    small = struct.pack("<I", len(payload)) + block
    if len(small) >= len(payload) or len(payload) > INFLATION_MAX * len(block):
        return None
    return small


def decompress(data):
    if len(data) < 5:
        raise Refused("bad_compression", "too short")
    size, block = int.from_bytes(data[:4], "little"), data[4:]
    if size > INFLATED_BYTES_MAX or size > INFLATION_MAX * len(block):
        raise Refused("bad_compression", f"{size} bytes from {len(block)}")
    try:
        payload = lz4.block.decompress(block, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise Refused("bad_compression", str(error)) from error
    if len(payload) != size:
        raise Refused("bad_compression", f"{len(payload)} bytes instead of {size}")
    return payload


# -------------------------------------------------------------------------------- bodies (§5)

# Kinds of a fixed layout: what follows the kind byte, and the names of the fields.
FIXED = {
    LOGIN_OK: (struct.Struct("<xQQ"), ("session", "unix_ms")),
    LOGOUT: (struct.Struct("<"), ()),
    PING: (
        struct.Struct("<xIIIIIB"),
        ("stamp", "echo", "held_us", "round_trip_us", "jitter_us", "loss"),
    ),
    PONG: (
        struct.Struct("<xIIIIB"),
        ("stamp", "own", "round_trip_us", "jitter_us", "loss"),
    ),
    ACK: (struct.Struct("<xHI"), ("group", "ack")),
    GROUP_DOWN: (struct.Struct("<xH"), ("group",)),
    ATTACH: (struct.Struct("<x"), ()),
    CREDIT: (struct.Struct("<xHI"), ("group", "bytes")),
    QUEUE: (struct.Struct("<xIII"), ("position", "seconds", "of")),
}
SYNC_LAYOUT = struct.Struct("<BHQII")
CLOSE_LAYOUT = struct.Struct("<xHI")
MESSAGE_LAYOUT = struct.Struct("<BHIIH")
LANE_MASK, MORE = 3, 4

# What a CHANNEL says (§13): the layout behind the channel, and the names of the fields.
SAYS = {
    1: (struct.Struct("<QI"), ("incarnation", "next")),
    2: (struct.Struct("<I32sQ"), ("key_id", "key", "sequence")),
    3: (struct.Struct("<"), ()),
    4: (struct.Struct("<I"), ("next",)),
    5: (struct.Struct("<IIB"), ("from", "to", "lost")),
    6: (struct.Struct("<I"), ("next",)),
}
CHANNEL_LAYOUT = struct.Struct("<BHI")
CHANNEL_MESSAGE_LAYOUT = struct.Struct("<BHIIH")
CHANNEL_NAMES = ("lane", "group", "number", "channel", "message_id")
KEY_ID_BYTES = 4


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
    if kind == CHANNEL:
        layout, names = SAYS[fields["says"]]
        place = CHANNEL_LAYOUT.pack(fields["says"], fields["group"], fields["channel"])
        return head + place + layout.pack(*(fields[name] for name in names))
    if kind == CHANNEL_MESSAGE:
        values = (fields[name] for name in CHANNEL_NAMES)
        return head + CHANNEL_MESSAGE_LAYOUT.pack(*values) + fields["payload"]
    flags = fields["lane"] | (MORE if fields["more"] else 0)
    names = ("group", "number", "ack", "message_id")
    body = head + MESSAGE_LAYOUT.pack(flags, *(fields[name] for name in names))
    if kind != MESSAGE:
        body += struct.pack("<I", fields["request"])
    return body + fields["payload"]


def decode_body(body, compressed=False):
    """The fields of an opened body. Refuses what §5 does not allow, then decompresses."""
    if not body:
        raise Refused("bad_body", "empty")
    try:
        fields = decode_kind(body[0], body[1:])
    except (struct.error, IndexError) as error:
        raise Refused("bad_body", f"kind {body[0]}: {error}") from error
    if compressed:
        if "payload" not in fields:
            raise Refused("bad_body", f"kind {body[0]} has no payload to compress")
        fields["payload"] = decompress(fields["payload"])
    return fields


def is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def decode_kind(kind, rest):
    if kind in FIXED:
        layout, names = FIXED[kind]
        values = layout.unpack(rest)
        if kind != LOGOUT and rest[0] != 0:
            raise Refused("bad_body", "reserved byte")
        return {"kind": kind, **dict(zip(names, values, strict=True))}
    if kind == LOGIN:
        method, client_version, channel_bytes = struct.unpack_from("<BIB", rest)
        device_at = 6 + channel_bytes
        credential_at = device_at + 1 + rest[device_at]
        if credential_at > len(rest):
            raise Refused("bad_body", "LOGIN is cut off")
        channel, device = rest[6:device_at], rest[device_at + 1 : credential_at]
        if any(len(label) > LABEL_BYTES_MAX or not is_utf8(label) for label in (channel, device)):
            raise Refused("bad_body", "a label of LOGIN")
        return {
            "kind": kind,
            "method": method,
            "client_version": client_version,
            "channel": channel,
            "device": device,
            "credential": rest[credential_at:],
        }
    if kind == CLOSE:
        reason, retry_after_ms = CLOSE_LAYOUT.unpack_from(rest)
        text = rest[CLOSE_LAYOUT.size :]
        if rest[0] != 0 or len(text) > CLOSE_TEXT_BYTES_MAX or not is_utf8(text):
            raise Refused("bad_body", "CLOSE")
        return {"kind": kind, "reason": reason, "retry_after_ms": retry_after_ms, "text": text}
    if kind == SYNC:
        flags, group, incarnation, next_, base = SYNC_LAYOUT.unpack(rest)
        if flags & ~1:
            raise Refused("bad_body", "flags of SYNC")
        return {
            "kind": kind,
            "fresh": bool(flags & 1),
            "group": group,
            "incarnation": incarnation,
            "next": next_,
            "base": base,
        }
    if kind == CHANNEL:
        says, group, channel = CHANNEL_LAYOUT.unpack_from(rest)
        if says not in SAYS:
            raise Refused("bad_body", f"CHANNEL says {says}")
        layout, names = SAYS[says]
        values = dict(zip(names, layout.unpack(rest[CHANNEL_LAYOUT.size :]), strict=True))
        if values.get("lost", 0) > 1:
            raise Refused("bad_body", "lost")
        if "lost" in values:
            values["lost"] = bool(values["lost"])
        return {"kind": kind, "says": says, "group": group, "channel": channel, **values}
    if kind == CHANNEL_MESSAGE:
        values = CHANNEL_MESSAGE_LAYOUT.unpack_from(rest)
        if values[0] > SEQUENCED:
            raise Refused("bad_body", f"{values[0]:#04x}")
        fields = dict(zip(CHANNEL_NAMES, values, strict=True))
        return {"kind": kind, **fields, "payload": rest[CHANNEL_MESSAGE_LAYOUT.size :]}
    if not MESSAGE <= kind <= ERROR:
        raise Refused("unknown_kind", str(kind))
    flags, group, number, ack, message_id = MESSAGE_LAYOUT.unpack_from(rest)
    lane, more = flags & LANE_MASK, bool(flags & MORE)
    if flags & ~(LANE_MASK | MORE) or lane > SEQUENCED or (more and kind != REPLY):
        raise Refused("bad_body", f"{flags:#04x}")
    if lane != RELIABLE and kind != MESSAGE:
        raise Refused("bad_body", f"kind {kind} in lane {lane}")
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
