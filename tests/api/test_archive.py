#!/usr/bin/env python3
"""`besad pack`, `unpack` and `verify`: what comes back, also by a reader that shares no code with besad, and what the programs
refuse; and archives that jobs make."""
import glob
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

from support import BESAD, PATIENCE, ROOT, Daemon, small_job, small_model

sys.path[:0] = [os.path.join(ROOT, "bench"), os.path.join(ROOT, "tests")]
import archive_reader  # noqa: E402
from random_models import write_model, write_safetensors  # noqa: E402

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

    def test_a_model_with_an_archive_in_it(self):
        """As the output of a job with "archive"."""
        self.expect_done("pack", self.model, self.archive)
        os.rename(self.archive, os.path.join(self.model, "archive"))
        self.expect_done("pack", self.model, self.archive)
        self.expect_done("verify", self.archive)
        self.expect_done("unpack", self.archive, self.restored)
        self.assertEqual(contents(self.restored), contents(self.model))

    def test_an_archive_in_the_model(self):
        """It does not hold itself, wherever among the files its directory is listed."""
        model = os.path.join(self.top, "texts")
        os.mkdir(model)
        for i in range(20):
            with open(os.path.join(model, f"{i}.txt"), "w") as file:
                file.write(str(i))
        before = contents(model)
        for i in range(5):
            self.expect_done("pack", model, os.path.join(model, f"packed-{i}"))
            self.expect_done("unpack", os.path.join(model, f"packed-{i}"), self.restored)
            self.assertEqual(contents(self.restored), before)
            shutil.rmtree(os.path.join(model, f"packed-{i}"))
            shutil.rmtree(self.restored)

    def test_what_is_read_is_not_removed(self):
        """Where it has the name that what is not whole yet has."""
        for command in ("pack", "unpack"):
            source = os.path.join(self.top, command + ".besad-part")
            if command == "pack":
                shutil.copytree(self.model, source)
            else:
                self.expect_done("pack", self.model, source)
            before = contents(source)
            self.expect_refusal("would be removed", command, source, os.path.join(self.top, command))
            self.assertEqual(contents(source), before)

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
        self.expect_refusal("besad unpack", "run", "--model-root", self.top, "--data-root", self.top, "--output-root", self.top, job,
                            status=2)


class Jobs(unittest.TestCase):
    """`"archive": true`."""

    def setUp(self):
        self.place = Daemon()  # for its directories; it is not started
        self.addCleanup(self.place.remove)
        self.model = small_model(self.place, 2)
        templates = os.path.join(self.place.models, "small", "additional_chat_templates")
        os.makedirs(templates)
        with open(os.path.join(templates, "tool.jinja"), "w") as file:
            file.write("{{ tools }}")

    def command(self, name, **spec):
        path = os.path.join(self.place.directory, name + ".json")
        with open(path, "w") as file:
            json.dump(small_job(**{"output": name, "method": "wanda", "archive": True, **spec}), file)
        return [BESAD, "run", "--threads", os.environ.get("OMP_NUM_THREADS", "2"), "--model-root", self.place.models, "--data-root",
                self.place.data, "--output-root", self.place.output, path]

    def run_job(self, name, **spec):
        done = subprocess.run(self.command(name, **spec), capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        return os.path.join(self.place.output, name)

    def expect_archive(self, output):
        """It restores all of the output but what was written behind it."""
        restored = output + "-restored"
        done = besad("unpack", os.path.join(output, "archive"), restored)
        self.assertEqual(done.returncode, 0, done.stderr)
        own = {name: content for name, content in contents(output).items()
               if name != "besad.json" and not name.startswith("archive/")}
        self.assertIn("additional_chat_templates/tool.jinja", own)
        self.assertEqual(contents(restored), own)

    def test_an_archive_beside_the_output(self):
        output = self.run_job("whole", archive_coded=True)
        self.expect_archive(output)
        with open(os.path.join(output, "besad.json")) as file:
            report = json.load(file)
        listed = {entry["name"]: (entry["bytes"], entry["sha256"]) for entry in report["artifacts"]}
        found = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents(output).items()
                 if name != "besad.json"}
        self.assertEqual(listed, found)
        self.assertIn("archive/model.besad.safetensors", listed)
        self.assertIn("archive/additional_chat_templates/tool.jinja", listed)
        # It is besad's own, all of it: so it may be replaced, and a job without an archive leaves none.
        self.run_job("again", output="whole", archive=False, overwrite=True)
        self.assertFalse(os.path.exists(os.path.join(output, "archive")))

    def test_an_archive_of_codes(self):
        """Of a quantizer, which have a code for weights that are zero; of matrices that are not too small to be packed."""
        write_model(os.path.join(self.place.models, "small"), 256, 512, 4, 2, 1, vocab=300, scale=0.1)
        for bits, part in ((4, 0.79), (8, 0.66)):  # the bitmap and the others: 0.75 and 0.625, and what aligns them
            output = self.run_job(f"quantized-{bits}", sparsity=0.5, quantization={"bits": bits})
            self.expect_archive(output)
            with open(os.path.join(output, "archive", "model.besad.safetensors"), "rb") as file:
                archive = file.read()
            with open(os.path.join(output, "model.safetensors"), "rb") as file:
                self.assertEqual(archive_reader.restore(archive)[0], file.read())
            _, metadata, parts = archive_reader.safetensors(archive)
            dense = packed = 0
            for key, entry in ((key.removeprefix("tensor:"), json.loads(entry)) for key, entry in metadata.items()
                               if key.endswith(".weight_packed")):
                self.assertEqual((entry["encoding"], entry["dtype"], entry["value_bits"], entry["zero"]),
                                 ("mask", "I32", bits, 1 << bits - 1), key)
                dense += 4 * entry["shape"][0] * entry["shape"][1]
                packed += sum(len(parts[f"{key}:{part}"][2]) for part in ("offsets", "mask", "values"))
            self.assertGreater(dense, 0)
            self.assertLess(packed / dense, part)

    def test_killed_while_it_archives(self):
        expected = contents(os.path.join(self.run_job("whole"), "archive"))
        for attempt in range(5):
            name = f"killed-{attempt}"
            # Slow enough to be met: the archive begins with directories and small files.
            with subprocess.Popen(self.command(name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and not glob.glob(os.path.join(self.place.output, ".besad-*", "archive")):
                    pass
                process.kill()
            for work in glob.glob(os.path.join(self.place.output, ".besad-*", "config.json")):
                with open(os.path.join(os.path.dirname(work), "besad.json.tmp"), "w") as part:
                    part.write("{")  # as a kill leaves it a moment later
            output = self.run_job(name) if not os.path.exists(os.path.join(self.place.output, name)) else \
                os.path.join(self.place.output, name)
            self.assertEqual(contents(os.path.join(output, "archive")), expected)
            self.expect_archive(output)
        self.assertEqual([name for name in os.listdir(self.place.output) if name.startswith(".")], [])


if __name__ == "__main__":
    unittest.main()
