#!/usr/bin/env python3
"""What besad does when the machine under it fails: it is killed again and again, its disk is full, its database is locked, descriptors run out."""
import json
import os
import re
import signal
import socket
import sqlite3
import unittest

from support import PATIENCE, Daemon, faults, sanitized, small_job, small_model, wait_for


class Faults(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "1"))
        self.addCleanup(self.daemon.remove)

    def faults(self, directory, at, kind):
        return faults(self, [directory], self.path("faults"), at, kind)

    def full_disk(self, spare=None):
        """An environment in which the disk of the state directory can be filled (fill), up to the file `spare` there."""
        environment = {**self.faults(self.daemon.state, 0, ""), "FAULT_FULL": self.path("full"), "FAULT_FREE": self.path("free")}
        return {**environment, "FAULT_SPARE": os.path.join(self.daemon.state, spare)} if spare else environment

    def path(self, name):
        return os.path.join(self.daemon.directory, name)

    def fill(self, name, text=""):
        with open(self.path(name) + ".new", "w") as file:
            file.write(text)
        os.rename(self.path(name) + ".new", self.path(name))

    def ready(self):
        answer = self.daemon.get("/readyz")
        return answer.status, answer.json.get("detail", "")

    def refused(self, response, status, slug):
        self.assertEqual((response.status, response.json["type"]), (status, "urn:besad:problem:" + slug), response.body)
        self.assertGreater(int(response.headers["Retry-After"]), 0)

    def wait_for_block(self, job):
        wait_for("a finished block", lambda: any(e["type"] == "block.finished" for e in self.daemon.events(job)))

    def written(self, job):
        """Has the job told the end of each block that it began? Then no block's files are under way."""
        types = [event["type"] for event in self.daemon.events(job)]
        return types.count("block.started") == types.count("block.finished")

    def begun(self, output):
        """A job of 40 blocks that has finished one."""
        small_model(self.daemon, 40)
        job = self.daemon.submit(small_job(output=output, progress={"perplexity_every": 0}))
        self.wait_for_block(job)
        return job

    def wait_for_death(self):
        self.assertEqual(self.daemon.process.wait(PATIENCE), -signal.SIGKILL)

    def test_a_disk_that_cannot_be_read(self):
        """A model or a text that cannot be looked at now is no mistake of the client's, who may try again."""
        daemon = self.daemon
        small_model(daemon, 1)
        for directory in (daemon.models, daemon.data):
            answers = []
            for n in range(1, 20):
                daemon.start(environment={**self.faults(directory, n, "EIO"), "FAULT_READS": "1"})
                answer = daemon.post("/v1/estimate", small_job(method="wanda"))
                daemon.stop()
                if answer.status == 200:
                    break
                self.refused(answer, 503, "io")
                self.assertIn("Input/output error", answer.json["detail"])
                self.assertNotIn(daemon.directory, answer.body.decode())
                answers.append(answer)
            self.assertEqual(answer.status, 200)
            self.assertTrue(answers)

    def test_a_job_that_kills_besad_is_given_up(self):
        daemon = self.daemon.start("--max-attempts", "2")
        small_model(daemon)
        daemon.stop()
        # Of a job's calls the third below the checkpoints: its own directory is there, no block is.
        deadly = self.faults(os.path.join(daemon.state, "jobs"), 3, "kill")
        daemon.start("--max-attempts", "2", environment=deadly)
        try:
            daemon.submit(small_job(output="deadly", priority=1))
        except AssertionError:
            pass  # it died before it answered
        self.wait_for_death()
        daemon.start("--max-attempts", "2", environment=deadly, ready=False)
        self.wait_for_death()

        daemon.start("--max-attempts", "2")
        [given_up] = daemon.get("/v1/jobs").json["jobs"]
        job = given_up["id"]
        self.assertEqual((given_up["state"], given_up["error"]["code"], given_up["attempt"]), ("failed", "crashed", 2))
        self.assertIn("2 times in a row", given_up["error"]["message"])
        self.assertEqual([e["type"] for e in daemon.events(job)][-1], "job.failed")
        other = daemon.submit(small_job(output="other"))
        self.assertEqual(daemon.finish(other)["state"], "succeeded")
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
        self.assertEqual(daemon.finish(job)["state"], "succeeded")

    def test_below_the_watermark_jobs_wait(self):
        daemon = self.daemon.start(environment=self.full_disk())
        job = self.begun("waits")
        self.fill("free", "1000000")
        wait_for("a job that waits", lambda: daemon.job(job)["progress"]["phase"] == "waiting for space")
        status, why = wait_for("it to be told", lambda: (r := self.ready())[0] == 503 and r)
        self.assertRegex(why, "free for the state directory.*--min-free")
        self.assertNotIn(daemon.directory, why)
        self.assertEqual(daemon.get("/healthz").status, 200)
        self.refused(daemon.request("POST", "/v1/jobs", small_job(output="more")), 507, "no-space")
        os.unlink(self.path("free"))
        self.assertEqual(daemon.finish(job)["state"], "succeeded")
        self.assertEqual(wait_for("readiness", lambda: (r := self.ready())[0] == 200 and r), (200, ""))

    def test_a_job_that_waits_for_room_is_stopped_and_cancelled(self):
        daemon = self.daemon.start(environment=self.full_disk())
        job = self.begun("waits")
        self.fill("free", "1000000")
        wait_for("a job that waits", lambda: daemon.job(job)["progress"]["phase"] == "waiting for space")
        self.assertEqual(daemon.stop(), 0)
        daemon.start(environment=self.full_disk(), ready=False)
        self.daemon.wait_for_port()
        wait_for("it to be told", lambda: self.ready()[0] == 503)
        queued = daemon.job(job)
        self.assertEqual(queued["state"], "queued")
        self.assertNotEqual(queued["progress"]["phase"], "waiting for space")
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/cancel").json["state"], "cancelled")
        self.refused(daemon.request("POST", f"/v1/jobs/{job}/retry"), 507, "no-space")
        self.assertEqual(daemon.request("DELETE", f"/v1/jobs/{job}").status, 204)

    def test_on_a_full_disk_the_ballast_lets_jobs_end(self):
        daemon = self.daemon.start(environment=self.full_disk("ballast"))
        small_model(daemon, 40)
        ended = daemon.submit(small_job(output="ended", model="small", method="magnitude"))
        self.assertEqual(daemon.finish(ended)["state"], "succeeded")
        job = daemon.submit(small_job(output="cancelled", progress={"perplexity_every": 0}))
        waits = daemon.submit(small_job(output="waits"))
        self.wait_for_block(job)
        self.fill("free", "0")
        wait_for("a job that waits", lambda: daemon.job(job)["progress"]["phase"] == "waiting for space" and self.written(job))
        self.fill("full")
        answer = daemon.request("POST", f"/v1/jobs/{job}/cancel")
        self.assertIn(answer.json.get("state"), ("cancelling", "cancelled"), answer.body)
        self.assertEqual(daemon.finish(job)["state"], "cancelled")
        self.assertFalse(os.path.exists(os.path.join(daemon.state, "ballast")))
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{waits}/cancel").json["state"], "cancelled")
        self.assertEqual(daemon.request("DELETE", f"/v1/jobs/{ended}").status, 204)
        os.unlink(self.path("full")), os.unlink(self.path("free"))
        wait_for("the ballast", lambda: os.path.exists(os.path.join(daemon.state, "ballast")))

    def test_a_job_that_fails_while_it_is_cancelled_is_cancelled(self):
        daemon = self.daemon.start(environment=self.full_disk("ballast"))
        job = self.begun("both")
        with sqlite3.connect(os.path.join(daemon.state, "besad.db"), timeout=PATIENCE) as database:  # the worker does not hear of it
            database.execute("UPDATE jobs SET state = 'cancelling' WHERE id = ?", (job,))
        database.close()
        self.fill("full")
        self.assertEqual(daemon.finish(job)["state"], "cancelled")
        self.assertRegex(daemon.log(), f"job={job} failed while it was cancelled code=no_space")

    def test_with_no_room_at_all_a_job_waits_and_goes_on(self):
        daemon = self.daemon.start(environment=self.full_disk())
        job = self.begun("waits")
        self.fill("full")
        wait_for("a job that cannot tell", lambda: "trying on" in daemon.log() or daemon.job(job)["state"] == "failed")
        wait_for("it to be told", lambda: self.ready()[0] == 503)
        self.refused(daemon.request("POST", "/v1/jobs", small_job(output="more")), 507, "no-space")
        self.assertEqual(daemon.get("/healthz").status, 200)
        os.unlink(self.path("full"))
        done = daemon.finish(job)
        if done["state"] == "failed":  # the block's files met it first
            self.assertEqual(done["error"]["code"], "no_space")
            self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
            done = daemon.finish(job)
        self.assertEqual(done["state"], "succeeded")
        blocks = [e["data"]["block"] for e in daemon.events(job) if e["type"] == "block.finished"]
        self.assertEqual(blocks, list(range(40)))

    def test_with_no_room_to_recover_it_can_be_read(self):
        daemon = self.daemon.start(environment=self.full_disk())
        job = self.begun("killed")
        daemon.kill()
        self.fill("full")
        daemon.start(environment=self.full_disk(), ready=False)
        self.daemon.wait_for_port()
        self.assertEqual((daemon.job(job)["state"], self.ready()[0]), ("running", 503))
        self.assertEqual(daemon.get("/v1/jobs").status, 200)
        self.refused(daemon.request("POST", "/v1/jobs", small_job(output="more")), 507, "no-space")
        os.unlink(self.path("full"))
        self.assertEqual(daemon.finish(job)["state"], "succeeded")
        self.assertEqual(wait_for("readiness", lambda: (r := self.ready())[0] == 200 and r), (200, ""))
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual(daemon.job(job)["state"], "succeeded")

    def test_a_root_that_is_gone_is_told(self):
        daemon = self.daemon.start()
        os.rename(daemon.output, daemon.output + ".gone")
        status, why = wait_for("it to be told", lambda: (r := self.ready())[0] == 503 and r)
        self.assertIn("the output root cannot be written to", why)
        os.rename(daemon.output + ".gone", daemon.output)
        wait_for("readiness", lambda: self.ready()[0] == 200)

    # ---- growth ----

    def held(self):
        return float(re.search(r"(?m)^besad_ended_jobs_held_bytes (.*)$", self.daemon.get("/metrics").body.decode())[1])

    def test_the_state_is_nobody_elses(self):
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.daemon.start()
        self.assertEqual(os.stat(self.daemon.state).st_mode & 0o777, 0o700)
        self.daemon.stop()
        os.chmod(self.daemon.state, 0o750)
        self.daemon.start()
        self.assertEqual(os.stat(self.daemon.state).st_mode & 0o777, 0o750)

    def test_jobs_that_ended_are_forgotten_by_the_rule(self):
        daemon = self.daemon.start()
        small_model(daemon, 40)
        done = daemon.submit(small_job(output="done", method="magnitude"))
        self.assertEqual(daemon.finish(done)["state"], "succeeded")
        job = daemon.submit(small_job(output="cancelled", progress={"perplexity_every": 0}))
        self.wait_for_block(job)
        daemon.request("POST", f"/v1/jobs/{job}/cancel")
        self.assertEqual(daemon.finish(job)["state"], "cancelled")
        held = [os.path.join(daemon.state, "jobs", job), os.path.join(daemon.output, f".besad-{job}")]
        self.assertTrue(all(map(os.path.exists, held)))
        daemon.stop()

        daemon.start("--keep-failed", "1000d", "--keep-succeeded", "1000d")
        last = daemon.submit(small_job(output="last", method="magnitude"))  # the rule has been heeded before it begins
        self.assertEqual(daemon.finish(last)["state"], "succeeded")
        self.assertEqual({j["id"] for j in daemon.get("/v1/jobs").json["jobs"]}, {done, job, last})
        self.assertGreater(wait_for("what is held", self.held), 10000)
        daemon.stop()
        daemon.start("--keep-failed", "0")
        wait_for("the end of what failed", lambda: not any(map(os.path.exists, held)))
        wait_for("nothing held", lambda: self.held() == 0)
        self.assertEqual(daemon.get(f"/v1/jobs/{job}").status, 404)
        self.assertEqual(daemon.job(done)["state"], "succeeded")
        daemon.stop()
        daemon.start("--keep-succeeded", "0")
        wait_for("the end of the rest", lambda: not daemon.get("/v1/jobs").json["jobs"])
        self.assertEqual(sorted(os.listdir(daemon.output)), ["done", "last"])

    # ---- load ----

    def test_idle_connections_leave_descriptors_for_a_job(self):
        daemon = self.daemon.start(descriptors=256)
        self.assertRegex(daemon.log(), "at most 192 connections at once: only 256 descriptors")
        small_model(daemon)
        limits = daemon.get("/v1/info").json["limits"]
        self.assertEqual((limits["connections"], limits["streams"]), (192, 168))
        job = daemon.submit(small_job(output="beside", progress={"perplexity_every": 0}))
        idle = [socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) for _ in range(300)]
        opened = os.path.join("/proc", str(daemon.process.pid), "fd")
        wait_for("the connections", lambda: len(os.listdir(opened)) > 150)
        wait_for("the output", lambda: os.path.exists(os.path.join(daemon.output, "beside")))
        for connection in idle:
            connection.close()
        wait_for("their end", lambda: len(os.listdir(opened)) < 100)
        self.assertEqual(daemon.finish(job)["state"], "succeeded")

    def test_downloads_leave_descriptors_for_a_job(self):
        daemon = self.daemon.start()
        small_model(daemon)
        job = daemon.submit(small_job(output="large", method="magnitude"))
        self.assertEqual(daemon.finish(job)["state"], "succeeded")
        report, size = os.path.join(daemon.output, "large", "besad.json"), 1 << 30
        with open(report) as file:
            told = json.load(file)
        told["artifacts"].append({"name": "hole", "bytes": size, "sha256": "0" * 64})
        with open(report, "w") as file:
            json.dump(told, file)
        with open(os.path.join(daemon.output, "large", "hole"), "wb") as file:
            file.truncate(size)

        def ask():
            client = socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE)
            self.addCleanup(client.close)
            client.sendall(f"GET /v1/jobs/{job}/artifacts/hole HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            return client, client.recv(12)
        clients = [ask() for _ in range(24)]  # each reads no more than that
        self.assertEqual({answer for _, answer in clients}, {b"HTTP/1.1 200"})
        self.refused(daemon.get(f"/v1/jobs/{job}/artifacts/hole"), 503, "too-many-downloads")
        clients[0][0].close()
        wait_for("room for another", lambda: ask()[1] == b"HTTP/1.1 200")

    def tell(self, events, size):
        """A job that has succeeded, and then told of so many warnings of that size; and how many events it has. besad does not run meanwhile."""
        daemon = self.daemon.start()
        small_model(daemon)
        job = daemon.submit(small_job(output="told", method="magnitude"))
        self.assertEqual(daemon.finish(job)["state"], "succeeded")
        daemon.stop()
        database = sqlite3.connect(os.path.join(daemon.state, "besad.db"))
        with database:
            [last] = database.execute("SELECT last_event FROM jobs").fetchone()
            for n in range(events):
                database.execute("INSERT INTO events VALUES (?, ?, 'warning', 1, json_object('message', ?))", (job, last + 1 + n, "x" * size))
            database.execute("UPDATE jobs SET last_event = last_event + ?", (events,))
        database.close()
        daemon.start()
        return job, last + events

    def test_many_streams_of_large_events_leave_others_alone(self):
        """Each stream is behind by all events; what besad takes for them is bounded by the stream."""
        daemon = self.daemon
        job, events = self.tell(200, 10000)

        def memory():
            with open(f"/proc/{daemon.process.pid}/status") as file:
                return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024
        before, streams = memory(), []
        request = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode()
        for _ in range(300):
            streams.append(socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE))
            streams[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            streams[-1].sendall(request)
        wait_for("the streams", lambda: "besad_sse_clients 300" in daemon.get("/metrics").body.decode())
        if not sanitized():  # they keep for a while what was freed, and more beside it
            self.assertLess(memory() - before, 100)
        for stream in streams[1:]:
            stream.close()
        whole = b""
        while b"event: end" not in whole[-200:]:
            whole += streams[0].recv(1 << 20)
        self.assertEqual(whole.count(b"\nid: ") + whole.startswith(b"id: "), events)
        streams[0].close()

    def test_pages_are_bounded_in_bytes(self):
        daemon = self.daemon
        job, events = self.tell(12, 1000000)
        page = daemon.get(f"/v1/jobs/{job}/events?limit=1000")
        self.assertLess(len(page.body), 8 << 20)
        self.assertEqual([e["id"] for e in daemon.events(job)], list(range(1, events + 1)))

    # ---- requests ----

    def raw(self, text):
        """The status of what is answered to these bytes."""
        with socket.create_connection(("127.0.0.1", self.daemon.port), timeout=PATIENCE) as connection:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return int(answer.split()[1]) if answer else 0

    def test_requests_that_can_be_read_in_two_ways(self):
        self.daemon.start()
        host = f"127.0.0.1:{self.daemon.port}".encode()

        def post(*headers, version=b"1.1", body=b"{}"):
            return self.raw(b"POST /v1/jobs HTTP/" + version + b"\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body)
        self.assertEqual(post(b"Host: " + host, b"Content-Length: 2"), 422)
        chunked = b"2\r\n{}\r\n0\r\n\r\n"
        self.assertEqual(post(b"Host: " + host, b"Transfer-Encoding: chunked", body=chunked), 422)
        self.assertEqual(post(b"Host:" + host, b"X:", b"Y: \t a  ", b"Content-Length:  2"), 422)
        for headers in ([b"Host: " + host, b"Host: " + host, b"Content-Length: 2"], [b"Content-Length: 2"],
                        [b"Host: " + host + b"\0.example", b"Content-Length: 2"], [b"Host: " + host + b"\0", b"Content-Length: 2"],
                        [b"Host: " + host, b"X: \0a", b"Content-Length: 2"], [b"Host: " + host, b"Content-Length: 2\0" + b"3"],
                        [b"Host: " + host, b"Content-Length: 2", b"X: a\r\n b"], [b"Host: " + host, b"X: a\r\n b", b"Content-Length: 2"],
                        [b"Host: " + host, b"Content-Length: 2", b"Content-Length: 2"],
                        [b"Host: " + host, b"Content-Length: 2", b"Content-Length: 3"],
                        [b"Host: " + host, b"Content-Length : 2"],
                        [b"Host : " + host, b"Content-Length: 2"], [b"Host: " + host, b"Content-Length: 2", b"X(): a"],
                        [b"Host: " + host, b"Content-Length: 2", b"Transfer-Encoding: chunked"]):
            body = chunked if headers[-1].startswith(b"Transfer") else b"{}"
            with self.subTest(headers):
                self.assertIn(post(*headers, body=body), (0, 400))
        self.assertEqual(post(b"Content-Length: 2", version=b"1.0"), 422)
        self.assertIn(post(b"Content-Length: 2", version=b"1.0\0"), (0, 400))

    def test_pages_of_other_sites(self):
        daemon = self.daemon.start()
        answer = daemon.request("POST", "/v1/jobs", {}, {"Sec-Fetch-Site": "cross-site"})
        self.assertEqual((answer.status, answer.json["type"]), (403, "urn:besad:problem:forbidden-origin"))
        self.assertEqual(daemon.request("POST", "/v1/jobs", {}, {"Sec-Fetch-Site": "same-origin"}).status, 422)
        self.assertEqual(daemon.get("/v1/jobs", Sec_Fetch_Site="cross-site").status, 200)

    def test_problems_are_utf8(self):
        daemon = self.daemon.start()
        for path in ("/v1/jobs?%ff=1", "/v1/jobs?state=%ff", "/%ff%fe", "/v1/jobs/%ff/events", "/v1/jobs?after=%c3"):
            with self.subTest(path):
                answer = daemon.get(path)
                self.assertIn(answer.status, (400, 404))
                answer.body.decode()
        answer = daemon.request("POST", "/v1/jobs", b'{"mod\xffel": 1}', {"Content-Type": "application/json"})
        self.assertIn(answer.status, (400, 422))
        answer.body.decode()

    def test_keys_in_another_order_are_the_same_request(self):
        daemon = self.daemon.start()
        small_model(daemon)
        spec = small_job(output="once", method="magnitude", progress={"perplexity_every": 0})
        turned = {k: dict(reversed(v.items())) if isinstance(v, dict) else v for k, v in reversed(spec.items())}
        first, again = (daemon.request("POST", "/v1/jobs", s, {"Idempotency-Key": "one"}) for s in (spec, turned))
        self.assertEqual((first.status, again.status, first.json["id"]), (201, 201, again.json["id"]))
        other = daemon.request("POST", "/v1/jobs", dict(spec, sparsity=0.6), {"Idempotency-Key": "one"})
        self.assertEqual(other.status, 422)
        self.assertEqual(daemon.finish(first.json["id"])["state"], "succeeded")

    def failed_once(self, *options):
        """A job whose first attempt cannot write its checkpoint; it has failed, or is to be tried again."""
        daemon = self.daemon.start()
        small_model(daemon)
        daemon.stop()
        daemon.start(*options, environment=self.faults(os.path.join(daemon.state, "jobs"), 3, "EIO"))
        job = daemon.submit(small_job(output="again"))
        wait_for("a failure", lambda: [e for e in daemon.events(job) if e["type"] in ("job.queued", "job.failed")][1:])
        return job

    def test_a_failure_that_passes_is_tried_again(self):
        job = self.failed_once("--retry-failed", "1", "--retry-after", "1s")
        done = self.daemon.finish(job)
        self.assertEqual((done["state"], done["attempt"], done["retry_at"]), ("succeeded", 2, None), done)
        again = [e["data"] for e in self.daemon.events(job) if e["type"] == "job.queued"][1]
        self.assertEqual((again["reason"], again["code"]), ("failed", "io"))
        self.assertNotIn(self.daemon.directory, again["message"])
        self.assertRegex(self.daemon.log(), f"job={job} failed code=io, again in [01] s")

    def test_a_failed_job_waits_through_a_restart(self):
        options = ("--retry-failed", "1", "--retry-after", "1d")
        job = self.failed_once(*options)
        daemon, waits = self.daemon, self.daemon.job(job)
        self.assertEqual((waits["state"], waits["attempt"], waits["error"]), ("queued", 1, None))
        self.assertGreater(waits["retry_at"], waits["created_at"])
        self.assertEqual(daemon.events(job)[-1]["data"]["retry_at"], waits["retry_at"])
        self.assertEqual(daemon.stop(), 0)
        daemon.start(*options)
        other = daemon.submit(small_job(output="other", method="magnitude"))
        self.assertEqual(daemon.finish(other)["state"], "succeeded")
        self.assertEqual(daemon.job(job), waits)
        cancelled = daemon.request("POST", f"/v1/jobs/{job}/cancel").json
        self.assertEqual((cancelled["state"], cancelled["retry_at"]), ("cancelled", None))
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
        self.assertEqual(daemon.finish(job)["state"], "succeeded")

    def check_damage(self, file, event, **spec):
        """A job that is paused behind an event of that type, and has kept a file of that name: one that is torn or changed is not gone on from."""
        job = self.daemon.submit(small_job(output=file, **spec))
        wait_for(event, lambda: any(e["type"] == event for e in self.daemon.events(job)))
        self.act(job, "pause")
        wait_for("its pause", lambda: self.daemon.job(job)["state"] == "paused")
        directory = os.path.join(self.daemon.state, "jobs", job)
        [name] = [name for name in os.listdir(directory) if name.startswith(file) and not name.endswith(".tmp")]
        path = os.path.join(directory, name)
        with open(path, "rb") as whole:
            good = whole.read()
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 1
        for bad, code, why in ((bytes(flipped), "invalid", "is damaged: its checksum"), (good[:-100], None, "")):
            with open(path, "wb") as torn:
                torn.write(bad)
            self.act(job, "resume" if bad == flipped else "retry")
            failed = self.daemon.finish(job)
            self.assertEqual(failed["state"], "failed")
            self.assertEqual(failed["error"]["code"], code or failed["error"]["code"])
            self.assertRegex(failed["error"]["message"], f"{name}.*{why}")
        with open(path, "wb") as whole:
            whole.write(good)
        self.act(job, "retry")
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")

    def act(self, job, action):
        answer = self.daemon.request("POST", f"/v1/jobs/{job}/{action}")
        self.assertEqual(answer.status, 200, answer.body)

    def test_a_checkpoint_that_was_changed_is_not_gone_on_from(self):
        small_model(self.daemon.start(), 12)
        self.check_damage("hidden", "block.finished", progress={"perplexity_every": 0})

    def test_a_savepoint_that_was_changed_is_not_gone_on_from(self):
        small_model(self.daemon.start(), 12)
        self.check_damage("savepoint", "block.finished", progress={"perplexity_every": 0})

    def test_the_state_of_a_tune_that_was_changed_is_not_gone_on_from(self):
        small_model(self.daemon.start(), 2)
        self.check_damage("tune", "tune.step", method="wanda", progress={"perplexity_every": 0},
                          refit={"method": "global", "batch_size": 2, "epochs": 1, "global_epochs": 8})

    def test_weights_before_their_rounding_that_were_changed_are_not_tuned(self):
        small_model(self.daemon.start(), 12)
        job = self.daemon.submit(small_job(method="wanda", progress={"perplexity_every": 0}, quantization={"bits": 4},
                                           refit={"method": "global", "batch_size": 2, "epochs": 1}))
        wait_for("a block", lambda: any(e["type"] == "block.finished" for e in self.daemon.events(job)))
        self.act(job, "pause")
        wait_for("its pause", lambda: self.daemon.job(job)["state"] == "paused")
        path = os.path.join(self.daemon.state, "jobs", job, "latents.bin")

        def flip():
            with open(path, "r+b") as file:
                file.seek(1000)
                [byte] = file.read(1)
                file.seek(1000)
                file.write(bytes([byte ^ 1]))

        flip()
        self.act(job, "resume")
        failed = self.daemon.finish(job)
        self.assertEqual((failed["state"], failed["error"]["code"]), ("failed", "invalid"))
        self.assertRegex(failed["error"]["message"], "latents.bin: is damaged: the checksum of block 0")
        flip()
        self.act(job, "retry")
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        self.assertFalse(os.path.exists(path))

    def test_errors_do_not_tell_where_things_are(self):
        daemon = self.daemon.start()
        small_model(daemon)
        daemon.stop()
        daemon.start(environment=self.faults(os.path.join(daemon.state, "jobs"), 3, "EIO"))
        error = daemon.finish(daemon.submit(small_job(output="broken")))["error"]
        self.assertEqual(error["code"], "io")
        self.assertNotIn(daemon.directory, error["message"])
        self.assertIn(os.path.join(daemon.state, "jobs"), daemon.log())
        daemon.stop()
        daemon.start(environment={**self.faults(daemon.output, 0, ""), "FAULT_FULL": self.path("full")})
        self.fill("full")
        refused = daemon.request("POST", "/v1/jobs", small_job(output="refused"))
        self.refused(refused, 507, "no-space")
        self.assertNotIn(daemon.directory.encode(), refused.body)

    # ---- the database ----

    def lock(self, mode):
        connection = sqlite3.connect(os.path.join(self.daemon.state, "besad.db"), isolation_level=None)
        connection.execute(f"BEGIN {mode}")
        self.addCleanup(connection.close)
        return connection

    def test_a_locked_database_holds_up_and_fails_nothing(self):
        daemon = self.daemon.start()
        job = self.begun("waits")
        lock = self.lock("IMMEDIATE")
        self.refused(daemon.request("POST", "/v1/jobs", small_job(output="more")), 503, "busy")
        wait_for("a job that cannot tell", lambda: "trying on" in daemon.log())
        wait_for("it to be told", lambda: "locked" in self.ready()[1])
        lock.execute("ROLLBACK")
        done = daemon.finish(job)
        self.assertEqual((done["state"], done["attempt"]), ("succeeded", 1))
        wait_for("readiness", lambda: self.ready()[0] == 200)

    def test_a_stop_while_the_database_is_locked(self):
        daemon = self.daemon.start("--max-attempts", "1")
        job = self.begun("waits")
        lock = self.lock("IMMEDIATE")
        wait_for("a job that cannot tell", lambda: "trying on" in daemon.log())
        # As if the attempt had only begun, so that it would be given up were it taken for a crash.
        lock.execute("UPDATE jobs SET last_event = last_event + 1")
        lock.execute("INSERT INTO events SELECT id, last_event, 'job.started', 1, '{}' FROM jobs")
        self.assertEqual(daemon.stop(), 0)
        lock.execute("COMMIT")
        daemon.start("--max-attempts", "1")
        self.assertEqual(daemon.finish(job)["state"], "succeeded")

    def test_an_end_that_was_written_late_is_told(self):
        """A job that was being cancelled when besad was killed, and the database is locked when it starts again."""
        told, program = self.path("told"), self.path("program")
        with open(program, "w") as file:
            file.write(f'#!/bin/sh\necho "$1 $2" >{told}\n')
        os.chmod(program, 0o700)
        daemon = self.daemon.start()
        job = self.begun("cancelled")
        daemon.kill()
        with sqlite3.connect(os.path.join(daemon.state, "besad.db")) as database:
            database.execute("UPDATE jobs SET state = 'cancelling'")
        database.close()
        lock = self.lock("IMMEDIATE")
        daemon.start("--on-finish", program, ready=False)
        daemon.wait_for_port()
        self.assertEqual(daemon.job(job)["state"], "cancelling")
        lock.execute("ROLLBACK")
        self.assertEqual(daemon.finish(job)["state"], "cancelled")
        wait_for("it to be told", lambda: os.path.exists(told) and os.path.getsize(told))
        with open(told) as file:
            self.assertEqual(file.read(), f"{job} cancelled\n")


if __name__ == "__main__":
    unittest.main()
