#!/usr/bin/env python3
"""https: what is answered, and to whom; certificates that are replaced while besad runs."""
import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import unittest

from support import BESAD, PATIENCE, Daemon, small_job, small_model, wait_for

BESACTL = os.path.join(os.path.dirname(BESAD), "besactl")


class Tls(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", "1", "--backend", "cpu")
        self.addCleanup(self.daemon.remove)
        self.cert, self.key = (os.path.join(self.daemon.directory, name) for name in ("cert.pem", "key.pem"))

    def make(self, cert, key):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"], check=True, capture_output=True)
        os.chmod(key, 0o600)
        with open(cert) as file:
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).hexdigest()

    def start(self):
        shown = self.make(self.cert, self.key)
        small_model(self.daemon, 2)
        self.daemon.start("--tls-cert", self.cert, "--tls-key", self.key, ready=False)
        self.daemon.wait_for_port()
        wait_for("readiness", lambda: self.call("GET", "/readyz")[0] == 200)
        return shown

    def connect(self, **limits):
        context = ssl.create_default_context(cafile=self.cert)
        for name, value in limits.items():
            setattr(context, name, value)
        connection = http.client.HTTPSConnection("127.0.0.1", self.daemon.port, timeout=PATIENCE, context=context)
        self.addCleanup(connection.close)
        return connection

    def call(self, method, path, body=None, headers=None):
        connection = self.connect()
        try:
            connection.request(method, path, body and json.dumps(body), headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def shown(self):
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", self.daemon.port)))).hexdigest()

    def reload(self, says):
        before = self.daemon.log().count(says)
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_for(f"'{says}' in the log", lambda: self.daemon.log().count(says) > before)

    def test_a_job(self):
        self.assertEqual(self.start(), self.shown())
        status, body = self.call("POST", "/v1/jobs", small_job(method="magnitude"), {"Content-Type": "application/json"})
        self.assertEqual(status, 201, body)
        job = json.loads(body)["id"]
        status, stream = self.call("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"})
        self.assertEqual((status, stream.count(b"event: end\n")), (200, 1))
        self.assertIn(b"event: job.succeeded\n", stream)
        listed = json.loads(self.call("GET", f"/v1/jobs/{job}/artifacts")[1])["artifacts"]
        model = max(listed, key=lambda file: file["bytes"])
        status, body = self.call("GET", f"/v1/jobs/{job}/artifacts/{model['name']}")
        self.assertEqual((status, hashlib.sha256(body).hexdigest()), (200, model["sha256"]))
        large = self.call("POST", "/v1/jobs", {"name": "x" * (2 << 20)}, {"Content-Type": "application/json"})
        self.assertEqual(large[0], 413)

        def besactl(*arguments):
            return subprocess.run([BESACTL, "--url", f"https://127.0.0.1:{self.daemon.port}", *arguments], capture_output=True, text=True,
                                  timeout=PATIENCE)
        self.assertIn(job, besactl("--ca-file", self.cert, "list").stdout)
        self.assertEqual(besactl("list").returncode, 3)  # the system does not know who signed it
        self.assertEqual(self.daemon.stop(), 0)

    def test_what_is_not_answered(self):
        self.start()
        with self.assertRaises(ssl.SSLError):
            with self.assertWarns(DeprecationWarning):
                connection = self.connect(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
            connection.request("GET", "/healthz")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            connection = self.connect(minimum_version=version, maximum_version=version)
            connection.request("GET", "/healthz")
            self.assertEqual(connection.getresponse().status, 200)
        with socket.create_connection(("127.0.0.1", self.daemon.port), timeout=PATIENCE) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try:
                self.assertNotIn(b"HTTP/1.1", plain.recv(1000))
            except ConnectionResetError:
                pass
        self.assertEqual(self.call("GET", "/healthz")[0], 200)

    def test_reload(self):
        first = self.start()
        kept = self.connect()
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        os.chmod(self.key, 0o644)
        self.reload("SIGHUP: the certificate stays as it is")
        os.chmod(self.key, 0o600)
        self.make(os.path.join(self.daemon.directory, "other.pem"), self.key)  # the key of another certificate
        self.reload("is not the key of the certificate")
        with open(self.key, "w"):
            pass
        self.reload("SIGHUP: the certificate stays as it is")
        self.assertEqual(self.shown(), first)
        second = self.make(self.cert, self.key)
        self.reload("SIGHUP: the certificate was read again")
        self.assertNotEqual(first, second)
        self.assertEqual(self.shown(), second)
        kept.request("GET", "/healthz")
        self.assertEqual(kept.getresponse().status, 200)

    def test_refused_at_the_start(self):
        self.make(self.cert, self.key)

        def refused(*options, status=1):
            d = self.daemon
            done = subprocess.run([BESAD, "--listen", "127.0.0.1:0", "--model-root", d.models, "--output-root", d.output, "--state-dir", d.state,
                                   "--backend", "cpu", *options], capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, status, done.stderr)
            return done.stderr
        self.assertIn("need each other", refused("--tls-cert", self.cert, status=2))
        self.assertIn("need each other", refused("--tls-key", self.key, status=2))
        self.assertIn(self.key, refused("--tls-cert", self.key, "--tls-key", self.key))
        self.assertIn("nowhere", refused("--tls-cert", self.cert, "--tls-key", "nowhere"))
        os.chmod(self.key, 0o640)
        if os.geteuid() == 0:
            self.assertIn("others can read or write it (mode 640)", refused("--tls-cert", self.cert, "--tls-key", self.key))


if __name__ == "__main__":
    unittest.main()
