#!/usr/bin/env python3
"""The files of a job's output as a resource: the list, downloads whole and in part, and nothing but what the job wrote."""
import hashlib
import json
import os
import shutil
import threading
import unittest

from support import Daemon, small_job, small_model, wait_for


def unlist(output):
    """Makes it one of an earlier besad, which did not list its files."""
    report = os.path.join(output, "besad.json")
    with open(report) as file:
        told = json.load(file)
    del told["artifacts"]
    with open(report, "w") as file:
        json.dump(told, file)


class Artifacts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--threads", "1")
        small_model(cls.daemon, 2)
        templates = os.path.join(cls.daemon.models, "small", "additional_chat_templates")
        os.mkdir(templates)
        for path, text in ((os.path.join(templates, "tools.jinja"), "{{ messages }}\n"), (os.path.join(templates, "..", "README.md"), "# ä\n")):
            with open(path, "w") as file:
                file.write(text)
        cls.daemon.start()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.remove()

    def made(self, output, **spec):
        job = self.daemon.submit(small_job(method="wanda", output=output, **spec))
        done = self.daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done["error"])
        return job, os.path.join(self.daemon.output, output)

    def read(self, job, name, **headers):
        return self.daemon.get(f"/v1/jobs/{job}/artifacts/{name}", **headers)

    def list(self, job):
        response = self.daemon.get(f"/v1/jobs/{job}/artifacts")
        self.assertEqual(response.status, 200, response.body)
        return {entry.pop("name"): entry for entry in response.json["artifacts"]}

    def test_list_and_download(self):
        job, output = self.made("listed")
        listed = self.list(job)
        found = {os.path.relpath(os.path.join(path, name), output) for path, _, names in os.walk(output) for name in names}
        self.assertEqual(set(listed), found)
        self.assertIn("additional_chat_templates/tools.jinja", found)
        for name, entry in listed.items():
            with open(os.path.join(output, name), "rb") as file:
                content = file.read()
            self.assertEqual((entry["bytes"], entry["sha256"]), (len(content), hashlib.sha256(content).hexdigest()), name)
            whole = self.read(job, name)
            self.assertEqual((whole.status, whole.body, whole.headers["ETag"]), (200, content, f'"{entry["sha256"]}"'), name)
            self.assertEqual(whole.headers["Content-Type"], entry["media_type"])
        with open(os.path.join(output, "besad.json")) as file:
            noted = json.load(file)["artifacts"]
        self.assertEqual([entry["name"] for entry in noted], sorted(found - {"besad.json"}))
        self.assertEqual({entry["name"]: (entry["bytes"], entry["sha256"]) for entry in noted},
                         {name: (entry["bytes"], entry["sha256"]) for name, entry in listed.items() if name != "besad.json"})

    def test_parts(self):
        job, output = self.made("parts")
        with open(os.path.join(output, "model.safetensors"), "rb") as file:
            content = file.read()
        size = len(content)
        whole = self.read(job, "model.safetensors")
        etag = whole.headers["ETag"]
        self.assertEqual(whole.headers["Accept-Ranges"], "bytes")
        for asked, first, last in ((f"bytes=0-99", 0, 99), (f"bytes={size - 7}-", size - 7, size - 1), ("bytes=-5", size - 5, size - 1),
                                   (f"bytes=1000-{size + 5}", 1000, size - 1)):
            for more in ({}, {"If_Range": etag}):
                part = self.read(job, "model.safetensors", Range=asked, **more)
                self.assertEqual((part.status, part.headers["Content-Range"]), (206, f"bytes {first}-{last}/{size}"))
                self.assertEqual(part.body, content[first:last + 1])
                self.assertEqual(int(part.headers["Content-Length"]), last + 1 - first)
        for headers in ({"Range": "bytes=0-1", "If_Range": '"another"'}, {"Range": "bytes=0-1,3-4"}, {"Range": "lines=1-2"}):
            self.assertEqual((lambda r: (r.status, r.body == content))(self.read(job, "model.safetensors", **headers)), (200, True), headers)
        outside = self.read(job, "model.safetensors", Range=f"bytes={size}-")
        self.assertEqual((outside.status, outside.headers["Content-Range"]), (416, f"bytes */{size}"))
        for known in (etag, f'"x", W/{etag}', "*"):
            same = self.read(job, "model.safetensors", If_None_Match=known)
            self.assertEqual((same.status, same.body, same.headers["ETag"]), (304, b"", etag))
        self.assertEqual(self.read(job, "model.safetensors", If_None_Match='"x"').status, 200)
        path = f"/v1/jobs/{job}/artifacts/model.safetensors"
        for headers in ({}, {"Range": "bytes=0-1"}, {"Range": f"bytes={size}-"}):  # a Range is GET's (RFC 9110, 14.2)
            head = self.daemon.request("HEAD", path, headers=headers)
            self.assertEqual((head.status, head.body, int(head.headers["Content-Length"]), head.headers["ETag"]), (200, b"", size, etag))

    def test_nothing_else(self):
        job, output = self.made("guarded")
        with open(os.path.join(self.daemon.output, "secret"), "w") as file:
            file.write("secret")
        with open(os.path.join(output, "added later"), "w") as file:
            file.write("no")
        for name in ("../secret", "..%2fsecret", "%2e%2e/secret", "/etc/passwd", "%2fetc%2fpasswd", "added%20later", "additional_chat_templates", ".",
                     "..", "x", "model.safetensors/", "additional_chat_templates/../config.json", "%00"):
            response = self.read(job, name)
            self.assertEqual(response.status, 404, (name, response.body))
        # What is changed behind besad's back is no longer what the job wrote.
        config = os.path.join(output, "config.json")
        os.rename(config, config + ".kept")
        os.symlink(os.path.join("..", "secret"), config)
        self.assertEqual(self.read(job, "config.json").status, 410)
        os.unlink(config)
        os.symlink("config.json.kept", config)
        self.assertEqual(self.read(job, "config.json").status, 410)
        os.unlink(config)
        shutil.copy(config + ".kept", config)
        self.assertEqual(self.read(job, "config.json").status, 200)
        with open(config, "a") as file:
            file.write(" ")
        self.assertEqual(self.read(job, "config.json").status, 410)
        templates = os.path.join(output, "additional_chat_templates")
        os.rename(templates, templates + "-kept")
        os.symlink("additional_chat_templates-kept", templates)
        self.assertEqual(self.read(job, "additional_chat_templates/tools.jinja").status, 410)
        os.unlink(os.path.join(output, "README.md"))
        missing = self.read(job, "README.md")
        self.assertEqual(missing.status, 404, missing.body)
        self.assertNotIn(self.daemon.directory, missing.body.decode())  # where the output is, is the operator's business

    def test_replaced_and_removed(self):
        first, output = self.made("again")
        second, _ = self.made("again", overwrite=True)
        for path in ("", "/config.json"):
            response = self.daemon.get(f"/v1/jobs/{first}/artifacts{path}")
            self.assertEqual((response.status, response.json["type"]), (410, "urn:besad:problem:output-gone"))
        self.assertIn("model.safetensors", self.list(second))
        shutil.rmtree(output)
        self.assertEqual(self.daemon.get(f"/v1/jobs/{second}/artifacts").status, 410)
        self.assertEqual(self.daemon.get("/v1/jobs/01hzzzzzzz0123456789abcdef/artifacts").status, 404)
        self.assertEqual(self.daemon.get("/v1/jobs/01hzzzzzzz0123456789abcdef/artifacts/config.json").status, 404)

    def test_none_yet(self):
        small_model(self.daemon, 200, "long")
        job = self.daemon.submit(small_job(model="long", besa={"epochs": 20}, output="never"))
        wait_for("the job to run", lambda: self.daemon.job(job)["state"] == "running")
        self.assertEqual(self.list(job), {})
        self.assertEqual(self.read(job, "config.json").status, 404)
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/cancel").status, 200)
        self.assertEqual(self.daemon.finish(job)["state"], "cancelled")
        self.assertEqual(self.list(job), {})

    def test_output_of_an_earlier_besad(self):
        job, output = self.made("earlier")
        before = self.list(job)
        unlist(output)
        after = self.list(job)
        self.assertEqual({name: entry for name, entry in after.items() if name != "besad.json"},
                         {name: entry for name, entry in before.items() if name != "besad.json"})
        self.assertEqual(self.read(job, "config.json").status, 200)

    def test_a_stop_while_an_output_of_an_earlier_besad_is_read(self):
        daemon = Daemon()
        self.addCleanup(daemon.remove)
        small_model(daemon)
        daemon.start()
        job = daemon.submit(small_job(method="wanda", output="large"))
        self.assertEqual(daemon.finish(job)["state"], "succeeded")
        unlist(os.path.join(daemon.output, "large"))
        large = os.path.join(daemon.output, "large", "hole")
        with open(large, "wb") as file:
            file.truncate(1 << 40)  # a hole: read for an hour
        answers = []
        client = threading.Thread(target=lambda: answers.append(daemon.get(f"/v1/jobs/{job}/artifacts")))
        client.start()
        opened = f"/proc/{daemon.process.pid}/fd"

        def is_read():
            try:
                return large in [os.readlink(os.path.join(opened, fd)) for fd in os.listdir(opened)]
            except FileNotFoundError:  # closed meanwhile
                return False
        wait_for("the file to be read", is_read)
        self.assertEqual(daemon.stop(), 0)
        client.join()
        self.assertEqual((answers[0].status, answers[0].json["type"]), (503, "urn:besad:problem:stopping"))


if __name__ == "__main__":
    unittest.main()
