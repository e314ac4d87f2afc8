"""The client of `sallyport_client.py` over UDP: `docs/PROTOCOL.md` §12, and nothing else.

This file has the datagrams that set a connection up, sealed datagrams with their window, chunks,
the segments that carry bodies in order, and a driver with a socket that can lose datagrams and be
exchanged for another one.

Invariant: `DatagramConnection` reads no clock and no socket. What arrives and does not verify
changes nothing.
"""

import os
import random
import select
import socket
import struct
import warnings
from collections import deque
from dataclasses import dataclass

import sallyport_client as sp
import sallyport_wire as wire

DATAGRAM_BYTES_MAX = 1_200
SEGMENT_BYTES_MAX = 1_104
WINDOW = 2_048
SEGMENTS_MAX = 64
SEGMENTS_MAX_BEFORE_LOGIN = 4

SETUP = 255
INIT, RETRY, ACCEPT, REFUSE = 1, 2, 3, 4
COOKIE_BYTES, NONCE_BYTES, CID_BYTES, HELLO_BYTES = 20, 8, 8, 68
INIT_AGAIN_MS = [250, 500, 1_000, 2_000]

DATA, ACK, BODY, CHALLENGE, RESPONSE, NEW_CID, PADDING = range(1, 8)
MORE, COMPRESSED = 1, 2

ACK_AFTER_SEGMENTS = 4
ACK_AFTER_MS = 25
LATER_ACKNOWLEDGED = 3
TIMEOUT_FIRST_MS, TIMEOUT_MAX_MS, TIMEOUT_ABOVE_MS = 333, 3_000, 40

# A body in a chunk of its own leaves room for an acknowledgement and the three short chunks.
DIRECT_BYTES_MAX = DATAGRAM_BYTES_MAX - CID_BYTES - wire.HEADER_BYTES - wire.TAG_BYTES - 4 - 16 - 27


# ---------------------------------------------------------------------------------- setting up


def encode_setup(kind, nonce, rest):
    """A setup datagram; `INIT` is padded to what it has to have."""
    data = bytes([SETUP, kind, wire.VERSION, 0]) + nonce + rest
    return data.ljust(DATAGRAM_BYTES_MAX, b"\0") if kind == INIT else data


def decode_setup(data):
    """(type, nonce, what follows), or None where it is no setup datagram of this version."""
    if len(data) < 4 + NONCE_BYTES or data[0] != SETUP or data[2:4] != bytes([wire.VERSION, 0]):
        return None
    kind, nonce, rest = data[1], data[4:12], data[12:]
    fits = {
        INIT: len(data) == DATAGRAM_BYTES_MAX and not any(rest[COOKIE_BYTES + HELLO_BYTES :]),
        RETRY: len(rest) == COOKIE_BYTES,
        ACCEPT: len(rest) > CID_BYTES,
        REFUSE: True,
    }
    return (kind, nonce, rest) if fits.get(kind) else None


# -------------------------------------------------------------------------------------- chunks


def encode_chunk(fields):
    kind = fields["chunk"]
    if kind == DATA:
        head = struct.pack("<BBHI", kind, fields["flags"], len(fields["data"]), fields["number"])
        return head + fields["data"]
    if kind == ACK:
        bitmap = fields["bitmap"].to_bytes(8, "little").rstrip(b"\0")
        return struct.pack("<BBHI", kind, len(bitmap), fields["delay"], fields["next"]) + bitmap
    if kind == BODY:
        return struct.pack("<BBH", kind, fields["flags"], len(fields["data"])) + fields["data"]
    return bytes([kind]) + fields["data"]


def decode_chunks(body):
    """The chunks of an opened datagram; `Refused` where one is malformed."""
    chunks = []
    while body:
        kind = body[0]
        try:
            if kind == DATA:
                flags, length, number = struct.unpack_from("<BHI", body, 1)
                head, known = 8, MORE | COMPRESSED
            elif kind == BODY:
                flags, length = struct.unpack_from("<BH", body, 1)
                head, known = 4, COMPRESSED
            elif kind == ACK:
                length, delay, following = struct.unpack_from("<BHI", body, 1)
                head, flags, known = 8, 0, 0
                if length > 8:
                    raise wire.Refused("bad_body", f"a bitmap of {length} bytes")
            elif kind in (CHALLENGE, RESPONSE, NEW_CID):
                head, length, flags, known = 1, 8, 0, 0
            elif kind == PADDING:
                head, length, flags, known = 1, len(body) - 1, 0, 0
                if any(body[1:]):
                    raise wire.Refused("bad_body", "padding that says something")
            else:
                raise wire.Refused("bad_body", f"chunk {kind}")
        except struct.error as error:
            raise wire.Refused("bad_body", "a chunk is cut") from error
        data = body[head : head + length]
        if len(data) != length or flags & ~known or (length == 0 and kind in (DATA, BODY)):
            raise wire.Refused("bad_body", f"chunk {kind}")
        fields = {"chunk": kind, "data": data}
        if kind == DATA:
            fields |= {"flags": flags, "number": number}
        elif kind == BODY:
            fields |= {"flags": flags}
        elif kind == ACK:
            if data.endswith(b"\0"):
                raise wire.Refused("bad_body", "a bitmap that ends with 0")
            bitmap = int.from_bytes(data, "little")
            fields = {"chunk": kind, "delay": delay, "next": following, "bitmap": bitmap}
        chunks.append(fields)
        body = body[head + length :]
    return chunks


# ------------------------------------------------------------------------------ sealed datagrams


class DatagramOpener:
    """Opens what comes in any order, or twice, or not at all."""

    def __init__(self, key):
        self.key, self.previous, self.phase = key, None, 0
        # The lowest sequence opened under the present key.
        self.phase_first = 0
        self.next, self.seen, self.opened = 0, set(), 0

    def open(self, frame):
        """(body, is it the newest); `Refused` where it is to be dropped."""
        sequence = wire.expand_sequence(frame.sequence_low, self.next)
        if self.next - sequence > WINDOW:
            raise wire.Refused("datagram_late", str(sequence))
        if sequence in self.seen:
            raise wire.Refused("datagram_repeated", str(sequence))
        phase = 1 if frame.flags & wire.KEY_PHASE else 0
        changed = phase != self.phase and sequence > self.phase_first
        key = self.key
        if changed:
            key = wire.next_key(self.key)
        elif phase != self.phase:
            key = self.previous
        try:
            if key is None:
                raise wire.InvalidTag
            cipher = wire.ChaCha20Poly1305(key)
            body = cipher.decrypt(wire.nonce(sequence), frame.body, frame.associated)
        except wire.InvalidTag as error:
            raise wire.Refused("datagram_seal") from error
        if changed:
            self.key, self.previous, self.phase = key, self.key, phase
            self.phase_first = sequence
        elif phase == self.phase:
            self.phase_first = min(self.phase_first, sequence)
        newest = sequence >= self.next
        self.next = max(self.next, sequence + 1)
        self.seen.add(sequence)
        self.opened += 1
        if len(self.seen) > 2 * WINDOW:
            self.seen = {seen for seen in self.seen if self.next - seen <= WINDOW}
        return body, newest


def decode_datagram(data):
    """(connection id, frame); `Refused` where it is none."""
    if len(data) > DATAGRAM_BYTES_MAX or len(data) < CID_BYTES or data[0] == SETUP:
        raise wire.Refused("datagram_malformed", f"{len(data)} bytes")
    try:
        frame = wire.decode_frame(data[CID_BYTES:])
    except wire.Refused as refused:
        reason = "datagram_crc" if refused.reason == "bad_crc" else "datagram_malformed"
        raise wire.Refused(reason) from refused
    if frame.flags & wire.COMPRESSED:
        raise wire.Refused("datagram_malformed", "COMPRESSED is a flag of chunks here")
    return data[:CID_BYTES], frame


# ------------------------------------------------------------------------------------- segments


@dataclass
class Segment:
    number: int
    flags: int
    data: bytes
    sent_at_ms: int | None = None
    times: int = 0
    acknowledged: bool = False
    # Segments sent later that were acknowledged.
    passed: int = 0


class Segments:
    """Both directions of the bodies that have an order."""

    def __init__(self):
        self.next_number, self.outgoing = 0, deque()
        self.expected, self.early, self.parts = 0, {}, []
        self.owed, self.ack_at_ms, self.newest_at_ms = 0, None, 0
        self.smoothed = self.variation = None
        self.timeouts, self.since_ms = 0, 0
        self.window = SEGMENTS_MAX_BEFORE_LOGIN
        self.sent_again = 0

    # What is sent

    def push(self, body, flags):
        pieces = [body[at : at + SEGMENT_BYTES_MAX] for at in range(0, len(body), SEGMENT_BYTES_MAX)]
        for at, piece in enumerate(pieces):
            more = MORE if at + 1 < len(pieces) else 0
            self.outgoing.append(Segment(self.next_number, flags | more, piece))
            self.next_number = (self.next_number + 1) & 0xFFFFFFFF

    def due(self, now_ms):
        """The segments that are to be sent now."""
        chosen = []
        for segment in list(self.outgoing)[: self.window]:
            if segment.sent_at_ms is None:
                self.sent_again += segment.times > 0
                segment.sent_at_ms, segment.passed = now_ms, 0
                segment.times += 1
                chosen.append(segment)
        if chosen and not self.is_waiting(chosen):
            self.since_ms = now_ms
        return chosen

    def is_waiting(self, besides=()):
        return any(
            s.sent_at_ms is not None and not s.acknowledged and s not in besides
            for s in self.outgoing
        )

    def timeout_ms(self):
        if self.smoothed is None:
            timeout = TIMEOUT_FIRST_MS
        else:
            timeout = self.smoothed + max(TIMEOUT_ABOVE_MS, 4 * self.variation) + ACK_AFTER_MS
        return min(timeout * 2 ** min(self.timeouts, 6), TIMEOUT_MAX_MS)

    def handle_ack(self, fields, now_ms):
        if not self.outgoing:
            return
        base = self.outgoing[0].number
        count = (fields["next"] - base) & 0xFFFFFFFF
        if count > len(self.outgoing) or (count and self.outgoing[count - 1].times == 0):
            return  # one that was never sent
        news = []
        for at, segment in enumerate(self.outgoing):
            bit = at - count - 1
            arrived = at < count or (0 <= bit < 64 and fields["bitmap"] >> bit & 1)
            if arrived and not segment.acknowledged and segment.times > 0:
                segment.acknowledged = True
                news.append(segment)
        if not news:
            return
        newest = max(news, key=lambda s: s.sent_at_ms or 0)
        if newest.times == 1 and newest.sent_at_ms is not None:
            self.sample(max(0, now_ms - newest.sent_at_ms - fields["delay"] / 100))
        self.since_ms, self.timeouts = now_ms, 0
        for segment in self.outgoing:
            if not segment.acknowledged and segment.sent_at_ms is not None:
                segment.passed += sum(
                    s.number > segment.number and s.sent_at_ms >= segment.sent_at_ms
                    for s in news
                    if s.sent_at_ms is not None
                )
                if segment.passed >= LATER_ACKNOWLEDGED:
                    segment.sent_at_ms = None
        while self.outgoing and self.outgoing[0].acknowledged:
            self.outgoing.popleft()

    def sample(self, ms):
        if self.smoothed is None:
            self.smoothed, self.variation = ms, ms / 2
        else:
            self.variation += (abs(self.smoothed - ms) - self.variation) / 4
            self.smoothed += (ms - self.smoothed) / 8

    def handle_time(self, now_ms):
        if self.is_waiting() and now_ms - self.since_ms >= self.timeout_ms():
            for segment in self.outgoing:
                if not segment.acknowledged:
                    segment.sent_at_ms = None
            self.timeouts += 1
            self.since_ms = now_ms

    # What arrives

    def receive(self, fields, now_ms):
        """The bodies that are whole now, each with its flags."""
        ahead = (fields["number"] - self.expected) & 0xFFFFFFFF
        if ahead >= 1 << 31 or fields["number"] in self.early:
            self.ack_at_ms = now_ms
            return []
        if ahead >= SEGMENTS_MAX:
            return []
        if self.ack_at_ms is None:
            self.ack_at_ms = now_ms + ACK_AFTER_MS
        self.owed, self.newest_at_ms = self.owed + 1, now_ms
        if ahead or self.early or self.owed >= ACK_AFTER_SEGMENTS:
            self.ack_at_ms = now_ms
        self.early[fields["number"]] = fields
        bodies = []
        while self.expected in self.early:
            segment = self.early.pop(self.expected)
            self.expected = (self.expected + 1) & 0xFFFFFFFF
            self.parts.append(segment["data"])
            if sum(map(len, self.parts)) > wire.FRAME_BYTES_MAX:
                raise wire.Refused("bad_length", "a body in segments is too long")
            if not segment["flags"] & MORE:
                bodies.append((b"".join(self.parts), segment["flags"]))
                self.parts = []
        return bodies

    def take_ack(self, now_ms):
        if self.ack_at_ms is None:
            return None
        self.owed, self.ack_at_ms = 0, None
        bitmap = sum(1 << ((n - self.expected - 1) & 0xFFFFFFFF) for n in self.early)
        delay = min(0xFFFF, (now_ms - self.newest_at_ms) * 100)
        return {"chunk": ACK, "delay": delay, "next": self.expected, "bitmap": bitmap}


# ----------------------------------------------------------------------------------- connection


class DatagramConnection(sp.Connection):
    """A connection whose bodies travel in datagrams: `handle_datagram` instead of `handle_bytes`,
    `poll_datagrams` instead of `poll_output`."""

    def __init__(self, gateway_key, now_ms, timestamp_origin=0, lost=None):
        super().__init__(gateway_key, now_ms, timestamp_origin, lost)
        self.gateway_key, self.ephemeral = gateway_key, os.urandom(32)
        # The ticket that this connection is to come back with.
        self.ticket = None if lost is None else lost.tickets[0]
        self.begin(self.timestamp(now_ms))
        self.nonce, self.cookie = os.urandom(NONCE_BYTES), bytes(COOKIE_BYTES)
        self.init_at_ms, self.inits = now_ms, 0
        self.cid = None
        self.segments, self.direct, self.short = Segments(), deque(), deque()
        self.retries = self.new_cids = self.challenges = 0
        # Datagrams that were due and that came when the loss was last looked at, and the figure.
        self.due, self.came, self.loss = 0, 0, 0.0
        self.dropped = {}

    def begin(self, timestamp):
        if self.ticket is None:
            self.handshake = wire.Handshake(self.gateway_key, self.ephemeral)
        else:
            self.handshake = wire.ResumeHandshake(self.ticket, self.ephemeral)
        with warnings.catch_warnings():
            # Noise's library warns of a key that it has not drawn itself.
            warnings.simplefilter("ignore")
            self.hello_timestamp, self.hello = timestamp, self.handshake.hello(timestamp)

    # What arrives

    def handle_datagram(self, data, now_ms):
        if self.closed is not None:
            return
        if self.welcome is None:
            return self.handle_setup(data, now_ms)
        try:
            _, frame = decode_datagram(data)
            body, _ = self.opener.open(frame)
        except wire.Refused as refused:
            self.dropped[refused.reason] = self.dropped.get(refused.reason, 0) + 1
            return
        self.heard_at_ms = now_ms
        age = self.peer_clock.judge(frame.timestamp, now_ms)
        for fields in decode_chunks(body):
            kind = fields["chunk"]
            if kind == DATA:
                for whole, flags in self.segments.receive(fields, now_ms):
                    self.handle_opened(whole, bool(flags & COMPRESSED), age, now_ms)
            elif kind == BODY:
                self.handle_opened(fields["data"], bool(fields["flags"] & COMPRESSED), age, now_ms)
            elif kind == ACK:
                self.segments.handle_ack(fields, now_ms)
            elif kind == CHALLENGE:
                self.challenges += 1
                self.short.append(encode_chunk({"chunk": RESPONSE, "data": fields["data"]}))
            elif kind == NEW_CID and fields["data"] != self.cid:
                self.new_cids += 1
                self.cid = fields["data"]
        if self.session is not None:
            self.segments.window = SEGMENTS_MAX

    def handle_setup(self, data, now_ms):
        setup = decode_setup(data)
        if setup is None or setup[1] != self.nonce:
            return
        kind, _, rest = setup
        if kind == RETRY:
            self.cookie, self.init_at_ms = rest, now_ms
            self.retries += 1
        elif kind == REFUSE:
            frame = wire.decode_frame(rest, handshake=True)
            try:
                self.handshake.welcome(frame)
            except wire.Rejected:
                # Perhaps the ticket before it is still good.
                del self.tickets[:1]
                raise
        elif kind == ACCEPT:
            try:
                frame = wire.decode_frame(rest[CID_BYTES:], handshake=True)
                welcome = self.handshake.welcome(frame)
            except wire.Refused:
                # Not the gateway's: the handshake begins anew, with the same HELLO.
                self.begin(self.hello_timestamp)
                return
            self.cid, self.welcome = rest[:CID_BYTES], welcome
            self.heard_at_ms = now_ms
            self.sealer = wire.Sealer(self.handshake.client_key, now_ms)
            self.opener = DatagramOpener(self.handshake.gateway_key)
            self.peer_clock = wire.PeerClock(frame.timestamp, now_ms)
            self.tickets = [self.handshake.next_ticket(), *self.tickets[:1]]
            if self.ticket is not None:
                self.send({"kind": wire.ATTACH}, now_ms)

    def report(self):
        due, came = self.opener.next - self.due, self.opener.opened - self.came
        if due > 0:
            missing = max(0, due - came) / due
            self.loss += (missing - self.loss) * min(due, 64) / 64
            self.due, self.came = self.opener.next, self.opener.opened
        return {**super().report(), "loss": min(255, int(self.loss * 256))}

    # Time

    def handle_time(self, now_ms):
        super().handle_time(now_ms)
        if self.welcome is not None:
            self.segments.handle_time(now_ms)

    def poll_deadline_ms(self):
        if self.closed is not None:
            return None
        if self.welcome is None:
            return self.init_at_ms
        deadlines = [super().poll_deadline_ms()]
        if self.segments.ack_at_ms is not None:
            deadlines.append(self.segments.ack_at_ms)
        if self.segments.is_waiting():
            deadlines.append(self.segments.since_ms + self.segments.timeout_ms())
        return min(deadlines)

    # What is sent

    def send(self, fields, now_ms, compressed=False):
        body = wire.encode_body(fields)
        flags = COMPRESSED if compressed else 0
        kind = fields["kind"]
        lossy = kind in (wire.PING, wire.PONG) or (
            kind == wire.MESSAGE and fields["lane"] != wire.RELIABLE
        )
        if lossy and len(body) <= DIRECT_BYTES_MAX:
            self.direct.append(encode_chunk({"chunk": BODY, "flags": flags, "data": body}))
        else:
            self.segments.push(body, flags)

    def poll_output(self):
        return b""

    def poll_datagrams(self, now_ms):
        """What is to be sent now."""
        if self.welcome is None:
            if now_ms < self.init_at_ms:
                return []
            self.init_at_ms = now_ms + INIT_AGAIN_MS[min(self.inits, len(INIT_AGAIN_MS) - 1)]
            self.inits += 1
            return [encode_setup(INIT, self.nonce, self.cookie + self.hello)]
        waiting = deque(self.short)
        waiting.extend(self.direct)
        for s in self.segments.due(now_ms):
            fields = {"chunk": DATA, "flags": s.flags, "number": s.number, "data": s.data}
            waiting.append(encode_chunk(fields))
        self.short.clear()
        self.direct.clear()
        ack_at_ms = self.segments.ack_at_ms
        if waiting or (ack_at_ms is not None and ack_at_ms <= now_ms):
            ack = self.segments.take_ack(now_ms)
            if ack is not None:
                waiting.appendleft(encode_chunk(ack))
        datagrams = []
        room = DATAGRAM_BYTES_MAX - CID_BYTES - wire.HEADER_BYTES - wire.TAG_BYTES
        while waiting:
            body = b""
            while waiting and len(body) + len(waiting[0]) <= room:
                body += waiting.popleft()
            datagrams.append(self.datagram(body, now_ms))
        return datagrams

    def datagram(self, chunks, now_ms):
        return self.cid + self.seal(chunks, now_ms)


# --------------------------------------------------------------------------------------- driver


class DatagramClient(sp.Client):
    """Joins a `DatagramConnection` to a UDP socket.

    `lossy(random)` says of each datagram, either way, whether the network loses it.
    """

    def __init__(self, address, gateway_key, timeout_s=10.0, lossy=None, seed=1, **options):
        self.address, self.random = address, random.Random(seed)
        self.lossy = lossy or (lambda _: False)
        self.sent, self.lost, self.received = [], 0, []
        self.unsent, self.ended = b"", False
        self.socket = self.new_socket()
        try:
            self.connection = DatagramConnection(gateway_key, sp.steady_ms(), **options)
            self.wait(lambda: self.connection.welcome is not None, timeout_s)
        except BaseException:
            self.socket.close()
            raise

    def new_socket(self):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.connect(self.address)
        return made

    def move(self):
        """Goes on from another port, as a phone that changes its network."""
        self.socket.close()
        self.socket = self.new_socket()

    def write_datagram(self, data):
        self.sent.append(data)
        if self.lossy(self.random):
            self.lost += 1
        else:
            self.socket.send(data)

    def turn(self, timeout_s):
        connection = self.connection
        for data in connection.poll_datagrams(sp.steady_ms()):
            self.write_datagram(data)
        deadline_ms = connection.poll_deadline_ms()
        if deadline_ms is not None:
            timeout_s = min(timeout_s, max(0.0, (deadline_ms - sp.steady_ms()) / 1000))
        readable, _, _ = select.select([self.socket], [], [], timeout_s)
        while readable:
            try:
                data = self.socket.recv(65_536)
            except BlockingIOError:
                break
            self.received.append(data)
            if self.lossy(self.random):
                self.lost += 1
            else:
                connection.handle_datagram(data, sp.steady_ms())
        connection.handle_time(sp.steady_ms())
        # A CLOSE is the end: no socket closes.
        self.ended = connection.closed is not None
