#!/usr/bin/env python3
"""Who is told of a job's end: a web address, signed, again until it answers, after a restart too; and the operator's program."""
import hashlib
import hmac
import http.server
import json
import os
import socket
import sqlite3
import threading
import unittest

from support import Daemon, small_job, small_model, wait_for

KEY = "a-key-for-signatures"


class Listener:
    """A web server that keeps what is posted to it, with the status that it answered: `status`."""

    def __init__(self):
        self.requests, self.status = [], 204
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.status
                outer.requests.append((self.path, dict(self.headers), body, status))
                self.send_response(status)
                text = b"" if status == 204 else b"what it says is not read"
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *arguments):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/told?x=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Silence:
    """A server that takes connections and never answers. `overlap`: one came before the one in front of it was given up."""

    def __init__(self):
        self.connections, self.overlap = [], False
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        try:
            while True:
                connection, _ = self.socket.accept()
                self.overlap |= any(map(self.is_open, self.connections))
                self.connections.append(connection)
        except OSError:
            pass  # closed

    @staticmethod
    def is_open(connection):
        try:
            while connection.recv(65536, socket.MSG_DONTWAIT):
                pass
            return False
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False

    def close(self):
        self.socket.close()
        for connection in self.connections:
            connection.close()


class Notify(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon)
        self.listener = Listener()
        self.addCleanup(self.listener.close)
        self.key = os.path.join(self.daemon.directory, "key")
        with open(self.key, "w") as file:
            file.write(KEY + "\n")

    def start(self, *options):
        return self.daemon.start("--notify-host", "127.0.0.1", "--notify-key-file", self.key, *options)

    def submit(self, **spec):
        return self.daemon.submit(small_job(notify={"url": self.listener.url}, **spec))

    def told(self, count):
        return wait_for("being told", lambda: len(self.listener.requests) >= count and self.listener.requests)[count - 1]

    def test_signed(self):
        self.start()
        job = self.submit(method="wanda")
        path, headers, body, _ = self.told(1)
        self.assertEqual((path, headers["X-Besad-Delivery"], headers["Content-Type"]), ("/told?x=1", job, "application/json"))
        self.assertEqual(headers["X-Besad-Signature"], "sha256=" + hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest())
        told = json.loads(body)
        self.assertEqual((told["event"], told["job"]), ("job.succeeded", self.daemon.job(job)))
        self.assertEqual(told["job"]["spec"]["notify"], {"url": self.listener.url})

    def test_failed_and_cancelled(self):
        self.start()
        self.submit(timeout_seconds=0.05, besa={"epochs": 50})
        self.assertEqual(json.loads(self.told(1)[2])["event"], "job.failed")
        running = self.submit(besa={"epochs": 100})
        queued = self.submit(output="another")
        for number, job in ((2, queued), (3, running)):
            self.daemon.request("POST", f"/v1/jobs/{job}/cancel")
            told = json.loads(self.told(number)[2])
            self.assertEqual((told["event"], told["job"]["id"]), ("job.cancelled", job))

    def test_again_until_it_answers(self):
        self.listener.status = 500
        self.start()
        job = self.submit(method="wanda")
        self.told(1)
        self.daemon.finish(job)
        wait_for("the note of the failure", lambda: "could not be told, again in 5 s" in self.daemon.log())
        self.daemon.kill()
        self.listener.status = 200
        self.start()
        wait_for("the note of success", lambda: f"job={job} told" in self.daemon.log())
        self.assertEqual({headers["X-Besad-Delivery"] for _, headers, _, _ in self.listener.requests}, {job})
        statuses = [status for *_, status in self.listener.requests]
        self.assertEqual(statuses, [500] * (len(statuses) - 1) + [200])  # a slow machine may have got around to more than one

    def settle(self, job, url, attempts):
        """So often it was told in vain, and is due now."""
        with sqlite3.connect(os.path.join(self.daemon.state, "besad.db")) as db:
            changed = db.execute("UPDATE notifications SET attempts = ?, due_at = 0 WHERE job_id = ? AND url = ?", (attempts, job, url))
            self.assertEqual(changed.rowcount, 1)

    def test_for_about_a_day(self):
        """Less and less often, and then no more. An answer that leads elsewhere is none."""
        self.listener.status = 302
        self.start()
        job = self.submit(method="wanda")
        wait_for("the note", lambda: "could not be told, again in 5 s: it answered 302" in self.daemon.log())
        for attempts, said in ((3, "could not be told, again in 40 s: it answered 302"), (20, "could not be told, again in 7200 s: it answered 302"),
                               (23, "could not be told, and is given up: it answered 302")):
            self.daemon.stop()
            self.settle(job, self.listener.url, attempts)
            self.start()
            wait_for("the note", lambda text=said: text in self.daemon.log())
        log = self.daemon.get(f"/v1/jobs/{job}/log").body.decode()
        self.assertIn(f"{self.listener.url} could not be told of the end, and is given up: it answered 302", log)
        self.assertEqual(self.daemon.stop(), 0)
        with sqlite3.connect(os.path.join(self.daemon.state, "besad.db")) as db:
            self.assertEqual(list(db.execute("SELECT * FROM notifications")), [])

    def test_one_that_never_answers_holds_up_no_other(self):
        silence = Silence()
        self.addCleanup(silence.close)
        self.start()
        self.submit(besa={"epochs": 100})  # has the others wait
        count = 12  # each keeps the silent one's turn for ten seconds
        jobs = [self.daemon.submit(small_job(output=f"silent-{n}", notify={"url": silence.url})) for n in range(count)]
        other = self.submit(output="other")
        for job in [*jobs, other]:
            self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/cancel").json["state"], "cancelled")
        self.assertEqual(json.loads(self.told(1)[2])["job"]["id"], other)
        self.assertLess(len(silence.connections), count)
        wait_for("a second try", lambda: len(silence.connections) > 1)
        self.assertFalse(silence.overlap)
        self.assertEqual(self.daemon.stop(), 0)

    def test_hosts(self):
        self.start()
        for url in ("http://localhost:1/", "https://example.com/", "http://user@127.0.0.1/", "ftp://127.0.0.1/", "127.0.0.1", "http://", "http://[::1"):
            response = self.daemon.request("POST", "/v1/jobs", small_job(notify={"url": url}))
            self.assertEqual(response.status, 422, url)
            self.assertEqual([e["pointer"] for e in response.json["errors"]], ["/notify/url"])
        self.assertEqual(self.daemon.request("POST", "/v1/jobs", small_job(notify={})).status, 422)
        self.daemon.stop()
        self.start("--notify-host", "LocalHost")
        for url in ("http://localhost:1/", "http://127.0.0.1:1/"):
            self.assertEqual(self.daemon.request("POST", "/v1/estimate", small_job(notify={"url": url})).status, 200, url)

    def test_program(self):
        seen = os.path.join(self.daemon.directory, "seen")
        program = os.path.join(self.daemon.directory, "program")
        with open(program, "w") as file:
            file.write(f'#!/bin/sh\n{{ echo "$#" "$1" "$2"; cat; }} >{seen}.part\nmv {seen}.part {seen}\n')
        os.chmod(program, 0o700)
        self.start("--on-finish", program)
        job = self.daemon.submit(small_job(method="wanda", name="$(touch /tmp/x); \"' `id`"))
        wait_for("the program", lambda: os.path.exists(seen))
        with open(seen) as file:
            self.assertEqual(file.readline(), f"2 {job} succeeded\n")
            self.assertEqual(json.load(file)["job"], self.daemon.job(job))

    def program(self, text):
        path = os.path.join(self.daemon.directory, "program")
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o700)
        return path

    def test_how_a_program_ends(self):
        """Its own affair, but the log has it. One that is not there any more is run again when it is."""
        program = self.program('[ "$2" = succeeded ] && exit 3\nkill -9 $$\n')
        self.start("--on-finish", program)
        self.daemon.finish(self.daemon.submit(small_job(method="magnitude")))
        wait_for("its status", lambda: f"{program} ended with status 3" in self.daemon.log())
        self.daemon.finish(self.daemon.submit(small_job(timeout_seconds=0.05, besa={"epochs": 50}, output="late")))
        wait_for("its signal", lambda: f"{program} ended with signal 9" in self.daemon.log())
        os.unlink(program)
        job = self.daemon.submit(small_job(method="magnitude", output="another"))
        self.daemon.finish(job)
        wait_for("the note", lambda: "it cannot be run: No such file" in self.daemon.log())
        log = self.daemon.get(f"/v1/jobs/{job}/log").body.decode()
        self.assertIn("the operator's program could not be told of the end, again in 5 s: it cannot be run", log)
        self.assertNotIn(program, log)

    def test_a_program_that_is_broken_off(self):
        """besad does not wait for it when it is to end, and runs it again."""
        seen = os.path.join(self.daemon.directory, "seen")
        program = self.program(f'echo "$1" >>{seen}\n[ "$(wc -l <{seen})" = 1 ] && exec sleep 50\nexit 0\n')
        self.start("--on-finish", program)
        job = self.daemon.submit(small_job(method="magnitude"))
        wait_for("the program", lambda: os.path.exists(seen) and os.path.getsize(seen))
        self.assertEqual(self.daemon.stop(), 0)
        self.assertNotIn("told", self.daemon.log())
        self.start("--on-finish", program)
        wait_for("the note", lambda: f"job={job} told {program}" in self.daemon.log())
        with open(seen) as file:
            self.assertEqual(file.read().split(), [job, job])

    def test_program_is_run_after_a_kill(self):
        """The program outlives besad, which was killed while it ran, and is run again for that job and for those behind it."""
        seen, program, go = (os.path.join(self.daemon.directory, n) for n in ("seen", "program", "go"))
        with open(program, "w") as file:
            file.write(f'#!/bin/sh\necho "$1" >>{seen}\nwhile [ ! -e {go} ]; do sleep 0.1; done\n'
                       f'grep -q "^SigIgn:.*0000000$" /proc/$$/status || echo ignored >>{seen}\n')
        os.chmod(program, 0o700)
        self.start("--on-finish", program)
        jobs = [self.daemon.submit(small_job(method="magnitude", output=f"job-{n}")) for n in range(3)]
        for job in jobs:
            self.daemon.finish(job)

        def told():
            with open(seen) as file:
                return file.read().split()
        wait_for("the program", lambda: os.path.exists(seen) and told())
        self.daemon.kill()
        with open(go, "w"):
            pass
        self.start("--on-finish", program)
        wait_for("the program for each job", lambda: set(jobs) <= set(told()[1:]))
        self.assertEqual(told()[0], jobs[0])
        self.assertNotIn("ignored", told())


if __name__ == "__main__":
    unittest.main()
