#!/usr/bin/env python3
"""Who may do what: tokens with roles, what becomes of them when their file is read again, wrong ones, quotas, and the audit."""
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
import time
import unittest

from support import BESAD, PATIENCE, Daemon, small_job, small_model, wait_for

READER, BOB, ALICE = "reader-0123456789", "bob-0123456789abc", "alice-0123456789a"
FILE = f"# who\n\nboard read {READER}\nbob submit {BOB} max-queued=2 max-per-day=5\nalice admin {ALICE}\n"
STUDY = {"name": "two", "spec": {"model": "small", "method": "magnitude"}, "grid": {"sparsity": [0.5, 0.6]}}


def bearer(token):
    return {"Authorization": "Bearer " + token}


class Access(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", "1", "--backend", "cpu")
        self.addCleanup(self.daemon.remove)
        self.tokens = os.path.join(self.daemon.directory, "tokens")

    def write(self, text, mode=0o600):
        with open(self.tokens, "w") as file:
            file.write(text)
        os.chmod(self.tokens, mode)

    def start(self, text=FILE):
        self.write(text)
        small_model(self.daemon, 60)
        self.daemon.token = ALICE
        self.daemon.start("--token-file", self.tokens)
        return self.daemon

    def reload(self, says):
        before = self.daemon.log().count(says)
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_for(f"'{says}' in the log", lambda: self.daemon.log().count(says) > before)

    def as_token(self, token, method, path, body=None):
        return self.daemon.request(method, path, body, bearer(token))

    def says(self, response, status, problem):
        self.assertEqual(response.status, status, response.body)
        self.assertEqual(response.json["type"], "urn:besad:problem:" + problem)
        return response

    def long_job(self, token=ALICE, **spec):
        """One that runs until it is cancelled: 60 blocks."""
        answer = self.as_token(token, "POST", "/v1/jobs", small_job(besa={"epochs": 100}, **spec))
        self.assertEqual(answer.status, 201, answer.body)
        return answer.json["id"]

    def audit(self, **kept):
        entries = self.daemon.get("/v1/audit?limit=1000").json["entries"]
        return [e for e in entries if all(e[key] == value for key, value in kept.items())]


class Roles(Access):
    def test_roles(self):
        daemon = self.start()
        job = self.long_job(output="long")
        for path in ("/v1/jobs", f"/v1/jobs/{job}", "/v1/info", "/metrics", "/v1/gc", f"/v1/jobs/{job}/log"):
            for token in (READER, BOB, ALICE):
                self.assertEqual(self.as_token(token, "GET", path).status, 200, path)
        self.assertEqual(self.as_token(READER, "HEAD", "/v1/jobs").status, 200)
        for method, path in (("POST", "/v1/jobs"), ("POST", f"/v1/jobs/{job}/cancel"), ("DELETE", f"/v1/jobs/{job}"), ("POST", "/v1/studies"),
                             ("POST", "/v1/estimate"), ("POST", "/v1/completions"), ("POST", "/v1/chat/completions")):
            refused = self.says(self.as_token(READER, method, path, {}), 403, "forbidden-role")
            self.assertIn("a token of the role submit; that of 'board' has the role read", refused.json["detail"])
        for method, path in (("POST", "/v1/gc"), ("POST", "/v1/drain"), ("POST", "/v1/undrain"), ("GET", "/v1/audit")):
            for token in (READER, BOB):
                self.assertIn("the role admin", self.says(self.as_token(token, method, path), 403, "forbidden-role").json["detail"])
            self.assertEqual(self.as_token(ALICE, method, path).status, 200)
        self.says(daemon.get("/v1/jobs", Authorization=""), 401, "unauthorized")
        self.assertEqual(daemon.job(job)["attempt"] in (0, 1), True)
        self.assertEqual(self.as_token(BOB, "POST", f"/v1/jobs/{job}/cancel").status, 200)
        self.assertEqual(daemon.finish(job)["state"], "cancelled")
        noted = wait_for("the refusals", lambda: self.audit(who="board"))
        self.assertEqual({(e["outcome"], e["peer"]) for e in noted}, {("forbidden-role", "127.0.0.1")})

    def test_files_that_are_refused(self):
        def refused(text, mode, environment=None):
            self.write(text, mode)
            done = subprocess.run([BESAD, "--listen", "127.0.0.1:0", "--state-dir", self.daemon.state, "--model-root", self.daemon.models,
                                   "--data-root", self.daemon.data, "--output-root", self.daemon.output, "--token-file", self.tokens],
                                  capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **(environment or {})})
            self.assertNotEqual(done.returncode, 0)
            for token in (READER, BOB, ALICE):
                self.assertNotIn(token, done.stderr)
            return done.stderr
        for mode in (0o644, 0o604, 0o602, 0o620, 0o640):
            if mode == 0o640 and os.stat(self.daemon.directory).st_uid == 0 and os.geteuid() != 0:
                continue
            self.assertIn(f"others can read or write it (mode {mode:03o})", refused(FILE, mode))
        self.assertIn("line 2: the token is there twice", refused(f"a read {READER}\nb admin {READER}\n", 0o600))
        self.assertIn("line 1: the role must be", refused(f"a root {READER}\n", 0o600))
        self.assertIn("line 1: with others", refused(f"{ALICE}\nb read {READER}\n", 0o600))
        self.assertIn("others can read", refused(FILE, 0o640, {"CREDENTIALS_DIRECTORY": self.daemon.data}))

    def test_credentials_of_systemd(self):
        """They may show a group's bits: they are an access list's."""
        self.write(FILE, 0o440)
        self.daemon.token = READER
        self.daemon.start("--token-file", self.tokens, environment={"CREDENTIALS_DIRECTORY": self.daemon.directory})
        self.assertEqual(self.daemon.get("/v1/jobs").status, 200)
        self.assertEqual(stat.S_IMODE(os.stat(self.tokens).st_mode), 0o440)

    def test_one_token(self):
        self.daemon.token = ALICE
        self.write(ALICE + "\n")
        self.daemon.start("--token-file", self.tokens)
        self.assertEqual(self.daemon.request("POST", "/v1/gc").status, 200)
        self.assertEqual([(e["who"], e["action"], e["target"], e["outcome"]) for e in self.audit()], [("token", "gc", None, "done")])


class Revoked(Access):
    def test_streams_end(self):
        daemon = self.start()
        job = self.long_job()
        ended, seen = {}, {}

        def follow(name, token):
            seen[name] = 0
            try:
                for _ in daemon.stream(job, **bearer(token)):
                    seen[name] += 1
            except OSError:
                pass
            ended[name] = time.monotonic()
        threads = [threading.Thread(target=follow, args=pair, daemon=True) for pair in (("board", READER), ("bob", BOB), ("alice", ALICE))]
        for thread in threads:
            thread.start()
        wait_for("events", lambda: len(seen) == 3 and all(seen.values()))
        self.write(FILE.replace(READER, READER + "-2").replace("bob submit", "bob read"))
        self.reload("the tokens were read again")
        wait_for("the end of board's stream", lambda: "board" in ended)
        self.assertEqual(self.as_token(READER, "GET", "/v1/jobs").status, 401)
        self.assertEqual(self.as_token(READER + "-2", "GET", "/v1/jobs").status, 200)
        self.assertEqual(self.as_token(BOB, "POST", f"/v1/jobs/{job}/cancel").status, 403)
        time.sleep(2.5)  # the hub looks once a second
        self.assertEqual(set(ended), {"board"})
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/cancel").status, 200)
        wait_for("the ends of the others", lambda: len(ended) == 3)

    def test_files_that_change_nothing(self):
        self.start()
        for text, mode, why in ((FILE.replace(READER, BOB), 0o600, "the token is there twice"), ("", 0o600, "has no token"),
                                (FILE.replace("board read", "board admin"), 0o644, "others can read or write it")):
            self.write(text, mode)
            self.reload("SIGHUP: the tokens stay as they are")
            self.assertIn(why, [line for line in self.daemon.log().splitlines() if "SIGHUP" in line][-1])
            self.assertEqual(self.as_token(READER, "GET", "/v1/jobs").status, 200)
            self.assertEqual(self.as_token(READER, "POST", "/v1/gc").status, 403)
        os.unlink(self.tokens)
        self.reload("SIGHUP: the tokens stay as they are")
        self.assertEqual(self.daemon.get("/v1/jobs").status, 200)


class Wrong(Access):
    def test_guessing_is_slow(self):
        daemon = self.start()
        times = []
        for i in range(6):
            begun = time.monotonic()
            self.says(self.as_token(f"guess-0123456789-{i}", "POST" if i % 2 else "GET", "/v1/jobs", {} if i % 2 else None), 401, "unauthorized")
            times.append(time.monotonic() - begun)
        self.assertGreater(times[3], 0.24)
        self.assertGreater(times[4], 0.49)
        self.assertGreater(times[5], 0.99)
        # A right token and none at all are answered while others wait, for 2, 4 and 5 seconds.
        begun = time.monotonic()
        waiting = [threading.Thread(target=lambda: self.as_token("guess-0123456789-7", "GET", "/v1/jobs")) for _ in range(3)]
        for thread in waiting:
            thread.start()
        time.sleep(0.1)
        self.assertEqual(daemon.get("/v1/jobs").status, 200)
        self.assertEqual(daemon.get("/v1/jobs", Authorization="").status, 401)
        self.assertTrue(any(thread.is_alive() for thread in waiting))
        for thread in waiting:
            thread.join()
        self.assertGreater(time.monotonic() - begun, 4.9)
        noted = wait_for("entries", lambda: sum(e["count"] for e in self.audit(outcome="unauthorized")) == 9 and self.audit(outcome="unauthorized"))
        self.assertLess(len(noted), 4)  # they are summed up
        self.assertEqual({(e["who"], e["peer"], e["target"]) for e in noted}, {(None, "127.0.0.1", None)})
        self.assertIn("refused: unauthorized, from 127.0.0.1", daemon.log())
        self.assertNotIn("guess-", daemon.log())

    def test_stops_while_answers_wait(self):
        """It does not wait for them, and has all that it answered in its audit."""
        daemon, answered = self.start(), []
        threads = [threading.Thread(target=self.refused, args=(answered,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_for("a note", lambda: "refused: unauthorized" in daemon.log())
        time.sleep(0.3)
        self.assertEqual(daemon.stop(), 0)
        for thread in threads:
            thread.join()
        connection = sqlite3.connect(os.path.join(daemon.state, "besad.db"))
        [(noted,)] = connection.execute("SELECT sum(count) FROM audit WHERE outcome = 'unauthorized'").fetchall()
        connection.close()
        self.assertIn(noted, range(max(1, len(answered)), len(threads) + 1))

    def refused(self, answered):
        try:
            answered.append(self.as_token("guess-0123456789", "GET", "/v1/jobs").status)
        except (AssertionError, OSError):
            pass  # it was stopped


class Audit(Access):
    def test_changes(self):
        daemon = self.start()
        running = self.long_job(output="long")
        wait_for("its start", lambda: daemon.job(running)["state"] == "running")
        job = self.as_token(BOB, "POST", "/v1/jobs", small_job(output="queued")).json["id"]
        for action in ("pause", "resume", "cancel", "retry", "cancel"):
            self.assertEqual(self.as_token(BOB, "POST", f"/v1/jobs/{job}/{action}").status, 200, action)
        self.says(self.as_token(BOB, "POST", f"/v1/jobs/{job}/pause"), 409, "wrong-state")
        self.says(self.as_token(BOB, "POST", "/v1/jobs", {"model": "small", "sparsity": 7}), 422, "invalid-spec")
        self.says(self.as_token(BOB, "POST", "/v1/jobs/" + 26 * "0" + "/cancel"), 404, "not-found")
        self.assertEqual(self.as_token(BOB, "DELETE", f"/v1/jobs/{job}").status, 204)
        mine = [(e["action"], e["target"], e["outcome"]) for e in reversed(self.audit(who="bob"))]
        self.assertEqual(mine, [("job.submit", job, "done"), ("job.pause", job, "done"), ("job.resume", job, "done"), ("job.cancel", job, "done"),
                                ("job.retry", job, "done"), ("job.cancel", job, "done"), ("job.pause", job, "wrong-state"),
                                ("job.submit", None, "invalid-spec"), ("job.cancel", 26 * "0", "not-found"), ("job.delete", job, "done")])
        study = daemon.request("POST", "/v1/studies", STUDY).json["id"]
        self.assertEqual(daemon.request("POST", f"/v1/studies/{study}/cancel").status, 200)
        self.assertEqual(daemon.request("DELETE", f"/v1/studies/{study}").status, 204)
        self.assertEqual([(e["action"], e["outcome"], e["count"]) for e in reversed(self.audit(target=study))],
                         [("study.submit", "done", 2), ("study.cancel", "done", 1), ("study.delete", "done", 1)])
        for _ in range(2):
            daemon.request("POST", "/v1/jobs", small_job(output="twice"), {"Idempotency-Key": "k"})
        self.assertEqual([e["outcome"] for e in self.audit(action="job.submit", who="alice")][:2], ["replayed", "done"])
        self.check_pages()
        daemon.kill()
        daemon.start("--token-file", self.tokens)
        self.assertEqual(len(self.audit(who="bob")), len(mine))

    def check_pages(self):
        whole = self.audit()
        pages, path = [], "/v1/audit?limit=4"
        while path:
            page = self.daemon.get(path).json
            pages += page["entries"]
            path = page["next"] and f"/v1/audit?limit=4&after={page['next']}"
        self.assertEqual(pages, whole)
        self.assertEqual([e["id"] for e in whole], sorted((e["id"] for e in whole), reverse=True))
        for query in ("limit=0", "after=x", "after=0", "who=bob"):
            self.says(self.daemon.get("/v1/audit?" + query), 400, "invalid-query")

    def test_gc(self):
        self.write(FILE)
        small_model(self.daemon, 60)
        self.daemon.token = ALICE
        self.daemon.start("--token-file", self.tokens, "--keep-failed", "1s")
        running = self.long_job(output="long")
        wait_for("its start", lambda: self.daemon.job(running)["state"] == "running")
        job = self.daemon.submit(small_job(output="other"))
        self.daemon.request("POST", f"/v1/jobs/{job}/cancel")
        time.sleep(1.1)
        self.assertEqual([r["job"] for r in self.daemon.request("POST", "/v1/gc").json["removals"]], [job])
        self.assertEqual([(e["target"], e["outcome"], e["who"]) for e in self.audit(action="gc")], [(job, "done", "alice")])

    def test_without_tokens(self):
        small_model(self.daemon, 1)
        self.daemon.start()
        job = self.daemon.submit(small_job())
        self.assertEqual([(e["who"], e["peer"], e["action"], e["target"]) for e in self.audit()], [(None, "127.0.0.1", "job.submit", job)])


class Quotas(Access):
    def test_quotas(self):
        daemon = self.start()
        running = self.long_job(output="long")
        wait_for("its start", lambda: daemon.job(running)["state"] == "running")
        jobs = [self.as_token(BOB, "POST", "/v1/jobs", small_job(output=f"b{i}")) for i in range(2)]
        self.assertEqual([j.status for j in jobs], [201, 201])
        full = self.says(self.as_token(BOB, "POST", "/v1/jobs", small_job(output="b2")), 429, "quota-queued")
        self.assertIn("'bob' may have 2 jobs that are queued or paused", full.json["detail"])
        self.assertGreater(int(full.headers["Retry-After"]), 0)
        self.says(self.as_token(BOB, "POST", "/v1/studies", STUDY), 429, "quota-queued")
        first = jobs[0].json["id"]
        self.as_token(BOB, "POST", f"/v1/jobs/{first}/cancel")
        self.assertEqual(self.as_token(BOB, "POST", "/v1/jobs", small_job(output="b3")).status, 201)
        self.says(self.as_token(BOB, "POST", f"/v1/jobs/{first}/retry"), 429, "quota-queued")
        for job in self.as_token(BOB, "GET", "/v1/jobs?state=queued").json["jobs"]:
            self.as_token(BOB, "POST", f"/v1/jobs/{job['id']}/cancel")
            self.as_token(BOB, "DELETE", f"/v1/jobs/{job['id']}")
        self.assertEqual(self.as_token(BOB, "POST", "/v1/studies", STUDY).status, 201)
        spent = self.says(self.as_token(BOB, "POST", "/v1/jobs", small_job(output="b4")), 429, "quota-day")
        self.assertIn("'bob' may submit 5 jobs in 24 hours", spent.json["detail"])
        self.assertGreater(int(spent.headers["Retry-After"]), 23 * 3600)
        self.assertLessEqual(int(spent.headers["Retry-After"]), 24 * 3600 + 1)
        self.assertEqual(daemon.request("POST", "/v1/jobs", small_job(output="a")).status, 201)
        self.assertEqual([e["outcome"] for e in self.audit(who="bob", target=None)], ["quota-day", "quota-queued", "quota-queued"])

    def test_bytes(self):
        """What is expected of jobs that have not ended, and what those that have hold, also when they are forgotten."""
        daemon = self.daemon
        small_model(daemon, 2)
        size = os.path.getsize(os.path.join(daemon.models, "small", "model.safetensors"))
        self.write(f"bob submit {BOB} max-bytes={5 * size // 2}\nalice admin {ALICE}\n")
        daemon.token = ALICE
        daemon.start("--token-file", self.tokens)
        daemon.request("POST", "/v1/drain")
        study = {"name": "three", "spec": {"model": "small", "method": "magnitude"}, "grid": {"sparsity": [0.4, 0.5, 0.6]}}
        self.says(self.as_token(BOB, "POST", "/v1/studies", study), 429, "quota-bytes")
        self.assertEqual(daemon.get("/v1/jobs").json["jobs"], [])  # all or none
        jobs = [self.as_token(BOB, "POST", "/v1/jobs", small_job(method="magnitude", output=f"b{i}")) for i in range(2)]
        self.assertEqual([j.status for j in jobs], [201, 201])
        full = self.says(self.as_token(BOB, "POST", "/v1/jobs", small_job(output="b2")), 429, "quota-bytes")
        self.assertIn(f"'bob' may hold {5 * size // 2} bytes (max-bytes)", full.json["detail"])
        self.assertIn(f"expected to take {2 * size}, and this one {size}", full.json["detail"])
        self.assertGreater(int(full.headers["Retry-After"]), 0)
        daemon.request("POST", "/v1/undrain")
        for job in jobs:
            self.assertEqual(daemon.finish(job.json["id"])["state"], "succeeded")
            self.as_token(BOB, "DELETE", "/v1/jobs/" + job.json["id"])
        held = self.says(self.as_token(BOB, "POST", "/v1/jobs", small_job(output="b2")), 429, "quota-bytes").json["detail"]
        taken = int(held.partition("left, take ")[2].partition(",")[0])
        self.assertGreaterEqual(taken, 2 * size)
        self.assertIn("expected to take 0, and this one", held)
        self.assertEqual(daemon.request("POST", "/v1/jobs", small_job(output="a", method="magnitude")).status, 201)
        # What is not there now, as on a disk that is not mounted, counts again when it is.
        for name in ("b0", "b1"):
            os.rename(os.path.join(daemon.output, name), os.path.join(daemon.directory, name))
        meanwhile = self.as_token(BOB, "POST", "/v1/jobs", small_job(output="b3", besa={"epochs": 100}))
        self.assertEqual(meanwhile.status, 201, meanwhile.body)
        self.as_token(BOB, "POST", f"/v1/jobs/{meanwhile.json['id']}/cancel")
        daemon.finish(meanwhile.json["id"])
        self.as_token(BOB, "DELETE", "/v1/jobs/" + meanwhile.json["id"])
        for name in ("b0", "b1"):
            os.rename(os.path.join(daemon.directory, name), os.path.join(daemon.output, name))
        self.says(self.as_token(BOB, "POST", "/v1/jobs", small_job(output="b2")), 429, "quota-bytes")
        shutil.rmtree(os.path.join(daemon.output, "b0"))
        again = self.as_token(BOB, "POST", "/v1/jobs", small_job(output="b2", sparsity=0.5, besa={"epochs": 100}))
        self.assertEqual(again.status, 201, again.body)
        self.assertEqual(self.as_token(BOB, "POST", f"/v1/jobs/{again.json['id']}/cancel").status, 200)
        daemon.finish(again.json["id"])
        self.assertEqual(self.as_token(BOB, "POST", f"/v1/jobs/{again.json['id']}/retry").status, 200)  # it does not count twice

    def test_bytes_of_what_is_left(self):
        """Of a job that failed counts what it left, but not for its own retry; and of an output that lies in another, what that takes."""
        daemon = self.daemon
        small_model(daemon, 2)
        size = os.path.getsize(os.path.join(daemon.models, "small", "model.safetensors"))
        self.write(f"bob submit {BOB} max-bytes={6 * size}\nalice admin {ALICE}\n")
        daemon.token = ALICE
        daemon.start("--token-file", self.tokens, "--checkpoint-every", "0")
        for output in ("a", "a/inside"):
            job = self.as_token(BOB, "POST", "/v1/jobs", small_job(method="magnitude", output=output))
            self.assertEqual(daemon.finish(job.json["id"])["state"], "succeeded")
        held = sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(os.path.join(daemon.output, "a")) for name in names)
        small_model(daemon, 16, "large")

        def taken():
            said = self.says(self.as_token(BOB, "POST", "/v1/jobs", small_job(method="magnitude", model="large", output="c")), 429, "quota-bytes")
            return int(said.json["detail"].partition("left, take ")[2].partition(",")[0])
        self.assertLess(abs(taken() - held), held // 4)
        self.assertGreater(taken(), 2 * size)
        before = taken()
        job = self.as_token(BOB, "POST", "/v1/jobs", small_job(output="b", timeout_seconds=0.5, besa={"epochs": 100}))
        self.assertEqual(job.status, 201, job.body)
        job = job.json["id"]
        self.assertEqual(daemon.finish(job)["error"]["code"], "timeout")
        left = sum(os.path.getsize(os.path.join(path, name)) for directory in (os.path.join(daemon.state, "jobs", job), os.path.join(daemon.output, ".besad-" + job))
                   for path, _, names in os.walk(directory) for name in names)
        self.assertGreater(left, 0)
        self.assertGreaterEqual(taken() - before, left)
        self.assertEqual(self.as_token(BOB, "POST", f"/v1/jobs/{job}/retry").status, 200)
        daemon.request("POST", f"/v1/jobs/{job}/cancel")
        daemon.finish(job)


if __name__ == "__main__":
    unittest.main()
