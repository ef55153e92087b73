#!/usr/bin/env python3
"""The log of a job: what it says of attempts, blocks, pauses, kills, retries, failures, warnings and ends, how long it may be, and that it goes with the job."""
import http.server
import os
import re
import sqlite3
import threading
import unittest

from support import Daemon, small_job, small_model, wait_for

LINE = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (info|warning|error): (.*)$")
EVALUATION = {"perplexity": [{"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]}
BLOCKS = 4
MOST = 1 << 20


class Log(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", "1", "--backend", "cpu")
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, BLOCKS)

    def text(self, job):
        response = self.daemon.get(f"/v1/jobs/{job}/log")
        self.assertEqual((response.status, response.headers["Content-Type"]), (200, "text/plain; charset=utf-8"), response.body)
        return response.body.decode()

    def lines(self, job):
        """[(level, text)]"""
        text = self.text(job)
        self.assertTrue(text.endswith("\n"))
        matches = [LINE.match(line) for line in text.splitlines()]
        self.assertNotIn(None, matches, text)
        return [match.groups()[1:] for match in matches]

    def act(self, job, action):
        response = self.daemon.request("POST", f"/v1/jobs/{job}/{action}")
        self.assertEqual(response.status, 200, response.body)

    def blocks(self, job, count=1):
        wait_for("a block", lambda: sum(e["type"] == "block.finished" for e in self.daemon.events(job)) >= count)

    def check(self, job, *patterns):
        """Each line is of its pattern, 'level: text', in that order; '*' behind one means any number of them."""
        found = [f"{level}: {text}" for level, text in self.lines(job)]
        expression = "".join(f"(?:{p[:-1]}\n)*" if p.endswith("*") else f"{p}\n" for p in patterns)
        self.assertRegex("".join(line + "\n" for line in found), f"\\A{expression}\\Z")

    RUNS = "info: attempt {} runs on .+ \\(backend cpu\\), by besad \\S+"
    BLOCK = "info: block \\d finished in [0-9.]+ s, sparsity 0\\.[0-9]+, reconstruction [0-9.e-]+"
    ENDED = "info: attempt {} ended after [0-9.]+ s"

    def test_from_post_to_end(self):
        self.daemon.start()
        job = self.daemon.submit(small_job(output="made", method="wanda", evaluation=EVALUATION))
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        self.check(job, "info: queued", "info: attempt 1 began with 0 blocks finished", self.RUNS.format(1), "warning: .+*",
                   "info: perplexity of the dense model on tokens: [0-9.]+", *["info: block %d finished in .+" % i for i in range(BLOCKS)], "warning: .+*",
                   "info: perplexity of the pruned model on tokens: [0-9.]+", "warning: .+*", self.ENDED.format(1), "info: succeeded")
        head = self.daemon.request("HEAD", f"/v1/jobs/{job}/log")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(self.daemon.get(f"/v1/jobs/{job}/log", Accept="application/json").status, 406)
        self.assertEqual(self.daemon.get(f"/v1/jobs/{job}/log?lines=3").status, 400)
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{job}").status, 204)
        self.assertEqual(self.daemon.get(f"/v1/jobs/{job}/log").status, 404)
        database = sqlite3.connect(os.path.join(self.daemon.state, "besad.db"))
        self.assertEqual(database.execute("SELECT count(*) FROM notes").fetchone(), (0,))
        database.close()

    def test_paused_killed_failed_and_retried(self):
        self.daemon.start()
        job = self.daemon.submit(small_job(output="made", besa={"epochs": 4}))
        self.blocks(job)
        self.act(job, "pause")
        wait_for("its pause", lambda: self.daemon.job(job)["state"] == "paused")
        self.act(job, "resume")
        wait_for("the next attempt", lambda: any("attempt 2 runs" in text for _, text in self.lines(job)))
        self.daemon.kill()
        self.daemon.start()
        wait_for("the third", lambda: any("attempt 3 runs" in text for _, text in self.lines(job)))
        with open(os.path.join(self.daemon.models, "small", "config.json"), "a") as file:
            file.write(" ")  # a job does not go on with a model that has changed
        self.assertEqual(self.daemon.finish(job)["state"], "failed")
        began = "info: attempt {} began with \\d blocks? finished"
        once = self.BLOCK + "*"
        warned = "warning: .+*"
        self.check(job, "info: queued", began.format(1), self.RUNS.format(1), warned, once, warned, self.ENDED.format(1), "info: paused",
                   "info: queued again, resumed", began.format(2), self.RUNS.format(2), once, "info: queued again, interrupted", began.format(3),
                   self.RUNS.format(3), once, warned, self.ENDED.format(3), "error: failed, code invalid: .*has changed since this job began: .* again")
        self.assertNotIn(self.daemon.directory, self.text(job))
        other = self.daemon.submit(small_job(output="other", priority=-9))
        self.act(other, "cancel")
        wait_for("its end", lambda: self.daemon.job(other)["state"] == "cancelled")
        self.assertEqual(self.lines(other)[-1], ("info", "cancelled"))

    def test_tried_again(self):
        self.daemon.start()
        job = self.daemon.submit(small_job(output="made", method="magnitude"))
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        self.daemon.stop()
        database = sqlite3.connect(os.path.join(self.daemon.state, "besad.db"))
        with database:  # as such a failure is stored
            database.execute("UPDATE jobs SET last_event = last_event + 1 WHERE id = ?", (job,))
            database.execute("INSERT INTO events SELECT id, last_event, 'job.queued', 5000, ? FROM jobs",
                             ('{"reason":"failed","code":"io","message":"no\\nforged: line","retry_at":"T"}',))
        database.close()
        self.daemon.start()
        self.assertEqual(self.lines(job)[-1], ("warning", "failed, code io, and is tried again at T: no?forged: line"))
        self.assertTrue(self.text(job).splitlines()[-1].startswith("1970-01-01T00:00:05.000Z"))  # what came last is last, whatever the clock said

    def test_who_was_told(self):
        answers = [500, 204]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(answers.pop(0))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        url = f"http://127.0.0.1:{server.server_port}/"
        self.daemon.start("--notify-host", "127.0.0.1", "--on-finish", "/bin/true")
        job = self.daemon.submit(small_job(output="made", method="magnitude", notify={"url": url}))
        wait_for("both to be told", lambda: sum("told" in text and level == "info" for level, text in self.lines(job)) == 2)
        lines = self.lines(job)
        self.assertIn(("info", "told the operator's program of the end"), lines)
        self.assertNotIn("/bin/true", self.text(job))
        failed = next(i for i, (level, text) in enumerate(lines) if re.match(f"{url} could not be told of the end, again in \\d+ s: .*500", text))
        self.assertEqual(lines[failed][0], "warning")
        self.assertLess(failed, lines.index(("info", f"told {url} of the end")))

    def test_bounds(self):
        self.daemon.start()
        job = self.daemon.submit(small_job(output="made", method="magnitude"))
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        self.daemon.stop()
        database = sqlite3.connect(os.path.join(self.daemon.state, "besad.db"))
        with database:
            for i in range(3000):
                database.execute("UPDATE jobs SET last_event = last_event + 1 WHERE id = ?", (job,))
                database.execute("INSERT INTO events SELECT id, last_event, 'warning', 5000, ? FROM jobs", ('{"message":"%d %s"}' % (i, 1000 * "ü"),))
        database.close()
        self.daemon.start()
        body = self.daemon.get(f"/v1/jobs/{job}/log").body
        self.assertLessEqual(len(body), MOST)
        self.assertGreater(len(body), MOST - 4096)
        lines = body.decode().splitlines()
        self.assertEqual(lines[0], "earlier lines are left out")
        numbers = [int(LINE.match(line).group(3).split()[0]) for line in lines[1:]]
        self.assertEqual(numbers, list(range(numbers[0], 3000)))


if __name__ == "__main__":
    unittest.main()
