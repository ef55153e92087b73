#!/usr/bin/env python3
"""`besad pack`, `unpack` and `verify`: what comes back, also by a reader that shares no code with besad, and what the programs refuse."""
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

from support import BESAD, PATIENCE, ROOT

sys.path[:0] = [os.path.join(ROOT, "bench"), os.path.join(ROOT, "tests")]
import archive_reader  # noqa: E402
from random_models import write_safetensors  # noqa: E402

SHARD = "model-00001-of-00002.safetensors"


def besad(*arguments):
    return subprocess.run([BESAD, *arguments], capture_output=True, text=True, timeout=PATIENCE)


def contents(directory):
    result = {}
    for path in (os.path.join(top, name) for top, _, names in os.walk(directory) for name in names):
        with open(path, "rb") as file:
            result[os.path.relpath(path, directory)] = file.read()
    return result


def weights(rng, rows, columns, sparsity):
    values = (struct.pack("<f", rng.gauss(0, 0.02))[2:] if rng.random() >= sparsity else b"\0\0" for _ in range(rows * columns))
    return "BF16", [rows, columns], b"".join(values)


class Archives(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="besad-archive-")
        self.addCleanup(shutil.rmtree, self.top)
        self.model, self.archive, self.restored = (os.path.join(self.top, name) for name in ("model", "archive", "restored"))
        shutil.copytree(os.path.join(ROOT, "demo", "tiny-llama"), self.model)
        os.makedirs(os.path.join(self.model, "additional_chat_templates"))
        with open(os.path.join(self.model, "additional_chat_templates", "tool.jinja"), "w") as file:
            file.write("{{ tools }}")
        rng = random.Random(0)
        write_safetensors(os.path.join(self.model, SHARD), {
            "half": weights(rng, 90, 200, 0.5), "full": weights(rng, 40, 128, 0), "norm": weights(rng, 1, 65, 0)})

    def expect_done(self, *arguments):
        done = besad(*arguments)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def expect_refusal(self, part, *arguments, status=1):
        done = besad(*arguments)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn(part, done.stderr)

    def test_there_and_back(self):
        sizes = []
        for coded in ([], ["--coded"]):
            self.expect_done("pack", *coded, self.model, self.archive)
            self.expect_done("verify", self.archive)
            self.expect_done("unpack", self.archive, self.restored + "/")
            self.assertEqual(contents(self.restored), contents(self.model))
            sizes.append(os.path.getsize(os.path.join(self.archive, SHARD.replace(".safetensors", ".besad.safetensors"))))
            # By another reader; the bundled model would take it long.
            with open(os.path.join(self.archive, SHARD.replace(".safetensors", ".besad.safetensors")), "rb") as file:
                found, _ = archive_reader.restore(file.read())
            with open(os.path.join(self.model, SHARD), "rb") as file:
                self.assertEqual(found, file.read())
            self.assertEqual(sorted(os.listdir(self.top)), ["archive", "model", "restored"])
            shutil.rmtree(self.archive)
            shutil.rmtree(self.restored)
        self.assertLess(sizes[0], os.path.getsize(os.path.join(self.model, SHARD)))
        self.assertLess(sizes[1], sizes[0])

    def test_a_whole_archive_by_another_reader(self):
        os.remove(os.path.join(self.model, "model.safetensors"))
        self.expect_done("pack", "--coded", self.model, self.archive)
        archive_reader.unpack(self.archive, self.restored)
        self.assertEqual(contents(self.restored), contents(self.model))

    def test_killed_and_run_again(self):
        """What a process that was killed has left is not taken for an archive, and is gone when the next one has made one."""
        self.expect_done("pack", self.model, self.archive)
        expected = contents(self.archive)
        shutil.rmtree(self.archive)
        part = self.archive + ".besad-part"
        for _ in range(5):
            with subprocess.Popen([BESAD, "pack", self.model, self.archive]) as process:
                while process.poll() is None and not os.path.exists(part):
                    pass
                process.kill()
            if os.path.exists(self.archive):  # it was faster
                shutil.rmtree(self.archive)
        os.makedirs(os.path.join(part, "left"), exist_ok=True)
        self.expect_done("pack", self.model, self.archive)
        self.assertEqual(contents(self.archive), expected)
        self.assertFalse(os.path.exists(part))

    def test_refusals(self):
        self.expect_done("pack", self.model, self.archive)
        self.expect_refusal("exists already", "pack", self.model, self.archive)
        self.expect_refusal("an archive already", "pack", self.archive, self.restored)
        self.expect_refusal("besad-archive.json", "unpack", self.model, self.restored)
        self.expect_refusal("besad-archive.json", "verify", self.model)
        self.expect_refusal("pack needs a model directory", "pack", status=2)
        self.expect_refusal("pack needs the archive's directory", "pack", self.model, status=2)
        self.expect_refusal("what is 'more'?", "verify", self.archive, "more", status=2)
        self.expect_refusal("unknown option --coded", "unpack", "--coded", self.archive, self.restored, status=2)
        path = os.path.join(self.archive, "model.besad.safetensors")
        with open(path, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"damage")
        self.expect_refusal("is damaged: its checksum", "verify", self.archive)
        self.expect_refusal("is damaged: its checksum", "unpack", self.archive, self.restored)
        os.truncate(path, os.path.getsize(path) // 2)
        self.expect_refusal("model.besad.safetensors", "unpack", self.archive, self.restored)
        self.assertEqual(sorted(os.listdir(self.top)), ["archive", "model"])

    def test_a_model_that_is_an_archive(self):
        self.expect_done("pack", self.model, self.archive)
        job = os.path.join(self.top, "job.json")
        with open(job, "w") as file:
            file.write('{"model": "archive", "method": "magnitude", "sparsity": 0.5}')
        self.expect_refusal("besad unpack", "run", "--model-root", self.top, "--data-root", self.top, "--output-root", self.top, job, status=2)


if __name__ == "__main__":
    unittest.main()
