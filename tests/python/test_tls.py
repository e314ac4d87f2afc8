"""The conversation of `test_client.py` again, within TLS on the same port."""

import os
import ssl
import unittest

import test_client
from sallyport_tls import TlsClient, TlsWebSocketClient

AUTHORITY = os.environ.get("SALLYPORT_TLS_CA")


class Within(test_client.Conversation):
    def connect(self, **options):
        options = {"authority": AUTHORITY, "version": self.version} | options
        client = self.client(self.address, self.key, **options)
        self.addCleanup(client.socket.close)
        return client

    # It cuts the byte stream of TCP, past TLS.
    test_frames_cut_anywhere_and_glued_together = None
    # They wait for timers, which are the same within TLS.
    test_acknowledges_in_the_end_what_gets_no_reply = None
    test_heartbeats_keep_an_idle_connection = None
    test_answers_keep_a_client_that_has_no_heartbeat_of_its_own = None
    test_a_silent_client_is_closed = None
    test_login_deadline = None

    def test_the_version_is_the_clients_and_the_end_is_told(self):
        client = self.player()
        name = {ssl.TLSVersion.TLSv1_3: "TLSv1.3", ssl.TLSVersion.TLSv1_2: "TLSv1.2"}[self.version]
        self.assertEqual(client.tls.version(), name)
        client.logout()
        client.wait(lambda: client.ended)
        self.assertTrue(client.told_end)

    def test_large_messages_are_many_records(self):
        client = self.player()
        for size in (16_000, 30_000):
            self.assert_echo(client, os.urandom(size))


@unittest.skipUnless(AUTHORITY, "SALLYPORT_TLS_CA names no file")
class WebSocketWithinTls13(Within):
    client = TlsWebSocketClient
    version = ssl.TLSVersion.TLSv1_3


@unittest.skipUnless(AUTHORITY, "SALLYPORT_TLS_CA names no file")
class FramesWithinTls12(Within):
    client = TlsClient
    version = ssl.TLSVersion.TLSv1_2


# The cases of the module that was imported run there.
def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for case in (WebSocketWithinTls13, FramesWithinTls12):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite
