"""Autobahn's cases, as `kosoku` runs them, against the gateway's WebSocket core.

The core stands in `websocket_echo`, an example of the gateway crate that puts an application which
echoes behind the gateway's own front and engines: Autobahn's cases want their messages back, text
included, which no gateway gives. SALLYPORT_WEBSOCKET_ECHO names the program.
"""

import asyncio
import os
import subprocess
import unittest

import kosoku

# permessage-deflate is not offered: frames are sealed, so nothing would shrink.
NOT_APPLICABLE = ["12.*", "13.*"]

# What the cases of one engine take at most, on a busy machine too.
PATIENCE_S = 240

PROGRAM = os.environ.get("SALLYPORT_WEBSOCKET_ECHO")


@unittest.skipUnless(PROGRAM, "SALLYPORT_WEBSOCKET_ECHO names no program")
class Conformance(unittest.TestCase):
    def run_cases(self, engine):
        server = subprocess.Popen([PROGRAM, engine], stdout=subprocess.PIPE, text=True)
        try:
            line = server.stdout.readline()
            self.assertTrue(line.startswith("listens on "), line)
            address = line.removeprefix("listens on ").strip()
            run = kosoku.run_fuzzingclient(
                f"ws://{address}", exclude_cases=NOT_APPLICABLE, concurrency=4
            )
            results = asyncio.run(asyncio.wait_for(run, PATIENCE_S))
        except kosoku.FailureError as failure:
            self.fail("\n".join(
                f"{result.case_id}: {result.behavior.value}, {result.behavior_close.value}: "
                f"{result.result} {result.result_close}"
                for result in failure.results
                if not result.passed
            ))
        finally:
            server.kill()
            server.wait()
            server.stdout.close()
        self.assertGreater(len(results), 200)

    def test_epoll(self):
        self.run_cases("epoll")

    def test_uring(self):
        self.run_cases("uring")
