"""The Python client's own logic where a gateway cannot be made to show the case: streams that
lose their backend, clocks that drift, sequences past 2³². Needs no gateway and no network.
"""

import unittest
from random import Random

import sallyport_client as sp
import sallyport_wire as wire

KEY = bytes(range(32))


def message(number, lane=wire.RELIABLE, ack=0, payload=b""):
    return {
        "kind": wire.MESSAGE,
        "lane": lane,
        "more": False,
        "group": 1,
        "number": number,
        "ack": ack,
        "message_id": 5,
        "payload": payload,
    }


def sync(incarnation, next_=1, base=1, fresh=False):
    return {
        "kind": wire.SYNC,
        "fresh": fresh,
        "group": 1,
        "incarnation": incarnation,
        "next": next_,
        "base": base,
    }


def push(stream, payload=b"", lane=wire.RELIABLE):
    fields = {"kind": wire.MESSAGE, "lane": lane, "more": False, "group": 1, "message_id": 5}
    return [f for f, _ in stream.push({**fields, "payload": payload})]


def only_fields(bodies):
    return [f for f, _ in bodies]


class Streams(unittest.TestCase):
    def test_what_was_said_while_down_follows_the_sync_in_order(self):
        stream = sp.Stream(1)
        self.assertEqual([push(stream), push(stream)], [[], []])
        answer = only_fields(stream.handle_sync(sync(7, fresh=True)))
        self.assertEqual(answer[0], sync(7, next_=1, base=1))
        self.assertEqual([f["number"] for f in answer[1:]], [1, 2])
        self.assertEqual([f["number"] for f in push(stream)], [3])

    def test_credit_bounds_what_leaves_until_more_comes_or_a_sync(self):
        stream = sp.Stream(1)
        stream.handle_sync(sync(7, fresh=True))
        self.assertEqual(stream.handle_credit(0), [])
        self.assertEqual([push(stream, bytes(86)) for _ in range(4)], [[], [], [], []])
        self.assertEqual(push(stream, lane=wire.UNRELIABLE), [])
        # Bodies of 100 bytes: the last one may be longer than what is left.
        self.assertEqual([f["number"] for f in only_fields(stream.handle_credit(101))], [1, 2])
        self.assertEqual(push(stream), [])
        more = only_fields(stream.handle_credit(wire.CREDIT_UNLIMITED))
        self.assertEqual([f["number"] for f in more], [3, 4, 5])
        stream.handle_credit(0)
        push(stream)
        again = only_fields(stream.handle_sync(sync(7, next_=4)))
        self.assertEqual([f["number"] for f in again[1:]], [4, 5, 6])
        self.assertEqual([f["number"] for f in push(stream)], [7])

    def test_the_same_incarnation_says_where_to_go_on(self):
        stream = sp.Stream(1)
        stream.handle_sync(sync(7, fresh=True))
        for _ in range(4):
            push(stream)
        stream.handle_message(message(1), 0)
        stream.handle_down()
        answer = only_fields(stream.handle_sync(sync(7, next_=3)))
        self.assertEqual(answer[0], sync(7, next_=2, base=1))
        self.assertEqual([(f["number"], f["ack"]) for f in answer[1:]], [(3, 0), (4, 1)])
        stream.handle_ack(2)
        self.assertEqual([kept.fields["number"] for kept in stream.outbox], [3, 4])

    def test_a_new_incarnation_gets_the_outbox_and_starts_from_1(self):
        stream = sp.Stream(1)
        stream.handle_sync(sync(7, fresh=True))
        for _ in range(3):
            push(stream)
        stream.handle_message(message(1, ack=2), 0)
        answer = only_fields(stream.handle_sync(sync(8, next_=1, fresh=True)))
        self.assertEqual(answer[0], sync(8, next_=1, base=3))
        self.assertEqual([f["number"] for f in answer[1:]], [3])
        self.assertEqual(stream.handle_message(message(1), 0)[0], True)

    def test_acknowledges_after_16_and_after_5_s_and_with_each_message(self):
        stream = sp.Stream(1)
        stream.handle_sync(sync(7, fresh=True))
        for number in range(1, 16):
            self.assertEqual(stream.handle_message(message(number), 0), (True, []))
        _, answer = stream.handle_message(message(16), 0)
        self.assertEqual(only_fields(answer), [{"kind": wire.ACK, "group": 1, "ack": 16}])
        stream.handle_message(message(17), 1_000)
        self.assertEqual(stream.poll_ack(5_999), [])
        (ack,) = only_fields(stream.poll_ack(6_000))
        self.assertEqual(ack["ack"], 17)
        stream.handle_message(message(18), 7_000)
        self.assertEqual(push(stream)[0]["ack"], 18)
        self.assertEqual(stream.poll_ack(60_000), [])

    def test_a_repeat_is_dropped_and_acknowledged_again(self):
        stream = sp.Stream(1)
        stream.handle_sync(sync(7, fresh=True))
        stream.handle_message(message(1), 0)
        stream.poll_ack(5_000)
        self.assertEqual(stream.handle_message(message(1), 6_000), (False, []))
        self.assertEqual(stream.repeats, 1)
        self.assertEqual(only_fields(stream.poll_ack(11_000))[0]["ack"], 1)

    def test_a_gap_asks_once(self):
        stream = sp.Stream(1)
        stream.handle_sync(sync(7, fresh=True))
        wanted, answer = stream.handle_message(message(3), 0)
        self.assertEqual((wanted, only_fields(answer)), (False, [sync(7, next_=1, base=1)]))
        self.assertEqual(stream.handle_message(message(4), 0), (False, []))
        self.assertEqual(stream.handle_message(message(1), 0), (True, []))

    def test_the_outbox_is_bounded_by_count_and_by_bytes(self):
        stream = sp.Stream(1)
        for _ in range(sp.OUTBOX_MESSAGES_MAX):
            push(stream)
        with self.assertRaises(sp.OutboxFull):
            push(stream)
        stream = sp.Stream(1)
        for _ in range(7):
            push(stream, bytes(32_768))
        with self.assertRaises(sp.OutboxFull):
            push(stream, bytes(32_768))
        self.assertEqual(stream.next_number, 8)

    def test_lanes_without_guarantee_are_lost_while_down(self):
        stream = sp.Stream(1)
        self.assertEqual(push(stream, lane=wire.UNRELIABLE), [])
        self.assertEqual(push(stream, lane=wire.SEQUENCED), [])
        self.assertEqual(len(stream.handle_sync(sync(7, fresh=True))), 1)
        self.assertEqual(push(stream, lane=wire.SEQUENCED)[0]["number"], 2)
        self.assertEqual(push(stream, lane=wire.UNRELIABLE)[0]["number"], 0)

    def test_a_stale_sequenced_message_is_dropped(self):
        stream = sp.Stream(1)
        stream.handle_sync(sync(7, fresh=True))
        got = [stream.handle_message(message(n, wire.SEQUENCED), 0)[0] for n in (4, 4, 3, 9)]
        self.assertEqual((got, stream.stale), ([True, False, False, True], 2))

    def test_an_acknowledgement_of_what_was_never_sent_is_ignored(self):
        stream = sp.Stream(1)
        push(stream)
        stream.handle_ack(2)
        self.assertEqual(len(stream.outbox), 1)
        stream.handle_ack(1)
        self.assertEqual(len(stream.outbox), 0)


class Sealing(unittest.TestCase):
    def test_the_sequence_goes_on_past_32_bits_and_through_a_rekey(self):
        first = (1 << 32) - 2
        sealer, opener = wire.Sealer(KEY, sequence=first), wire.Opener(KEY, first)
        for i in range(4):
            if i in (1, 3):
                sealer.rekey()
            frame = wire.decode_frame(sealer.seal(b"\x03", 5))
            self.assertEqual(opener.open(frame), b"\x03")
        self.assertEqual((opener.expected, opener.rekeys), (first + 4, 2))
        self.assertEqual(sealer.key, wire.next_key(wire.next_key(KEY)))

    def test_a_frame_that_fails_under_the_next_key_changes_nothing(self):
        opener = wire.Opener(KEY)
        wrong = wire.Sealer(bytes(32), key_phase=1)
        with self.assertRaises(wire.Refused):
            opener.open(wire.decode_frame(wrong.seal(b"\x03", 0)))
        self.assertEqual((opener.key, opener.key_phase, opener.expected), (KEY, 0, 0))

    def test_the_sender_changes_its_key_by_itself(self):
        for worn in ({"frames": 1 << 20}, {"bytes": 1 << 30}, {"since_ms": -3_600_000}):
            sealer = wire.Sealer(KEY)
            vars(sealer).update(worn)
            sealer.seal(b"\x03", 0)
            self.assertEqual((sealer.key_phase, sealer.frames), (1, 1))

    def test_nearest_sequence(self):
        for low, expected, sequence in (
            (0, 0, 0),
            (5, 3, 5),
            (0xFFFFFFFF, 1 << 32, (1 << 32) - 1),
            (1, (1 << 32) - 1, (1 << 32) + 1),
            (0xFFFFFFFF, 0, 0xFFFFFFFF),
        ):
            self.assertEqual(wire.expand_sequence(low, expected), sequence)

    def test_compression_round_trip_and_its_bounds(self):
        payload = b"sallyport " * 100
        self.assertEqual(wire.decompress(wire.compress(payload)), payload)
        self.assertIsNone(wire.compress(b"short"))
        for bad in (b"", b"\x01\x00\x00", b"\xff\xff\xff\x7f" + bytes(40), bytes(4) + b"\xff"):
            with self.assertRaises(wire.Refused):
                wire.decompress(bad)
        longer = (1_001).to_bytes(4, "little") + wire.compress(payload)[4:]
        with self.assertRaises(wire.Refused):
            wire.decompress(longer)


class Garbage(unittest.TestCase):
    def test_any_bytes_are_a_body_or_refused_and_come_back_the_same(self):
        random = Random(1)
        kinds = [*range(0, 11), *range(15, 21)]
        accepted = 0
        for _ in range(20_000):
            body = bytes([random.choice(kinds), random.randrange(3)]) + random.randbytes(
                random.randrange(40)
            )
            body = body[: random.randrange(1, len(body) + 1)]
            try:
                fields = wire.decode_body(body)
            except wire.Refused:
                continue
            accepted += 1
            self.assertEqual(wire.encode_body(fields), body)
        self.assertGreater(accepted, 800)

    def test_a_garbled_welcome_is_refused(self):
        random = Random(2)
        for size in [*range(0, 90), 72, 72]:
            handshake = wire.Handshake(bytes([9]) + bytes(31))
            handshake.hello(0)
            # Zero bytes are a public key that no exchange may accept.
            noise = bytes(72) if size == 72 else random.randbytes(size)
            body = bytes([wire.WELCOME, wire.VERSION, 0, 0]) + noise
            frame = wire.decode_frame(wire.encode_frame(1, 0, 0, body), 512, handshake=True)
            with self.assertRaises(wire.Refused):
                handshake.welcome(frame)


class Clock(unittest.TestCase):
    def test_bounds_and_wrap(self):
        def clock():
            settled = wire.PeerClock(0xFFFFFF00, 1_000)
            self.assertEqual(judge(settled, 20_000, 20_000), wire.FRESH)
            return settled

        def judge(clock, peer_elapsed, elapsed):
            return clock.judge((0xFFFFFF00 + peer_elapsed) & 0xFFFFFFFF, 1_000 + elapsed)

        self.assertEqual(judge(clock(), 32_010, 30_000), wire.FRESH)
        self.assertEqual(judge(clock(), 32_016, 30_000), wire.FUTURE)
        # The estimate has risen by 5 ms in these 10 s.
        self.assertEqual(judge(clock(), 19_995, 30_000), wire.FRESH)
        self.assertEqual(judge(clock(), 19_994, 30_000), wire.OLD)

    def test_a_late_first_frame_does_no_harm(self):
        clock = wire.PeerClock(0, 3_000)
        for now_ms in range(3_001, 600_000, 700):
            self.assertEqual(clock.judge(now_ms, now_ms), wire.FRESH)

    def test_follows_slow_drift_for_days(self):
        for rate in (1.0004, 0.9996):
            clock = wire.PeerClock(0, 0)
            for now_ms in range(0, 4 * 86_400_000, 61_003):
                age = clock.judge(int(now_ms * rate) & 0xFFFFFFFF, now_ms)
                self.assertEqual(age, wire.FRESH)

    def test_a_clock_that_runs_1_percent_fast_is_found_out(self):
        clock = wire.PeerClock(0, 0)
        ages = [clock.judge(int(ms * 1.01), ms) for ms in range(0, 600_000, 1_000)]
        self.assertEqual(ages[:200], [wire.FRESH] * 200)
        self.assertEqual(ages[300:], [wire.FUTURE] * 300)


if __name__ == "__main__":
    unittest.main()
