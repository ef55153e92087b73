#!/usr/bin/env python3
"""A job does not succeed with an output that is not what was computed: what is changed behind its back on the disk, or was written wrongly, is
found when the output is read again, and the files stay to be looked at."""
import glob
import json
import math
import os
import re
import signal
import struct
import unittest
import zlib

from support import PATIENCE, Daemon, digests, family_model, faults, small_job, small_model, write_calibration

Q0 = "model.layers.0.self_attn.q_proj.weight"


class Shard:
    """A safetensors file that is changed in place; weights are BF16."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            self.length = struct.unpack("<Q", file.read(8))[0]
            self.header = file.read(self.length).decode()
        self.tensors = json.loads(self.header)

    def place(self, name):
        begin, end = self.tensors[name]["data_offsets"]
        return 8 + self.length + begin, end - begin

    def read(self, name):
        at, size = self.place(name)
        with open(self.path, "rb") as file:
            file.seek(at)
            return bytearray(file.read(size))

    def write(self, name, data):
        at, _ = self.place(name)
        with open(self.path, "r+b") as file:
            file.seek(at)
            file.write(data)

    def rename(self, name, other):
        assert len(name) == len(other)
        with open(self.path, "r+b") as file:
            file.seek(8)
            file.write(self.header.replace(f'"{name}"', f'"{other}"').encode())


def is_zero(data, i):
    return data[2 * i] == 0 and data[2 * i + 1] & 0x7f == 0


class SelfCheck(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "1"))
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, 4)

    def faults(self, at, kind, log="faults"):
        return faults(self, [os.path.join(self.daemon.state, "jobs")], os.path.join(self.daemon.directory, log), at, kind)

    def interrupt(self, **spec):
        """A job that was killed with at least two blocks saved; besad does not run. Its output's shard, and its savepoint's path."""
        daemon = self.daemon
        daemon.start("--checkpoint-every", "0", environment=self.faults(0, "none", "count"))
        self.assertEqual(daemon.finish(daemon.submit(small_job(output="plain", **spec)))["state"], "succeeded")
        daemon.stop()
        with open(os.path.join(daemon.directory, "count")) as file:
            saves = [int(line.split()[0]) for line in file if re.match(r"\d+ rename\w* .*/savepoint\.json$", line)]
        daemon.start("--checkpoint-every", "0", environment=self.faults(saves[-1], "kill"))
        self.job = daemon.submit(small_job(output="changed", **spec))
        self.assertEqual(daemon.process.wait(PATIENCE), -signal.SIGKILL)
        self.savepoint = os.path.join(daemon.state, "jobs", self.job, "savepoint.json")
        with open(self.savepoint) as file:
            self.assertGreaterEqual(len(json.load(file)["blocks"]), 2)
        [path] = [p for p in glob.glob(os.path.join(daemon.output, ".*", "model.safetensors"))]
        return Shard(path)

    def forge(self, shard, name, data):
        """Changes a tensor, and makes the savepoint say that it was written so."""
        shard.write(name, data)
        with open(self.savepoint) as file:
            savepoint = json.load(file)
        [entry] = [e for e in savepoint["written"] if e[0] == name]
        self.assertEqual(entry[1:3], [0, len(data)])
        entry[3] = f"{zlib.crc32(data):08x}"
        savepoint.pop("checksum", None)  # as an earlier besad wrote it
        with open(self.savepoint, "w") as file:
            json.dump(savepoint, file)

    def fails(self, *said):
        self.daemon.start("--checkpoint-every", "0")
        done = self.daemon.finish(self.job)
        self.assertEqual((done["state"], done["error"] and done["error"]["code"]), ("failed", "self_check"), done["error"])
        for text in said:
            self.assertIn(text, done["error"]["message"])
        self.assertFalse(os.path.exists(os.path.join(self.daemon.output, "changed")))
        return done

    def test_an_output_as_it_was_written(self):
        self.interrupt()
        self.daemon.start("--checkpoint-every", "0")
        self.assertEqual(self.daemon.finish(self.job)["state"], "succeeded")
        plain, changed = (os.path.join(self.daemon.output, name) for name in ("plain", "changed"))
        self.assertEqual(digests(plain), digests(changed))
        checks = []
        for output in (plain, changed):
            with open(os.path.join(output, "besad.json")) as file:
                checks.append(json.load(file)["self_check"])
        self.assertEqual(checks[0], checks[1])
        self.assertEqual(checks[0]["sequences"], 1)
        self.assertAlmostEqual(math.log(checks[0]["perplexity_of_files"]), math.log(checks[0]["perplexity_of_walk"]), delta=0.01)

    def test_a_flipped_bit(self):
        shard = self.interrupt()
        data = shard.read(Q0)
        data[123] ^= 0x10
        shard.write(Q0, data)
        self.fails("model.safetensors", Q0, "other bytes than were written", "CRC-32")
        self.assertTrue(os.path.exists(shard.path), "the files stay")
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{self.job}").status, 204)
        self.assertFalse(os.path.exists(shard.path))

    def test_a_flipped_bit_in_what_is_copied(self):
        shard = self.interrupt()
        data = shard.read("model.embed_tokens.weight")
        data[-1] ^= 1
        shard.write("model.embed_tokens.weight", data)
        self.fails("model.embed_tokens.weight", "differs from the model's")

    def test_a_zero_too_few(self):
        shard = self.interrupt()
        data = shard.read(Q0)
        zero = next(i for i in range(len(data) // 2) if is_zero(data, i))
        data[2 * zero + 1] = 0x3c
        self.forge(shard, Q0, data)
        zeros = sum(is_zero(shard.read(Q0), i) for i in range(len(data) // 2))
        self.fails(f"block 0: q_proj has {zeros} zeros, and had {zeros + 1}")

    def test_a_group_with_too_few_zeros(self):
        shard = self.interrupt(method="wanda", sparsity=None, pattern="2:4")
        data = shard.read(Q0)
        zero = next(i for i in range(4) if is_zero(data, i))
        other = next(i for i in range(4, 8) if not is_zero(data, i))
        data[2 * zero:2 * zero + 2], data[2 * other:2 * other + 2] = data[2 * other:2 * other + 2], b"\0\0"
        self.forge(shard, Q0, data)
        self.fails(Q0, "the 4 weights from 0 on in row 0 have 1 zeros, and 2:4 asks for 2")

    def test_groups_of_linears_that_lie_transposed(self):
        """The groups of N:M go along the inputs, which in these families' files are not what lies together."""
        write_calibration(os.path.join(self.daemon.data, "few.safetensors"), 4, 32, vocab=64)
        self.daemon.start()
        for family in ("gpt2", "gpt_oss"):
            with self.subTest(family=family):
                family_model(self.daemon, family)
                job = self.daemon.submit({"model": family, "method": "wanda", "pattern": "2:4",
                                          "calibration": {"path": "few.safetensors", "samples": 4, "sequence_length": 32}})
                done = self.daemon.finish(job)
                self.assertEqual(done["state"], "succeeded", done["error"])

    def test_a_global_refit_where_not_all_layers_turn(self):
        """What was tuned is what the files give: SmolLM3, and Cohere 2 with windows in some layers."""
        write_calibration(os.path.join(self.daemon.data, "few.safetensors"), 4, 32, vocab=64)
        self.daemon.start()
        for family in ("smollm3", "cohere2"):
            with self.subTest(family=family):
                family_model(self.daemon, family)
                job = self.daemon.submit({"model": family, "method": "wanda", "sparsity": 0.5, "refit": {"method": "global"},
                                          "calibration": {"path": "few.safetensors", "samples": 4, "sequence_length": 32}})
                done = self.daemon.finish(job)
                self.assertEqual(done["state"], "succeeded", done["error"])

    def test_a_missing_tensor(self):
        shard = self.interrupt()
        shard.rename("model.norm.weight", "model.norm.weighs")
        self.fails("the tensor 'model.norm.weight' is missing")

    def test_weights_that_were_not_computed(self):
        shard = self.interrupt()
        for name in [n for n in shard.tensors if re.match(r"model\.layers\.[01]\.mlp\.down_proj\.weight", n)]:
            data = shard.read(name)
            for i in range(1, len(data), 2):
                data[i] = data[i] + 4 if data[i] & 0x7f else data[i]  # 256 times as large
            self.forge(shard, name, data)
        self.fails("on the first sequences of the calibration its perplexity is")


if __name__ == "__main__":
    unittest.main()
