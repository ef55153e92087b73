#!/usr/bin/env python3
"""The Unix socket: who may do what there, as the kernel says who it is; what lies at its path before and behind; and besactl through it."""
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import unittest

from support import BESAD, PATIENCE, Daemon, Response, small_job, small_model, wait_for

BESACTL = os.path.join(os.path.dirname(BESAD), "besactl")
READER, OTHER, MEMBER, NOBODY = 61001, 61002, 61003, 65534
GROUP = 61100
TOKEN = "alice-0123456789a"
FILE = f"alice admin {TOKEN}\nboard read user:{READER}\nteam submit group:{GROUP} max-queued=1\n"


class Local(http.client.HTTPConnection):
    def __init__(self, path, name=None):
        super().__init__("localhost", timeout=PATIENCE)
        self.path, self.name = path, name

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        if self.name:
            self.sock.bind(self.name)
        self.sock.connect(self.path)


def ask(path, method, target, body=None, token=None, name=None):
    connection = Local(path, name)
    headers = {"Authorization": "Bearer " + token} if token else {}
    try:
        connection.request(method, target, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return Response(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def as_user(uid, *arguments, groups=(), **more):
    """The status and the problem that a process of this user is answered."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            answer = ask(*arguments, **more)
            kind = json.loads(answer.body or b"{}").get("type", "").rpartition(":")[2] if answer.status >= 400 else ""
            os.write(into, f"{answer.status} {kind}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(into)
    with os.fdopen(out) as file:
        text = file.read()
    os.waitpid(child, 0)
    status, _, kind = text.partition(" ")
    return int(status), kind


class Socket(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", "1", "--backend", "cpu")
        self.addCleanup(self.daemon.remove)
        os.chmod(self.daemon.directory, 0o711)
        above = os.path.dirname(self.daemon.directory)
        if not os.stat(above).st_mode & stat.S_ISVTX:  # tests/watch.py's, else /tmp, where everybody gets
            os.chmod(above, 0o711)
        self.path = os.path.join(self.daemon.directory, "besad.sock")

    def start(self, *options):
        return self.daemon.start("--listen", "unix:" + self.path, *options)

    def refused(self, *options):
        """What a besad says that cannot start."""
        done = subprocess.run([BESAD, *options, "--state-dir", self.daemon.state + "-2", "--model-root", self.daemon.models, "--data-root",
                               self.daemon.data, "--output-root", self.daemon.output], capture_output=True, text=True, timeout=PATIENCE)
        self.assertNotEqual(done.returncode, 0)
        return done.stderr


class Users(Socket):
    def start_with_file(self):
        tokens = os.path.join(self.daemon.directory, "tokens")
        with open(tokens, "w") as file:
            file.write(FILE)
        os.chmod(tokens, 0o600)
        self.daemon.token = TOKEN
        small_model(self.daemon, 60)
        self.start("--token-file", tokens)
        return tokens

    def test_the_operator(self):
        """Root, and whom besad runs as."""
        self.start_with_file()
        self.assertEqual(self.daemon.get("/v1/jobs", Authorization="").status, 401)
        self.assertEqual(ask(self.path, "GET", "/v1/audit").status, 200)
        limits = ask(self.path, "GET", "/v1/info").json["limits"]
        self.assertEqual(limits["streams"], limits["connections"] // 2 * 7 // 8)  # of one of the two sockets: none is filled by them
        job = ask(self.path, "POST", "/v1/jobs", small_job(besa={"epochs": 100}))
        self.assertEqual(job.status, 201, job.body)
        entry = ask(self.path, "GET", "/v1/audit").json["entries"][0]
        me = f"uid:{os.geteuid()}"
        self.assertEqual((entry["who"], entry["peer"], entry["action"]), (me, me, "job.submit"))
        self.assertEqual(ask(self.path, "GET", "/v1/jobs", token=TOKEN).status, 200)
        self.assertEqual(ask(self.path, "GET", "/v1/jobs", token=TOKEN + "x").status, 401)  # a token that is sent counts
        done = subprocess.run([BESACTL, "--url", "unix:" + self.path, "cancel", job.json["id"]], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        watched = subprocess.run([BESACTL, "watch", job.json["id"]], capture_output=True, text=True, timeout=PATIENCE,
                                 env={**os.environ, "BESAD_URL": "unix:" + self.path})
        self.assertEqual(watched.returncode, 5, watched.stderr)  # it was cancelled: the stream came through the socket, and ended

    @unittest.skipUnless(os.geteuid() == 0, "only root can be somebody else")
    def test_others(self):
        tokens = self.start_with_file()
        self.assertEqual(as_user(READER, self.path, "GET", "/v1/jobs"), (200, ""))
        self.assertEqual(as_user(READER, self.path, "POST", "/v1/jobs", small_job()), (403, "forbidden-role"))
        self.assertEqual(as_user(OTHER, self.path, "GET", "/v1/jobs"), (403, "forbidden-user"))
        self.assertEqual(as_user(NOBODY, self.path, "GET", "/v1/jobs"), (403, "forbidden-user"))
        self.assertEqual(as_user(OTHER, self.path, "GET", "/healthz"), (200, ""))
        self.assertEqual(as_user(OTHER, self.path, "GET", "/v1/jobs", token=TOKEN), (200, ""))
        self.assertEqual(as_user(OTHER, self.path, "GET", "/v1/jobs", token=f"user:{READER}"), (401, "unauthorized"))
        running = self.daemon.submit(small_job(besa={"epochs": 100}, output="long"))
        wait_for("its start", lambda: self.daemon.job(running)["state"] == "running")
        team = [as_user(MEMBER, self.path, "POST", "/v1/jobs", small_job(output=f"team{i}"), groups=[GROUP]) for i in range(2)]
        self.assertEqual(team, [(201, ""), (429, "quota-queued")])
        self.assertEqual(as_user(MEMBER, self.path, "GET", "/v1/audit", groups=[GROUP]), (403, "forbidden-role"))
        self.assertEqual(as_user(MEMBER, self.path, "GET", "/v1/jobs"), (403, "forbidden-user"))  # not in the group
        refusal = (None, f"uid:{OTHER}", "forbidden-user")
        noted = wait_for("the refusals", lambda: refusal in (found := self.entries()) and found)
        self.assertIn(("team", f"uid:{MEMBER}", "done"), noted)
        self.assertIn(("board", f"uid:{READER}", "forbidden-role"), noted)
        with open(tokens, "w") as file:
            file.write(FILE.replace(f"user:{READER}", f"user:{OTHER}"))
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_for("the new file", lambda: as_user(OTHER, self.path, "GET", "/v1/jobs") == (200, ""))
        self.assertEqual(as_user(READER, self.path, "GET", "/v1/jobs"), (403, "forbidden-user"))

    def entries(self):
        return {(e["who"], e["peer"], e["outcome"]) for e in self.daemon.get("/v1/audit?limit=1000").json["entries"]}

    @unittest.skipUnless(os.geteuid() == 0, "only root can be somebody else")
    def test_without_a_file(self):
        self.start()
        self.assertEqual(ask(self.path, "GET", "/v1/audit").status, 200)
        self.assertEqual(as_user(OTHER, self.path, "GET", "/v1/jobs"), (403, "forbidden-user"))

    def test_a_client_with_a_long_name(self):
        """The server library would read beyond its address."""
        self.start()
        name = os.path.join(self.daemon.directory, 40 * "n")
        self.assertEqual(ask(self.path, "GET", "/v1/jobs", name=name).status, 200)

    def test_many_connections(self):
        """As many of one user as of one address, and those that are too many do not hold up besad."""
        self.daemon.start("--listen", "unix:" + self.path, descriptors=64 + 40)
        held = []
        for _ in range(60):
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].connect(self.path)
        self.assertEqual(self.daemon.get("/v1/jobs").status, 200)
        for connection in held:
            connection.close()
        wait_for("an answer", lambda: self.answers())

    def answers(self):
        try:
            return ask(self.path, "GET", "/v1/jobs").status == 200
        except (OSError, http.client.HTTPException):
            return False


class Path(Socket):
    def test_alone(self):
        """Without a TCP port."""
        log = open(os.path.join(self.daemon.directory, "log"), "ab")
        process = subprocess.Popen([BESAD, "--listen", "unix:" + self.path, "--state-dir", self.daemon.state, "--model-root", self.daemon.models,
                                    "--data-root", self.daemon.data, "--output-root", self.daemon.output], stderr=log)
        log.close()
        try:
            wait_for("an answer", lambda: os.path.exists(self.path) and ask(self.path, "GET", "/readyz").status == 200)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o666)
            wait_for("the log", lambda: "answers on unix:" + self.path in self.daemon.log())
            self.assertIn("another process listens there", self.refused("--listen", "unix:" + self.path))
            self.assertEqual(ask(self.path, "GET", "/readyz").status, 200)
        finally:
            process.terminate()
            self.assertEqual(process.wait(PATIENCE), 0)
        self.assertFalse(os.path.exists(self.path))

    def test_what_a_killed_one_left(self):
        self.start()
        self.daemon.kill()
        self.assertTrue(stat.S_ISSOCK(os.stat(self.path).st_mode))
        done = subprocess.run([BESACTL, "--url", "unix:" + self.path, "list"], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.start()
        self.assertEqual(ask(self.path, "GET", "/v1/jobs").status, 200)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(sorted(n for n in os.listdir(self.daemon.directory) if n.startswith("besad.sock")), [])

    def test_what_is_not_replaced(self):
        with open(self.path, "w") as file:
            file.write("precious")
        self.assertIn("what is there is no socket", self.refused("--listen", "unix:" + self.path))
        os.rename(self.path, self.path + ".txt")
        os.symlink(self.path + ".txt", self.path)
        self.assertIn("what is there is no socket", self.refused("--listen", "unix:" + self.path))
        with open(self.path) as file:
            self.assertEqual(file.read(), "precious")
        self.assertIn("must be unix:/PATH", self.refused("--listen", "unix:besad.sock"))
        self.assertIn("the path is longer than", self.refused("--listen", "unix:/tmp/" + 100 * "x"))

    def test_passed_on(self):
        """By systemd, which keeps it."""
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.path)
        listener.listen()
        process = subprocess.Popen(["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&%d' % listener.fileno(), "sh", BESAD, "--state-dir",
                                    self.daemon.state, "--model-root", self.daemon.models, "--data-root", self.daemon.data, "--output-root",
                                    self.daemon.output, "--backend", "cpu"], pass_fds=[listener.fileno()],
                                   env={**os.environ, "GOMP_SPINCOUNT": "4000"})
        try:
            self.assertEqual(ask(self.path, "GET", "/v1/audit").status, 200)
        finally:
            process.terminate()
            self.assertEqual(process.wait(PATIENCE), 0)
        self.assertTrue(os.path.exists(self.path))


if __name__ == "__main__":
    unittest.main()
