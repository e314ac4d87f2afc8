"""Checks every test vector of `docs/vectors/` with the Python client's own code.

`docs/vectors/README.md` describes the files. Needs no gateway and no network.

Invariant: a vector that this file does not understand is a failure, never skipped.
"""

import base64
import hashlib
import json
import os
import pathlib
import unittest
import warnings

from cryptography.exceptions import InvalidSignature
from noise.connection import Keypair, NoiseConnection

import sallyport_datagrams as dg
import sallyport_wire as wire

DIRECTORY = pathlib.Path(
    os.environ.get("SALLYPORT_VECTORS", pathlib.Path(__file__).parents[2] / "docs" / "vectors")
)
SECTIONS = {"handshake", "resume", "frames", "rekey", "token", "bad", "websocket"} | {
    "setup",
    "bad_setup",
    "datagrams",
    "bad_datagrams",
    "side",
    "channel_bodies",
    "channel_frames",
}
BYTE_FIELDS = {"channel", "device", "credential", "text", "payload"}


def with_bytes(fields):
    """Body fields of a vector as the client has them."""
    return {k: bytes.fromhex(v) if k in BYTE_FIELDS else v for k, v in fields.items()}


def receive(data, opener):
    """What a receiver does with one frame after login."""
    frame = wire.decode_frame(data)
    body = opener.open(frame)
    return frame, body, wire.decode_body(body, bool(frame.flags & wire.COMPRESSED))


class Vectors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # The ephemeral keys are fixed here on purpose.
        warnings.filterwarnings("ignore", message="One of ephemeral keypairs is already set")
        cls.files = {p.name: json.loads(p.read_text()) for p in sorted(DIRECTORY.glob("*.json"))}

    def section(self, name):
        """(label, vector) for each vector of that section in all files."""
        found = []
        for file, content in self.files.items():
            vectors = content.get(name, [])
            vectors = [vectors] if isinstance(vectors, dict) else vectors
            found += [(f"{file}: {v.get('name', f'{name} {i}')}", v) for i, v in enumerate(vectors)]
        self.assertTrue(found, f"no vectors of section {name} in {DIRECTORY}")
        return found

    def test_files(self):
        self.assertTrue(self.files, f"no files in {DIRECTORY}")
        for file, content in self.files.items():
            with self.subTest(file):
                self.assertEqual(content["version"], 1)
                self.assertLessEqual(set(content), SECTIONS | {"version"})

    def test_channel_bodies(self):
        for label, v in self.section("channel_bodies"):
            with self.subTest(label):
                body, fields = bytes.fromhex(v["body"]), dict(v["fields"])
                if "key" in fields:
                    fields["key"] = bytes.fromhex(fields["key"])
                self.assertEqual(wire.decode_body(body), fields)
                self.assertEqual(wire.encode_body(fields), body)
                for length in range(len(body)):
                    with self.assertRaises(wire.Refused):
                        wire.decode_body(body[:length])

    def test_channel_frames(self):
        frames = self.section("channel_frames")
        first = frames[0][1]
        opener = wire.ChannelOpener(
            first["key_id"], bytes.fromhex(first["key"]), first["sequence"]
        )
        for label, v in frames:
            with self.subTest(label):
                frame = bytes.fromhex(v["frame"])
                self.assertEqual(opener.next, v["sequence"])
                fields = {**v["fields"], "payload": bytes.fromhex(v["fields"]["payload"])}
                self.assertEqual(opener.open(frame), fields)
                with self.assertRaisesRegex(wire.Refused, "sequence_repeated"):
                    opener.open(frame)
                with self.assertRaisesRegex(wire.Refused, "bad_flags"):
                    wire.decode_frame(frame)
                for at in range(16, len(frame)):
                    forged = bytearray(frame)
                    forged[at] ^= 1
                    forged = wire.frame_around(bytes(forged[:12]), bytes(forged[16:]))
                    fresh = wire.ChannelOpener(opener.key_id, opener.key, v["sequence"])
                    with self.assertRaisesRegex(wire.Refused, "bad_seal|unknown_key"):
                        fresh.open(forged)

    def test_websocket(self):
        for label, v in self.section("websocket"):
            with self.subTest(label):
                digest = hashlib.sha1(v["key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
                self.assertEqual(base64.b64encode(digest.digest()).decode(), v["accept"])
                for side in ("client", "gateway"):
                    frame, mask = bytes.fromhex(v[side]["frame"]), v[side].get("mask")
                    self.assertLess(len(frame), 126)
                    if mask is None:
                        message = bytes([0x82, len(frame)]) + frame
                    else:
                        mask = bytes.fromhex(mask)
                        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(frame))
                        message = bytes([0x82, 0x80 | len(frame)]) + mask + masked
                    self.assertEqual(message.hex(), v[side]["message"])

    def test_side(self):
        for label, v in self.section("side"):
            with self.subTest(label):
                secret, cid = bytes.fromhex(v["secret"]), bytes.fromhex(v["connection_id"])
                self.assertEqual(bytes([11, 0]).hex(), v["side_open_body"])
                self.assertEqual((bytes([12, 0]) + cid + secret).hex(), v["side_body"])
                challenge = bytes.fromhex(v["challenge"])
                padding = 1_200 - 8 - wire.HEADER_BYTES - 9 - wire.TAG_BYTES
                for side, chunks in (
                    ("client", b"\x04" + challenge + b"\x07" + bytes(padding - 1)),
                    ("gateway", b"\x05" + challenge),
                ):
                    name = f"sallyport-side-{side}-1".encode()
                    key = hashlib.blake2s(name + secret).digest()
                    self.assertEqual(key.hex(), v[f"{side}_key"])
                    frame = wire.Sealer(key).seal(chunks, v[f"{side}_timestamp"])
                    self.assertEqual((cid + frame).hex(), v[f"{side}_datagram"])

    def test_handshake_as_client(self):
        for label, v in self.section("handshake"):
            with self.subTest(label):
                handshake = wire.Handshake(
                    bytes.fromhex(v["static_public"]), bytes.fromhex(v["client_ephemeral_private"])
                )
                self.assertEqual(handshake.hello(v["client_timestamp"]).hex(), v["hello_frame"])
                frame = wire.decode_frame(bytes.fromhex(v["welcome_frame"]), 512, handshake=True)
                self.assertEqual(frame.timestamp, v["gateway_timestamp"])
                self.assertEqual(vars(handshake.welcome(frame)), v["welcome"])
                self.assertEqual(handshake.hash.hex(), v["handshake_hash"])
                self.assertEqual(handshake.client_key.hex(), v["client_key"])
                self.assertEqual(handshake.gateway_key.hex(), v["gateway_key"])

    def test_resume(self):
        for label, v in self.section("resume"):
            with self.subTest(label):
                before = [
                    bytes.fromhex(v[f"{name}_before"])
                    for name in ("client_key", "gateway_key", "handshake_hash")
                ]
                ticket = wire.Ticket.derive(*before)
                self.assertEqual(ticket.key.hex(), v["ticket_key"])
                self.assertEqual(ticket.id.hex(), v["ticket_id"])
                handshake = wire.ResumeHandshake(
                    ticket, bytes.fromhex(v["client_ephemeral_private"])
                )
                self.assertEqual(handshake.hello(v["client_timestamp"]).hex(), v["resume_frame"])
                frame = wire.decode_frame(bytes.fromhex(v["welcome_frame"]), 512, handshake=True)
                self.assertEqual(frame.timestamp, v["gateway_timestamp"])
                self.assertEqual(vars(handshake.welcome(frame)), v["welcome"])
                self.assertEqual(handshake.hash.hex(), v["handshake_hash"])
                self.assertEqual(handshake.client_key.hex(), v["client_key"])
                self.assertEqual(handshake.gateway_key.hex(), v["gateway_key"])
                self.assertEqual(handshake.next_ticket().key.hex(), v["next_ticket_key"])

    def test_handshake_as_gateway(self):
        for label, v in self.section("handshake"):
            with self.subTest(label):
                hello = wire.decode_frame(bytes.fromhex(v["hello_frame"]), 512, handshake=True)
                self.assertEqual((hello.timestamp, hello.sequence_low), (v["client_timestamp"], 0))
                self.assertEqual(hello.body[:4], bytes([wire.HELLO, wire.VERSION, 0, 0]))
                noise = NoiseConnection.from_name(wire.NOISE_NAME)
                noise.set_as_responder()
                for keypair, name in (
                    (Keypair.STATIC, "static_private"),
                    (Keypair.EPHEMERAL, "gateway_ephemeral_private"),
                ):
                    noise.set_keypair_from_private_bytes(keypair, bytes.fromhex(v[name]))
                noise.set_prologue(wire.PROLOGUE + hello.associated + hello.body[:4])
                noise.start_handshake()
                self.assertEqual(noise.read_message(hello.body[4:]), b"")
                payload = wire.Welcome(**v["welcome"]).encode()
                body = bytes([wire.WELCOME, wire.VERSION, 0, 0]) + bytes(
                    noise.write_message(payload)
                )
                frame = wire.encode_frame(wire.HANDSHAKE, 0, v["gateway_timestamp"], body)
                self.assertEqual(frame.hex(), v["welcome_frame"])

    def test_frames_open(self):
        for label, v in self.section("frames"):
            with self.subTest(label):
                data = bytes.fromhex(v["frame"])
                opener = wire.Opener(bytes.fromhex(v["key"]), v["sequence"], v["key_phase"])
                frame, body, fields = receive(data, opener)
                self.assertEqual(frame.timestamp, v["timestamp"])
                self.assertEqual(bool(frame.flags & wire.COMPRESSED), v["compressed"])
                self.assertEqual(body.hex(), v["body"])
                self.assertEqual(fields, with_bytes(v["body_fields"]))

    def test_frames_seal(self):
        for label, v in self.section("frames"):
            with self.subTest(label):
                fields = with_bytes(v["body_fields"])
                if not v["compressed"]:
                    self.assertEqual(wire.encode_body(fields).hex(), v["body"])
                sealer = wire.Sealer(
                    bytes.fromhex(v["key"]), sequence=v["sequence"], key_phase=v["key_phase"]
                )
                body = bytes.fromhex(v["body"])
                frame = sealer.seal(body, v["timestamp"], compressed=v["compressed"])
                self.assertEqual(frame.hex(), v["frame"])

    def test_frames_refused_with_any_bit_flipped(self):
        """Not one bit of a good frame can change unseen, even with the right checksum."""
        for label, v in self.section("frames"):
            with self.subTest(label):
                good = bytes.fromhex(v["frame"])
                for at in range(min(len(good), 256)):
                    if 12 <= at < 16:
                        continue
                    for bit in range(8):
                        data = bytearray(good)
                        data[at] ^= 1 << bit
                        data = wire.frame_around(bytes(data[:12]), bytes(data[16:]))
                        opener = wire.Opener(bytes.fromhex(v["key"]), v["sequence"], v["key_phase"])
                        with self.assertRaises(wire.Refused, msg=f"byte {at} bit {bit}"):
                            receive(data, opener)

    def test_rekey(self):
        for label, v in self.section("rekey"):
            with self.subTest(label):
                self.assertEqual(wire.next_key(bytes.fromhex(v["key"])).hex(), v["next"])

    def test_token(self):
        for label, v in self.section("token"):
            with self.subTest(label):
                secret, public = bytes.fromhex(v["secret"]), bytes.fromhex(v["public"])
                claims, token = v["claims"].encode(), v["token"].encode()
                self.assertEqual(secret[32:], public)
                self.assertLessEqual({"aud", "sub", "jti", "iat", "exp"}, set(json.loads(claims)))
                self.assertEqual(wire.sign_token(secret, claims), token)
                self.assertEqual(wire.verify_token(public, token), claims)
                with self.assertRaises(InvalidSignature):
                    wire.verify_token(public, token[:20] + bytes([token[20] ^ 1]) + token[21:])

    def test_bad_frames_are_refused_for_the_right_reason(self):
        for label, v in self.section("bad"):
            with self.subTest(label):
                key = bytes.fromhex(v["key"])
                opener = wire.Opener(key, v["expected_sequence"], v.get("key_phase", 0))
                with self.assertRaises(wire.Refused) as caught:
                    receive(bytes.fromhex(v["frame"]), opener)
                self.assertEqual(caught.exception.reason, v["reason"])

    def test_setup_datagrams(self):
        names = {1: ("cookie", "frame"), 2: ("cookie",), 3: ("connection_id", "frame"), 4: ("frame",)}
        for label, v in self.section("setup"):
            with self.subTest(label):
                nonce = bytes.fromhex(v["nonce"])
                rest = b"".join(bytes.fromhex(v[name]) for name in names[v["type"]])
                datagram = dg.encode_setup(v["type"], nonce, rest)
                self.assertEqual(datagram.hex(), v["datagram"])
                kind, again, behind = dg.decode_setup(datagram)
                self.assertEqual((kind, again), (v["type"], nonce))
                self.assertTrue(behind.startswith(rest))
                if "frame" in v:
                    wire.decode_frame(bytes.fromhex(v["frame"]), 512, handshake=True)

    def test_bad_setup_datagrams(self):
        for label, v in self.section("bad_setup"):
            with self.subTest(label):
                self.assertIsNone(dg.decode_setup(bytes.fromhex(v["datagram"])))

    def chunks(self, v):
        chunks = []
        for fields in v["chunks"]:
            data = {"data": bytes.fromhex(fields["data"])} if "data" in fields else {}
            chunks.append(fields | data)
        return chunks

    def test_datagrams_open(self):
        for label, v in self.section("datagrams"):
            with self.subTest(label):
                cid, frame = dg.decode_datagram(bytes.fromhex(v["datagram"]))
                self.assertEqual(cid.hex(), v["connection_id"])
                opener = dg.DatagramOpener(bytes.fromhex(v["key"]))
                opener.phase, opener.next = v["key_phase"], v["sequence"]
                body, newest = opener.open(frame)
                self.assertTrue(newest)
                self.assertEqual(body.hex(), v["body"])
                self.assertEqual(dg.decode_chunks(body), self.chunks(v))
                self.assertEqual(frame.timestamp, v["timestamp"])

    def test_datagrams_seal(self):
        for label, v in self.section("datagrams"):
            with self.subTest(label):
                body = b"".join(dg.encode_chunk(fields) for fields in self.chunks(v))
                self.assertEqual(body.hex(), v["body"])
                key = bytes.fromhex(v["key"])
                sealer = wire.Sealer(key, sequence=v["sequence"], key_phase=v["key_phase"])
                frame = sealer.seal(body, v["timestamp"])
                self.assertEqual(v["connection_id"] + frame.hex(), v["datagram"])

    def test_bad_datagrams_are_refused_for_the_right_reason(self):
        for label, v in self.section("bad_datagrams"):
            with self.subTest(label):
                opener = dg.DatagramOpener(bytes.fromhex(v["key"]))
                opener.phase, opener.seen = v["key_phase"], set(v["opened"])
                opener.next = max(v["opened"]) + 1
                with self.assertRaises(wire.Refused) as caught:
                    _, frame = dg.decode_datagram(bytes.fromhex(v["datagram"]))
                    body, _ = opener.open(frame)
                    dg.decode_chunks(body)
                self.assertEqual(caught.exception.reason, v["reason"])


if __name__ == "__main__":
    unittest.main()
