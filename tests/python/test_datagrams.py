"""Talks to a real gateway over UDP, as a client written from `docs/PROTOCOL.md` §12.

The environment is that of `test_client.py`. Networks that lose, double and change addresses are
played by the client, so that it knows what happened.
"""

import copy
import os
import socket
import unittest

import sallyport_client as sp
import sallyport_datagrams as dg
import sallyport_wire as wire
import test_client

QUIET_S = 0.3


class OverDatagrams(test_client.GatewayCase):
    def connect(self, **options):
        client = dg.DatagramClient(self.address, self.key, **options)
        self.addCleanup(lambda: client.socket.close())
        return client

    def answer(self, data, timeout_s=5.0):
        """What comes back to one datagram from a socket of its own, or None."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.settimeout(timeout_s)
            stranger.connect(self.address)
            stranger.send(data)
            try:
                return stranger.recv(65_536)
            except TimeoutError:
                return None

    def test_a_cookie_comes_before_a_connection(self):
        client = self.connect()
        self.assertEqual(client.connection.retries, 1)
        kinds = [data[1] for data in client.received]
        self.assertEqual(kinds, [dg.RETRY, dg.ACCEPT])
        self.assertTrue(all(len(data) < dg.DATAGRAM_BYTES_MAX for data in client.received))

    def test_an_init_of_another_length_gets_no_answer(self):
        connection = dg.DatagramConnection(self.key, sp.steady_ms())
        init = connection.poll_datagrams(sp.steady_ms())[0]
        self.assertIsNone(self.answer(init[:-1], QUIET_S))
        retry = self.answer(init)
        self.assertEqual((retry[1], len(retry)), (dg.RETRY, 32))

    def test_a_cookie_is_good_for_its_address_only(self):
        connection = dg.DatagramConnection(self.key, sp.steady_ms())
        init = connection.poll_datagrams(sp.steady_ms())[0]
        connection.handle_datagram(self.answer(init), sp.steady_ms())
        again = connection.poll_datagrams(sp.steady_ms())[0]
        self.assertNotEqual(again[12:32], bytes(20))
        # From another port than the one that it was made for.
        self.assertEqual(self.answer(again)[1], dg.RETRY)

    def test_an_init_that_comes_again_gets_the_same_accept(self):
        client = self.connect()
        client.write_datagram(client.sent[-1])
        count = len(client.received)
        client.wait(lambda: len(client.received) > count)
        self.assertEqual(client.received[-1], client.received[-2])

    def test_a_forged_accept_is_passed_over(self):
        connection = dg.DatagramConnection(self.key, sp.steady_ms())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
            mine.settimeout(5)
            mine.connect(self.address)
            mine.send(connection.poll_datagrams(sp.steady_ms())[0])
            connection.handle_datagram(mine.recv(2_000), sp.steady_ms())
            mine.send(connection.poll_datagrams(sp.steady_ms())[0])
            accept = mine.recv(2_000)
        forged = accept[:60] + bytes([accept[60] ^ 1]) + accept[61:]
        crc = wire.frame_around(forged[20:32], forged[36:])
        connection.handle_datagram(forged[:20] + crc, sp.steady_ms())
        self.assertIsNone(connection.welcome)
        connection.handle_datagram(accept, sp.steady_ms())
        self.assertIsNotNone(connection.welcome)

    def test_echo_small_large_and_compressed(self):
        client = self.player()
        for size in (1, 24, 1_000, 1_104, 1_200, 5_000, 30_000):
            self.assert_echo(client, os.urandom(size))
        self.assert_echo(client, b"again and again " * 200, compressed=True)

    def test_the_lanes_that_may_lose(self):
        client = self.player()
        # They overtake what has an order: without an answer to its SYNC the game hears none.
        self.assert_echo(client)
        for lane in (wire.UNRELIABLE, wire.SEQUENCED):
            for payload in (os.urandom(30), os.urandom(3_000)):
                client.push(wire.MESSAGE, self.group, 5, payload, lane=lane)
                event = client.next_event(lambda f: f["kind"] == wire.MESSAGE)
                self.assertEqual((event["lane"], event["payload"]), (lane, payload))

    def test_nothing_reliable_is_lost_or_doubled_by_a_bad_network(self):
        lossy = lambda chance: chance.random() < 0.2
        client = self.connect(lossy=lossy, timeout_s=20)
        client.login(self.token(), timeout_s=20)
        client.wait_group(self.group, timeout_s=20)
        wanted = [os.urandom(10 + 97 * at) for at in range(40)]
        numbers = [client.push(wire.REQUEST, self.group, 1, payload) for payload in wanted]
        replies = []
        while len(replies) < len(wanted):
            replies.append(client.next_event(lambda f: f["kind"] == wire.REPLY, timeout_s=20))
        self.assertEqual([reply["request"] for reply in replies], numbers)
        self.assertEqual([reply["payload"] for reply in replies], wanted)
        self.assertGreater(client.lost, 20)
        self.assertGreater(client.connection.segments.sent_again, 5)

    def test_a_client_that_moves_keeps_its_session_and_gets_another_id(self):
        client = self.player()
        for moves in (1, 2):
            before = client.connection.cid
            client.move()
            self.assert_echo(client)
            client.wait(lambda: client.connection.new_cids >= moves)
            self.assertNotEqual(client.connection.cid, before)
            self.assertEqual(client.connection.cid[0], before[0], "the shard stays")
            self.assert_echo(client)
        self.assertGreaterEqual(client.connection.challenges, 2)

    def test_a_move_is_found_out_under_loss(self):
        client = self.player()
        client.lossy = lambda chance: chance.random() < 0.2
        for _ in range(3):
            client.move()
            self.assert_echo(client, timeout_s=20)

    def test_replayed_datagrams_change_nothing(self):
        client = self.player()
        self.assert_echo(client)
        sealed = [data for data in client.sent if data[0] != dg.SETUP]
        for data in sealed:
            client.write_datagram(data)
            # Who repeats it from elsewhere does not become the client.
            self.assertIsNone(self.answer(data, 0.02))
        self.assert_echo(client)
        replies = [f for f in client.connection.events if f["kind"] == wire.REPLY]
        self.assertEqual(replies, [])
        self.assertEqual(client.connection.challenges, 0)

    def test_forged_datagrams_change_nothing(self):
        client = self.player()
        for at in (0, 8, 11, 12, 20, 30, -1):
            forged = bytearray(client.connection.datagram(b"\x04" + bytes(8), sp.steady_ms()))
            forged[at] ^= 1
            client.write_datagram(bytes(forged))
            crc = wire.frame_around(bytes(forged[8:20]), bytes(forged[24:]))
            client.write_datagram(bytes(forged[:8]) + crc)
        self.assert_echo(client)

    def test_what_needs_order_is_not_taken_outside_of_segments(self):
        client = self.player()
        body = wire.encode_body(self.request_fields(1, 77))
        chunk = dg.encode_chunk({"chunk": dg.BODY, "flags": 0, "data": body})
        client.write_datagram(client.connection.datagram(chunk, sp.steady_ms()))
        reply = self.assert_echo(client)
        self.assertNotEqual(reply["request"], 77)

    def test_a_malformed_chunk_closes(self):
        client = self.player()
        client.write_datagram(client.connection.datagram(b"\x09", sp.steady_ms()))
        close = client.wait_closed()
        self.assertEqual(close["reason"], self.reasons["bad_body"])

    def test_a_logout_is_answered(self):
        client = self.player()
        close = client.logout()
        self.assertEqual(close["reason"], self.reasons["logged_out"])

    def lost(self, client, number):
        """A client whose socket is gone while a request is on its way."""
        client.push(wire.REQUEST, self.group, 1, b"kept %d" % number)
        client.socket.close()
        return client.connection

    def assert_resumed(self, client, session, payload):
        self.assertEqual(client.wait_resumed(), session)
        client.wait_group(self.group)
        reply = client.next_event(lambda f: f["kind"] == wire.REPLY)
        self.assertEqual(reply["payload"], payload)
        self.assert_echo(client)

    def test_a_session_goes_on_over_any_transport(self):
        client = self.player()
        session = client.connection.session
        for number, make in enumerate((self.connect, super().connect, self.connect)):
            client = make(lost=self.lost(client, number))
            self.assert_resumed(client, session, b"kept %d" % number)

    def test_a_used_ticket_is_refused(self):
        client = self.player()
        used = client.connection.tickets[0]
        client = self.connect(lost=self.lost(client, 0))
        client.wait_resumed()
        again = copy.copy(client.connection)
        again.tickets, again.streams = [used], {}
        with self.assertRaises(wire.Rejected) as caught:
            self.connect(lost=again)
        self.assertEqual(caught.exception.code, self.reasons["ticket_unknown"])
        self.assert_echo(client)

    def test_both_ends_measure_what_is_lost(self):
        client = self.player()
        client.lossy = lambda chance: chance.random() < 0.3
        told = lambda: client.connection.theirs.get("loss", 0) > 25 and client.connection.loss > 0.1
        for _ in range(60):
            self.assert_echo(client, timeout_s=20)
            client.ping()
            if told():
                break
        self.assertTrue(told(), (client.connection.theirs, client.connection.loss))
        self.assertGreater(client.connection.round_trip_us, 0)

    def test_a_session_is_found_gone_by_logging_in_anew(self):
        account = f"python-{os.urandom(8).hex()}"
        first = self.connect()
        first.login(self.token(account=account))
        second = self.connect()
        with self.assertRaises(sp.Disconnected) as caught:
            second.login(self.token(account=account))
        self.assertEqual(caught.exception.close["reason"], self.reasons["already_online"])

    def test_a_heartbeat_keeps_it_alive(self):
        client = self.player()
        idle_s = self.seconds(client.connection.welcome.idle_timeout_ms, "idle timeout")
        end_ms = sp.steady_ms() + int(idle_s * 1_200)
        client.wait(lambda: sp.steady_ms() >= end_ms, timeout_s=idle_s * 2)
        self.assert_echo(client)


# The cases of the module that was imported run there.
def load_tests(loader, _tests, _pattern):
    return unittest.TestSuite(loader.loadTestsFromTestCase(OverDatagrams))


if __name__ == "__main__":
    unittest.main()
