"""Talks to a real gateway over a real socket, as a client written from `docs/PROTOCOL.md`.

The environment says where it is:

    SALLYPORT_TCP        host:port
    SALLYPORT_KEY        the gateway's public key, base64url of 32 bytes
    SALLYPORT_TOKEN_KEY  Ed25519 secret (seed, then public key), base64url of 64 bytes
    SALLYPORT_AUDIENCE   audience of the tokens, default "sallyport"
    SALLYPORT_GROUP      number of a group whose backend echoes, default 1
    SALLYPORT_TLS_CA     file with the CA of the gateway's certificate for gateway.test (`test_tls`)

The backend answers each `REQUEST` with one `REPLY` that has the same message id, request and
payload. The gateway is set to rekey after few frames (at most some thousand), and tests that
wait for a timer of the gateway are only possible with short ones: 20 s at most.

Invariant: each test has accounts and connections of its own, and waits for conditions only.
"""

import base64
import os
import pathlib
import re
import socket
import struct
import time
import unittest

import sallyport_client as sp
import sallyport_wire as wire

TIMER_MS_MAX = 20_000


PROTOCOL_PAGE = pathlib.Path(__file__).parents[2] / "docs" / "PROTOCOL.md"


def close_reasons():
    """Name → code, from the table of reasons in §9: `CLOSE` carries what the page says."""
    table = PROTOCOL_PAGE.read_text().partition("<!-- reasons:begin")[2]
    reasons = {}
    for line in table.partition("<!-- reasons:end")[0].splitlines():
        cells = [cell.strip(" `") for cell in line.split("|")]
        codes = [cell for cell in cells if cell.isdecimal()]
        names = [cell for cell in cells if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", cell)]
        if codes and names:
            reasons[names[0]] = int(codes[0])
    return reasons


def from_base64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class GatewayCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        missing = [
            name
            for name in ("SALLYPORT_TCP", "SALLYPORT_KEY", "SALLYPORT_TOKEN_KEY")
            if not os.environ.get(name)
        ]
        if missing:
            raise RuntimeError(f"set {', '.join(missing)}: see the top of test_client.py")
        host, _, port = os.environ["SALLYPORT_TCP"].rpartition(":")
        cls.address = (host.strip("[]"), int(port))
        cls.key = from_base64url(os.environ["SALLYPORT_KEY"])
        cls.token_key = from_base64url(os.environ["SALLYPORT_TOKEN_KEY"])
        cls.audience = os.environ.get("SALLYPORT_AUDIENCE", "sallyport")
        cls.reasons = close_reasons()
        cls.group = int(os.environ.get("SALLYPORT_GROUP", "1"))

    def connect(self, **options):
        client = sp.Client(self.address, self.key, **options)
        self.addCleanup(client.socket.close)
        return client

    def token(self, **changes):
        values = {
            "secret": self.token_key,
            "audience": self.audience,
            "account": f"python-{os.urandom(8).hex()}",
            "token_id": os.urandom(16).hex(),
            "issued_unix_s": int(time.time()),
        }
        return wire.issue_token(**{**values, **changes})

    def player(self, **options):
        """A logged-in client whose group is up."""
        client = self.connect(**options)
        client.login(self.token())
        client.wait_group(self.group)
        return client

    def stream(self, client):
        return client.connection.stream(self.group)

    def assert_echo(self, client, payload=None, **options):
        payload = os.urandom(24) if payload is None else payload
        reply = client.request(self.group, 0x1234, payload, **options)
        self.assertEqual(reply["kind"], wire.REPLY)
        self.assertEqual((reply["group"], reply["message_id"]), (self.group, 0x1234))
        self.assertEqual(reply["payload"], payload)
        return reply

    def request_fields(self, number, request, lane=wire.RELIABLE, payload=b"x"):
        return {
            "kind": wire.REQUEST,
            "lane": lane,
            "more": False,
            "group": self.group,
            "number": number,
            "ack": 0,
            "message_id": 1,
            "request": request,
            "payload": payload,
        }

    def assert_closed(self, client, reason=None, timeout_s=10.0):
        """The gateway closes; a CLOSE, where one comes first, has that reason.

        After a broken frame the stream may not carry a CLOSE any more, so none is needed there.
        """
        close = client.wait_closed(timeout_s)
        if close is not None and reason is not None:
            self.assertEqual(close["reason"], self.reasons[reason], close)
        return close

    def assert_login_refused(self, token, reason):
        client = self.connect()
        with self.assertRaises(sp.Disconnected) as caught:
            client.login(token)
        close = caught.exception.close
        self.assertIsNotNone(close, "closed without CLOSE")
        self.assertEqual(close["reason"], self.reasons[reason], close)

    def seconds(self, ms, what):
        """A timer of the gateway in seconds; a long one would make the test hang, so it fails."""
        self.assertLessEqual(ms, TIMER_MS_MAX, f"start the test gateway with a shorter {what}")
        return ms / 1000


class Conversation(GatewayCase):
    def test_login_request_reply_logout(self):
        client = self.connect()
        session = client.login(self.token())
        self.assertNotEqual(session, 0)
        ok = client.next_event(lambda f: f["kind"] == wire.LOGIN_OK)
        self.assertLess(abs(ok["unix_ms"] - time.time() * 1000), 60_000)
        stream = client.wait_group(self.group)
        sync = client.next_event(lambda f: f["kind"] == wire.SYNC)
        self.assertTrue(sync["fresh"])
        reply = self.assert_echo(client, b"hello")
        self.assertEqual((reply["lane"], reply["number"], reply["ack"]), (wire.RELIABLE, 1, 1))
        self.assertEqual(len(stream.outbox), 0)
        close = client.logout()
        self.assertIsNotNone(close)
        self.assertEqual(close["reason"], self.reasons["logged_out"])

    def test_welcome_says_sensible_things(self):
        welcome = self.connect().connection.welcome
        self.assertEqual(welcome.frame_bytes_max, wire.FRAME_BYTES_MAX)
        self.assertLess(welcome.heartbeat_interval_ms, welcome.idle_timeout_ms)
        self.assertLess(abs(welcome.unix_ms - time.time() * 1000), 60_000)

    def test_payloads_of_every_size_class(self):
        client = self.player()
        largest = wire.FRAME_BYTES_MAX - wire.HEADER_BYTES - wire.TAG_BYTES - 18
        for size in (0, 1, 100, 1_500, 5_000, largest):
            self.assert_echo(client, os.urandom(size))

    def test_acknowledgements_ride_on_messages(self):
        client = self.player()
        stream = self.stream(client)
        for number in range(1, 41):
            reply = self.assert_echo(client)
            # The reply acknowledges the request, and the next request the reply.
            self.assertEqual((reply["number"], reply["ack"]), (number, number))
            self.assertEqual(len(stream.outbox), 0)
        self.assertEqual(stream.acks_sent, 0)
        self.assertEqual(stream.repeats, 0)

    def test_own_ack_after_16_pushes(self):
        client = self.player()
        stream = self.stream(client)
        # All requests leave before a reply comes, so nothing is there to carry the acks.
        requests = [client.push(wire.REQUEST, self.group, 1, b"%d" % i) for i in range(3 * 16)]
        for i, request in enumerate(requests):
            reply = client.next_event(lambda f: f["kind"] == wire.REPLY)
            self.assertEqual((reply["request"], reply["payload"]), (request, b"%d" % i))
            self.assertEqual(reply["number"], i + 1)
        self.assertEqual(stream.acks_sent, 3)
        self.assertEqual(len(stream.outbox), 0)
        self.assert_echo(client)

    def test_acknowledges_in_the_end_what_gets_no_reply(self):
        client = self.player()
        stream = self.stream(client)
        client.push(wire.MESSAGE, self.group, 1, b"no answer needed")
        self.assertEqual(len(stream.outbox), 1)
        client.wait(lambda: not stream.outbox, 8.0)

    def test_more_messages_than_an_outbox_holds(self):
        """Goes on only when acknowledgements free both outboxes."""
        client = self.player()
        stream = self.stream(client)
        total, answered = 2 * sp.OUTBOX_MESSAGES_MAX + 100, 0
        for _ in range(total):
            client.wait(lambda: len(stream.outbox) < 64)
            client.push(wire.REQUEST, self.group, 1, b"x")
            answered += sum(f["kind"] == wire.REPLY for f in client.connection.events)
            client.connection.events.clear()
        while answered < total:
            client.next_event(lambda f: f["kind"] == wire.REPLY)
            answered += 1
        self.assertEqual((stream.repeats, stream.gaps), (0, 0))

    def test_lanes_without_guarantee(self):
        client = self.player()
        for lane in (wire.UNRELIABLE, wire.SEQUENCED, wire.SEQUENCED):
            payload = os.urandom(24)
            client.push(wire.MESSAGE, self.group, 7, payload, lane=lane)
            push = client.next_event(lambda f: f["kind"] == wire.MESSAGE)
            self.assertEqual((push["message_id"], push["payload"]), (7, payload))

    def test_a_stale_sequenced_message_is_dropped(self):
        client = self.player()
        for number, payload in ((5, b"1"), (5, b"2"), (4, b"3"), (6, b"4")):
            fields = self.request_fields(number, 0, wire.SEQUENCED, payload)
            del fields["request"]
            client.send(fields | {"kind": wire.MESSAGE})
        got = [client.next_event(lambda f: f["kind"] == wire.MESSAGE)["payload"] for _ in range(2)]
        self.assertEqual(got, [b"1", b"4"])

    def test_a_request_in_another_lane_is_malformed(self):
        client = self.player()
        client.send(self.request_fields(1, 1001, wire.UNRELIABLE))
        close = self.assert_closed(client, "bad_body")
        self.assertIsNotNone(close, "closed without CLOSE")

    def test_a_repeated_reliable_number_is_dropped(self):
        client = self.player()
        for number, request in ((1, 1001), (1, 1002), (2, 1003)):
            # The stream is bypassed, so its own numbers have to follow.
            self.stream(client).next_number = number + 1
            client.send(self.request_fields(number, request))
        got = [client.next_event(lambda f: f["kind"] == wire.REPLY)["request"] for _ in range(2)]
        self.assertEqual(got, [1001, 1003])

    def test_sync_asks_for_what_is_not_acknowledged(self):
        client = self.player()
        client.connection.acknowledges = False
        stream = self.stream(client)
        for i in range(3):
            client.push(wire.REQUEST, self.group, 1, b"%d" % i)
        for _ in range(3):
            client.next_event(lambda f: f["kind"] == wire.REPLY)
        self.assertEqual((stream.expected, stream.repeats), (4, 0))
        stream.expected = 1
        client.send(stream.sync()[0])
        got = [client.next_event(lambda f: f["kind"] == wire.REPLY)["payload"] for _ in range(3)]
        self.assertEqual(got, [b"0", b"1", b"2"])

    def test_ping_is_answered_before_and_after_login(self):
        client = self.connect()
        for _ in range(2):
            stamp = client.ping()
            client.next_event(lambda f: f["kind"] == wire.PONG and f["stamp"] == stamp)
            if client.connection.session is None:
                client.login(self.token())

    def test_both_ends_know_how_good_the_connection_is(self):
        client = self.player()
        connection = client.connection
        client.wait(lambda: connection.round_trip_us > 0)
        # The gateway has measured once it has had a PING after its PONG.
        client.ping()
        theirs = client.wait(
            lambda: connection.theirs["round_trip_us"] > 0 and connection.theirs
        )
        self.assertLess(connection.round_trip_us, 10_000_000)
        self.assertLess(theirs["round_trip_us"], 10_000_000)
        self.assertLess(theirs["jitter_us"], 1_000_000)
        self.assertEqual(theirs["loss"], 0)

    def test_heartbeats_keep_an_idle_connection(self):
        client = self.player()
        idle_s = self.seconds(client.connection.welcome.idle_timeout_ms, "idle timeout")
        pongs = client.connection.received_kinds.get(wire.PONG, 0)
        end_ms = sp.steady_ms() + 1_500 * idle_s
        client.wait(lambda: sp.steady_ms() >= end_ms or client.ended, 2 * idle_s)
        self.assertFalse(client.ended)
        self.assertGreater(client.connection.received_kinds.get(wire.PONG, 0), pongs)
        self.assert_echo(client)

    def test_answers_keep_a_client_that_has_no_heartbeat_of_its_own(self):
        client = self.player()
        client.connection.heartbeats = client.connection.acknowledges = False
        idle_s = self.seconds(client.connection.welcome.idle_timeout_ms, "idle timeout")
        end_ms = sp.steady_ms() + 1_500 * idle_s
        # Only the gateway's PINGs are heard meanwhile.
        client.wait(lambda: sp.steady_ms() >= end_ms or client.ended, 2 * idle_s)
        self.assertFalse(client.ended)
        self.assertGreaterEqual(client.connection.received_kinds.get(wire.PING, 0), 2)
        self.assert_echo(client)

    def test_a_silent_client_is_closed(self):
        client = self.player()
        client.connection.heartbeats = client.connection.acknowledges = False
        client.connection.answers = False
        idle_s = self.seconds(client.connection.welcome.idle_timeout_ms, "idle timeout")
        start_ms = sp.steady_ms()
        # The client's own idle timer says the same at the same time: it is switched off here.
        client.connection.handle_time = lambda now_ms: None
        client.connection.poll_deadline_ms = lambda: None
        self.assert_closed(client, "idle_timeout", 2 * idle_s + 2)
        self.assertGreaterEqual(sp.steady_ms() - start_ms, 900 * idle_s)

    def test_login_deadline(self):
        client = self.connect()
        deadline_s = self.seconds(client.connection.welcome.login_deadline_ms, "login deadline")
        self.assert_closed(client, "login_timeout", deadline_s + 5)

    def test_both_sides_change_their_keys(self):
        client = self.player()
        sealer, opener = client.connection.sealer, client.connection.opener
        end_ms = sp.steady_ms() + 30_000
        frames = 0
        while opener.rekeys < 3:
            self.assertLess(sp.steady_ms(), end_ms, f"{opener.rekeys} rekeys in {frames} frames")
            if frames % 10 == 5:
                phase = sealer.key_phase
                sealer.rekey(sp.steady_ms())
                self.assertNotEqual(sealer.key_phase, phase)
            self.assert_echo(client)
            frames += 1
        # Three changes are phases 1, 0 and 1: the bit really flips back.
        self.assertEqual(opener.key_phase, 1)

    def test_own_key_change_at_each_frame(self):
        client = self.player()
        for _ in range(8):
            client.connection.sealer.rekey(sp.steady_ms())
            self.assert_echo(client)

    def test_a_compressed_request(self):
        client = self.player()
        payload = b"the quick brown fox jumps over the lazy dog. " * 40
        self.assertIsNotNone(wire.compress(payload))
        self.assert_echo(client, payload, compressed=True)
        # As much as a receiver may decompress would not fit back uncompressed.
        text = b"".join(b"%06d" % i for i in range(5_000))
        self.assert_echo(client, text, compressed=True)

    def test_a_timestamp_that_wraps(self):
        origin = -sp.steady_ms() - 1_000
        client = self.player(timestamp_origin=origin)
        self.assertGreater(client.connection.timestamp(sp.steady_ms()), 1 << 31)
        while client.connection.timestamp(sp.steady_ms()) >= 1 << 31:
            client.turn(0.05)
        self.assert_echo(client)

    def test_two_clients_at_once(self):
        clients = [self.player() for _ in range(8)]
        self.assertEqual(len({c.connection.session for c in clients}), 8)
        for _ in range(3):
            for client in clients:
                self.assert_echo(client)

    def test_frames_cut_anywhere_and_glued_together(self):
        client = self.connect()
        connection = client.connection
        connection.login(self.token(), sp.steady_ms())
        for byte in connection.poll_output():
            client.write_raw(bytes([byte]))
            client.wait(lambda: not client.unsent)
        client.wait_group(self.group)
        self.assert_echo(client)
        # Several frames in one segment.
        for i in range(5):
            client.push(wire.REQUEST, self.group, 1, b"%d" % i)
        got = [client.next_event(lambda f: f["kind"] == wire.REPLY)["payload"] for _ in range(5)]
        self.assertEqual(got, [b"0", b"1", b"2", b"3", b"4"])


class Logins(GatewayCase):
    def test_a_frame_before_login_is_dropped_and_login_still_works(self):
        client = self.connect()
        client.send(self.request_fields(1, 77))
        client.send({"kind": wire.ACK, "group": self.group, "ack": 0})
        client.login(self.token())
        client.wait_group(self.group)
        reply = self.assert_echo(client)
        self.assertEqual(reply["number"], 1)

    def test_a_token_is_good_for_one_login(self):
        token = self.token()
        client = self.connect()
        client.login(token)
        self.assert_login_refused(token, "token_reused")

    def test_wrong_audience(self):
        self.assert_login_refused(self.token(audience="somebody-else"), "token_audience")

    def test_wrong_signature(self):
        self.assert_login_refused(self.token(secret=os.urandom(64)), "bad_token")

    def test_expired(self):
        token = self.token(issued_unix_s=int(time.time()) - 120)
        self.assert_login_refused(token, "token_expired")

    def test_from_the_future(self):
        token = self.token(issued_unix_s=int(time.time()) + 30)
        self.assert_login_refused(token, "token_expired")

    def test_lives_too_long(self):
        self.assert_login_refused(self.token(life_s=3_600), "token_expired")

    def test_not_a_token(self):
        self.assert_login_refused(b"hello", "bad_token")
        self.assert_login_refused(b"", "bad_token")

    def test_account_of_the_wrong_size(self):
        self.assert_login_refused(self.token(account=""), "bad_token")
        self.assert_login_refused(self.token(account="a" * 65), "bad_token")

    def test_logout_before_login(self):
        client = self.connect()
        close = client.logout()
        self.assertEqual(close["reason"], self.reasons["logged_out"])


class BrokenFrames(GatewayCase):
    def body(self):
        return wire.encode_body({"kind": wire.ACK, "group": 1, "ack": 0})

    def spoiled(self, client, at, fix_crc):
        """A good frame with one bit flipped."""
        frame = bytearray(client.connection.seal(self.body(), sp.steady_ms()))
        frame[at] ^= 1
        return wire.frame_around(bytes(frame[:12]), bytes(frame[16:])) if fix_crc else bytes(frame)

    def test_a_flipped_bit_fails_the_checksum(self):
        client = self.player()
        client.write_raw(self.spoiled(client, 20, fix_crc=False))
        self.assert_closed(client, "bad_crc")

    def test_a_flipped_bit_with_a_right_checksum_fails_the_seal(self):
        for at in (4, 8, 16, -1):
            client = self.player()
            client.write_raw(self.spoiled(client, at, fix_crc=True))
            self.assert_closed(client, "bad_seal")

    def test_a_frame_that_comes_twice(self):
        client = self.player()
        frame = client.connection.seal(self.body(), sp.steady_ms())
        client.write_raw(frame + frame)
        self.assert_closed(client, "sequence_repeated")

    def test_a_frame_that_is_left_out(self):
        client = self.player()
        client.connection.seal(self.body(), sp.steady_ms())
        client.write_raw(client.connection.seal(self.body(), sp.steady_ms()))
        self.assert_closed(client, "sequence_skipped")

    def test_a_flag_nobody_knows(self):
        client = self.player()
        sealer = client.connection.sealer
        associated = wire.associated_bytes(8, sealer.sequence, 0, 7 + wire.TAG_BYTES)
        client.write_raw(wire.frame_around(associated, bytes(7 + wire.TAG_BYTES)))
        self.assert_closed(client, "bad_flags")

    def test_lengths_out_of_bounds(self):
        cases = (
            (self.connect, 19),
            (self.connect, 32),
            (self.connect, wire.FRAME_BYTES_MAX_BEFORE_LOGIN + 1),
            (self.player, 32),
            (self.player, wire.FRAME_BYTES_MAX + 1),
        )
        for start, length in cases:
            with self.subTest(length=length, start=start.__name__):
                client = start()
                # A frame that is too short is complete, one that is too long only begins.
                client.write_raw(length.to_bytes(3, "little") + bytes(min(length, 64) - 3))
                self.assert_closed(client, "bad_length")

    def test_decompression_bombs(self):
        bodies = {
            "more than the bound": struct.pack("<I", 32_769) + bytes(2_000),
            "more than 64 to 1": struct.pack("<I", 30_000) + bytes(8),
            "not LZ4": struct.pack("<I", 200) + b"\xff" * 50,
        }
        for name, payload in bodies.items():
            with self.subTest(name):
                client = self.player()
                body = wire.encode_body(self.request_fields(1, 1, payload=payload))
                client.write_raw(client.connection.seal(body, sp.steady_ms(), compressed=True))
                self.assert_closed(client, "bad_compression")


class BrokenHandshakes(GatewayCase):
    def test_another_gateway_key_fails_at_the_client(self):
        other = wire.Handshake(self.key)  # any valid public key that is not the gateway's
        other.hello(0)
        wrong = bytes(other.noise.noise_protocol.handshake_state.e.public_bytes)
        with self.assertRaises((sp.Disconnected, wire.Refused)):
            sp.Client(self.address, wrong)

    def answer(self, data):
        """All that the gateway answers to these bytes, sent instead of a good HELLO."""
        got = b""
        with socket.create_connection(self.address, timeout=10) as sock:
            try:
                sock.sendall(data)
                while len(got) < 4_096:
                    part = sock.recv(4_096)
                    if not part:
                        break
                    got += part
            except ConnectionResetError:
                pass
        return got

    def test_another_version_is_rejected(self):
        got = self.answer(wire.Handshake(self.key).hello(0, version=2))
        frame = wire.decode_frame(got, 512, handshake=True)
        kind, version, code = struct.unpack("<BBH", frame.body)
        self.assertEqual((kind, version), (wire.REJECT, wire.VERSION))
        self.assertEqual(code, self.reasons["bad_version"])

    def test_a_changed_timestamp_breaks_the_prologue(self):
        hello = bytearray(wire.Handshake(self.key).hello(1_000))
        hello[8] ^= 1
        got = self.answer(wire.frame_around(bytes(hello[:12]), bytes(hello[16:])))
        if got:
            frame = wire.decode_frame(got, 512, handshake=True)
            self.assertEqual(frame.body[0], wire.REJECT)

    def test_too_long_for_a_handshake(self):
        self.assertNotIn(wire.WELCOME, self.answer((513).to_bytes(3, "little") + bytes(13))[16:17])

    def test_not_the_protocol(self):
        self.assertNotIn(wire.WELCOME, self.answer(bytes(64))[16:17])


if __name__ == "__main__":
    unittest.main()
