"""The conversation of `test_client.py` again, over WebSocket on the same port."""

import unittest

import sallyport_wire as wire
import test_client
from sallyport_websocket import SUBPROTOCOL, WebSocketClient, frames


class OverWebSocket(test_client.Conversation):
    def connect(self, **options):
        client = WebSocketClient(self.address, self.key, **options)
        self.addCleanup(client.socket.close)
        return client

    # It cuts the byte stream of TCP, past WebSocket.
    test_frames_cut_anywhere_and_glued_together = None

    def test_the_subprotocol_is_chosen(self):
        self.assertEqual(self.connect().protocol.subprotocol, SUBPROTOCOL)

    def test_a_ping_of_websocket_is_answered(self):
        client = self.player()
        client.protocol.send_ping(b"are you there")
        client.wait(lambda: client.pongs == [b"are you there"])
        self.assert_echo(client)

    def test_the_close_code_says_why(self):
        client = self.player()
        client.logout()
        self.assertEqual(client.close_code, 1000)
        refused = self.connect()
        refused.connection.login(b"no token", test_client.sp.steady_ms())
        refused.wait_closed()
        self.assertEqual(refused.close_code, 4000 + self.reasons["bad_token"])

    def test_a_text_message_closes(self):
        client = self.player()
        client.protocol.send_text(b"hello")
        client.wait_closed()
        self.assertEqual(client.close_code, 1003)

    def test_a_message_in_fragments_is_one_frame(self):
        client = self.player()
        # What the connection would send next; the request in it is cut by hand.
        client.push(wire.REQUEST, self.group, 7, b"in pieces")
        *before, frame = frames(client.connection.poll_output())
        for whole in before:
            client.protocol.send_binary(whole)
        client.protocol.send_binary(frame[:10], fin=False)
        client.protocol.send_continuation(frame[10:40], fin=False)
        client.protocol.send_continuation(frame[40:], fin=True)
        reply = client.next_event(lambda f: f["kind"] == wire.REPLY)
        self.assertEqual(reply["payload"], b"in pieces")


# The cases of the module that was imported run there.
def load_tests(loader, _tests, _pattern):
    return unittest.TestSuite(loader.loadTestsFromTestCase(OverWebSocket))
