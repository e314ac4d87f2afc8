"""A client of the Sallyport client protocol, version 1, over TCP.

Written from `docs/PROTOCOL.md` alone: it shares no code with the Rust crates, so that it shows
whether that page is enough. This file has the reliable streams (§6), the connection and a
driver with a socket; `sallyport_wire.py` has what lies below.

It does not reconnect and keeps nothing over the end of a connection.

Invariant: everything above `Client` reads no clock and no socket; the time comes in as `now_ms`,
milliseconds on a steady clock of any origin that never goes back.
"""

import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

import sallyport_wire as wire

ACK_AFTER_MESSAGES = 16
ACK_AFTER_MS = 5_000
ROUND_TRIP_US_MAX = 60_000_000
OUTBOX_MESSAGES_MAX = 1_024
OUTBOX_BYTES_MAX = 256 * 1_024

# Bounds of this client's own, not of the protocol: what a gateway can make it keep.
STREAMS_MAX = 64
EVENTS_MAX = 65_536


class OutboxFull(Exception):
    """The outbox of the group is at its bound; nothing was sent or kept."""


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
    # The number that leaves next, and the bytes that may leave; None is no limit.
    unsent: int = 1
    credit: int | None = None
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
        if lane == wire.RELIABLE:
            fields["number"] = self.next_number
            kept = Kept(fields, compressed, len(wire.encode_body({**fields, "ack": 0})))
            if (
                len(self.outbox) >= OUTBOX_MESSAGES_MAX
                or self.outbox_bytes + kept.bytes > OUTBOX_BYTES_MAX
            ):
                raise OutboxFull(self.group)
            self.next_number += 1
            self.outbox.append(kept)
            self.outbox_bytes += kept.bytes
            return self.transmit()
        if lane == wire.SEQUENCED:
            self.sequenced_sent += 1
            fields["number"] = self.sequenced_sent
        else:
            fields["number"] = 0
        leaves = self.up and self.credit != 0
        return [self.acknowledging(fields, compressed)] if leaves else []

    def transmit(self):
        """What may leave of what has not left yet."""
        bodies = []
        while self.up and self.credit != 0 and self.unsent < self.next_number:
            kept = self.outbox[self.unsent - self.outbox[0].fields["number"]]
            bodies.append(self.acknowledging(kept.fields, kept.compressed))
            self.unsent += 1
            if self.credit is not None:
                self.credit = max(0, self.credit - kept.bytes)
        return bodies

    def handle_credit(self, size):
        self.credit = None if size == wire.CREDIT_UNLIMITED else size
        return self.transmit()

    def acknowledging(self, fields, compressed):
        self.owed, self.owed_since_ms = 0, None
        return {**fields, "ack": self.expected - 1}, compressed

    def sync(self):
        self.owed, self.owed_since_ms = 0, None
        base = self.outbox[0].fields["number"] if self.outbox else self.next_number
        return {
            "kind": wire.SYNC,
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
        self.up, self.asked_for, self.credit = True, None, None
        self.unsent = self.next_number
        # What lies below `next` has arrived; it stays here until it is acknowledged.
        start = 0 if fields["fresh"] else fields["next"]
        again = [kept for kept in self.outbox if kept.fields["number"] >= start]
        # Only the last one acknowledges: what is behind a message is not in it.
        replies = [self.sync()]
        replies += [({**kept.fields, "ack": 0}, kept.compressed) for kept in again[:-1]]
        replies += [self.acknowledging(kept.fields, kept.compressed) for kept in again[-1:]]
        return replies

    def handle_down(self):
        self.up = False

    def handle_ack(self, ack):
        if ack >= self.next_number:
            return  # it was never sent
        while self.outbox and self.outbox[0].fields["number"] <= ack:
            self.outbox_bytes -= self.outbox.popleft().bytes

    def handle_message(self, fields, now_ms):
        """Gives (is it for the application, bodies to send)."""
        self.handle_ack(fields["ack"])
        lane, number = fields["lane"], fields["number"]
        if lane == wire.UNRELIABLE:
            return True, []
        if lane == wire.SEQUENCED:
            if wire.signed(number - self.sequenced_seen) <= 0:
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
        return [({"kind": wire.ACK, "group": self.group, "ack": self.expected - 1}, False)]


# ------------------------------------------------------------------------------- connection


class Connection:
    """The protocol of one connection, without a socket and without a clock.

    Order of calls: `handle_bytes` for what arrived, `handle_time` when `poll_deadline_ms` has
    come, and after each call `poll_output` for what is to be written and `events` for what
    happened. Raises `Refused` when the gateway broke a rule; the connection is over then.
    """

    def __init__(self, gateway_key, now_ms, timestamp_origin=0, lost=None):
        """`lost` is a connection that was lost: this one comes back to its session."""
        self.timestamp_origin = timestamp_origin
        if lost is None:
            self.handshake = wire.Handshake(gateway_key)
            self.streams, self.tickets = {}, []
        else:
            self.handshake = wire.ResumeHandshake(lost.tickets[0])
            self.streams, self.tickets = lost.streams, lost.tickets
            for stream in self.streams.values():
                stream.handle_down()
        self.welcome = self.session = self.closed = None
        self.sealer = self.opener = self.peer_clock = None
        self.events = deque()
        self.received_kinds = {}
        # The positions in the queue that it was told before it was let in.
        self.queued = []
        self.untimely = 0
        self.input = bytearray()
        self.output = bytearray()
        self.heard_at_ms = self.ping_at_ms = now_ms
        self.next_request = 1 if lost is None else lost.next_request
        # Stamp of the PING that waits for its PONG; the gateway's last stamp, and when it came.
        self.asked = None
        self.heard = self.heard_stamp_at = 0
        # What this end measured, and what the gateway told.
        self.round_trip_us = 0
        self.theirs = {}
        self.heartbeats = True
        self.acknowledges = True
        self.answers = True
        self.output += self.handshake.hello(self.timestamp(now_ms))

    def timestamp(self, now_ms):
        return (now_ms + self.timestamp_origin) & 0xFFFFFFFF

    # What arrives

    def frame_bytes_max(self):
        if self.welcome is None:
            return wire.FRAME_BYTES_MAX_BEFORE_HANDSHAKE
        return (
            wire.FRAME_BYTES_MAX if self.session is not None else wire.FRAME_BYTES_MAX_BEFORE_LOGIN
        )

    def handle_bytes(self, data, now_ms):
        # After CLOSE nothing counts any more, so nothing is kept either.
        if self.closed is None:
            self.input += data
        while self.closed is None:
            frame = wire.split_frame(self.input, self.frame_bytes_max())
            if frame is None:
                return
            del self.input[: len(frame)]
            self.handle_frame(frame, now_ms)

    def handle_frame(self, data, now_ms):
        frame = wire.decode_frame(data, self.frame_bytes_max(), handshake=self.welcome is None)
        self.heard_at_ms = now_ms
        if self.welcome is None:
            try:
                self.welcome = self.handshake.welcome(frame)
            except wire.Rejected:
                # Perhaps the one before it is still good.
                del self.tickets[:1]
                raise
            # The newest, and the one that opened this connection.
            self.tickets = [self.handshake.next_ticket(), *self.tickets[:1]]
            self.sealer = wire.Sealer(self.handshake.client_key, now_ms)
            self.opener = wire.Opener(self.handshake.gateway_key)
            self.peer_clock = wire.PeerClock(frame.timestamp, now_ms)
            if isinstance(self.handshake, wire.ResumeHandshake):
                self.send({"kind": wire.ATTACH}, now_ms)
            return
        body = self.opener.open(frame)
        age = self.peer_clock.judge(frame.timestamp, now_ms)
        self.handle_opened(body, bool(frame.flags & wire.COMPRESSED), age, now_ms)

    def handle_opened(self, body, compressed, age, now_ms):
        """A body that has verified."""
        fields = wire.decode_body(body, compressed)
        kind = fields["kind"]
        if age != wire.FRESH and fields.get("lane", wire.RELIABLE) != wire.RELIABLE:
            self.untimely += 1
            return
        self.received_kinds[kind] = self.received_kinds.get(kind, 0) + 1
        self.handle_body(kind, fields, now_ms)

    def handle_body(self, kind, fields, now_ms):
        if kind == wire.PING:
            self.hear(fields["stamp"], fields, now_ms)
            if self.answers:
                stamp, own = fields["stamp"], self.stamp(now_ms)
                self.send({"kind": wire.PONG, "stamp": stamp, "own": own, **self.report()}, now_ms)
        elif kind == wire.LOGIN_OK:
            self.session = fields["session"]
            self.ping_at_ms = now_ms
        elif kind == wire.CLOSE:
            self.closed = fields
        elif kind == wire.PONG:
            self.hear(fields["own"], fields, now_ms)
            if fields["stamp"] == self.asked:
                self.asked = None
                self.measure((self.stamp(now_ms) - fields["stamp"]) & 0xFFFFFFFF)
        elif kind == wire.QUEUE and self.session is None:
            self.queued.append(fields["position"])
        elif self.session is None or kind in (wire.LOGIN, wire.LOGOUT, wire.REQUEST):
            raise wire.Refused("unknown_kind", f"{kind} at this moment")
        elif kind == wire.SYNC:
            self.send_all(self.stream(fields["group"]).handle_sync(fields), now_ms)
        elif kind == wire.ACK:
            self.stream(fields["group"]).handle_ack(fields["ack"])
        elif kind == wire.GROUP_DOWN:
            self.stream(fields["group"]).handle_down()
        elif kind == wire.CREDIT:
            self.send_all(self.stream(fields["group"]).handle_credit(fields["bytes"]), now_ms)
        else:
            wanted, replies = self.stream(fields["group"]).handle_message(fields, now_ms)
            if self.acknowledges:
                self.send_all(replies, now_ms)
            if not wanted:
                return
        if len(self.events) >= EVENTS_MAX:
            raise wire.Refused("events", "the application does not read")
        self.events.append(fields)

    def stream(self, group):
        if group not in self.streams:
            if len(self.streams) >= STREAMS_MAX:
                raise wire.Refused("group", f"more than {STREAMS_MAX} groups")
            self.streams[group] = Stream(group)
        return self.streams[group]

    # Time

    def handle_time(self, now_ms):
        if self.welcome is None or self.closed is not None:
            return
        if now_ms - self.heard_at_ms >= self.welcome.idle_timeout_ms:
            raise wire.Refused("idle", "the gateway has been silent for too long")
        if self.acknowledges:
            for stream in self.streams.values():
                self.send_all(stream.poll_ack(now_ms), now_ms)
        if self.heartbeats and self.session is not None and now_ms >= self.ping_at_ms:
            self.ping_at_ms = now_ms + self.welcome.heartbeat_interval_ms
            self.ping(now_ms)

    def poll_deadline_ms(self):
        """When `handle_time` is to be called next, or None."""
        if self.welcome is None or self.closed is not None:
            return None
        deadlines = [self.heard_at_ms + self.welcome.idle_timeout_ms]
        if self.heartbeats and self.session is not None:
            deadlines.append(self.ping_at_ms)
        if self.acknowledges:
            since = [s.owed_since_ms for s in self.streams.values()]
            deadlines += [ms + ACK_AFTER_MS for ms in since if ms is not None]
        return min(deadlines)

    # What is sent

    def poll_output(self):
        data, self.output = bytes(self.output), bytearray()
        return data

    def seal(self, body, now_ms, compressed=False):
        return self.sealer.seal(body, self.timestamp(now_ms), now_ms, compressed)

    def send(self, fields, now_ms, compressed=False):
        frame = self.seal(wire.encode_body(fields), now_ms, compressed)
        if len(frame) > self.welcome.frame_bytes_max:
            raise wire.Refused("length", "larger than the gateway accepts")
        self.output += frame

    def send_all(self, bodies, now_ms):
        for fields, compressed in bodies:
            self.send(fields, now_ms, compressed)

    def ping(self, now_ms):
        self.asked = stamp = self.stamp(now_ms)
        held_us = (stamp - self.heard_stamp_at) & 0xFFFFFFFF if self.heard else 0
        fields = {"stamp": stamp, "echo": self.heard, "held_us": held_us, **self.report()}
        self.send({"kind": wire.PING, **fields}, now_ms)
        return stamp

    # Quality

    @staticmethod
    def stamp(now_ms):
        return now_ms * 1_000 & 0xFFFFFFFF or 1

    def report(self):
        jitter_us = self.peer_clock.jitter_us() if self.peer_clock else 0
        return {"round_trip_us": self.round_trip_us, "jitter_us": jitter_us, "loss": 0}

    def hear(self, stamp, fields, now_ms):
        self.heard, self.heard_stamp_at = stamp, self.stamp(now_ms)
        self.theirs = {name: fields[name] for name in ("round_trip_us", "jitter_us", "loss")}

    def measure(self, us):
        if us <= ROUND_TRIP_US_MAX:
            smoothed = (3 * self.round_trip_us + us) // 4 if self.round_trip_us else us
            self.round_trip_us = max(smoothed, 1)

    def login(self, token, now_ms, client_version=1, channel=b"python", device=b"python"):
        fields = {
            "kind": wire.LOGIN,
            "method": wire.LOGIN_METHOD_TOKEN,
            "client_version": client_version,
            "channel": channel,
            "device": device,
            "credential": token,
        }
        self.send(fields, now_ms)

    def push(self, kind, group, message_id, payload, now_ms, lane=wire.RELIABLE, compressed=False):
        """Sends or keeps a message; gives the request's number for a `REQUEST`."""
        if compressed:
            small = wire.compress(payload)
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
        if kind == wire.REQUEST:
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

    def __init__(self, address, gateway_key, timestamp_origin=0, timeout_s=10.0, lost=None):
        self.socket = socket.create_connection(address, timeout=timeout_s)
        try:
            self.socket.setblocking(False)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connection = Connection(gateway_key, steady_ms(), timestamp_origin, lost)
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
        self.unsent += self.to_socket(self.connection.poll_output()) + data

    def to_socket(self, data):
        """What goes to the socket for these frames, and for the transport itself."""
        return data

    def from_socket(self, data):
        """The frames in what came from the socket."""
        return data

    def turn(self, timeout_s):
        """One turn of the loop: writes, reads and timers, waiting at most `timeout_s`."""
        connection = self.connection
        self.unsent += self.to_socket(connection.poll_output())
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
                    connection.handle_bytes(self.from_socket(data), steady_ms())
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

    def wait_resumed(self, timeout_s=10.0):
        """For a client of a lost connection: waits until it has its session again."""
        self.wait(lambda: self.connection.session is not None, timeout_s)
        return self.connection.session

    def wait_group(self, group, timeout_s=10.0):
        self.wait(lambda: self.connection.stream(group).up, timeout_s)
        return self.connection.stream(group)

    def push(self, kind, group, message_id, payload, **options):
        return self.connection.push(kind, group, message_id, payload, steady_ms(), **options)

    def request(self, group, message_id, payload, timeout_s=10.0, **options):
        """Sends a request and waits for its reply."""
        number = self.push(wire.REQUEST, group, message_id, payload, **options)
        return self.next_event(
            lambda f: f["kind"] in (wire.REPLY, wire.ERROR) and f["request"] == number, timeout_s
        )

    def ping(self):
        return self.connection.ping(steady_ms())

    def send(self, fields):
        self.connection.send(fields, steady_ms())

    def logout(self, timeout_s=10.0):
        """Logs out; gives the gateway's CLOSE."""
        self.send({"kind": wire.LOGOUT})
        return self.wait_closed(timeout_s)
