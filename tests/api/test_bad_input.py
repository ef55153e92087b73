#!/usr/bin/env python3
"""Broken models and data: every one gives an error that names the file, tensor or field, and the daemon goes on serving."""
import array
import gzip
import json
import os
import shutil
import struct
import unittest

from support import Daemon, small_job, small_model


def read_safetensors(path):
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(size)), file.read()


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"))
        small_model(cls.daemon, 2)
        cls.daemon.start()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.remove()

    def tearDown(self):
        """Whatever came before: a good job still runs."""
        done = self.daemon.finish(self.daemon.submit(small_job(method="magnitude")))
        self.assertEqual(done["state"], "succeeded", done["error"])

    def message(self, spec):
        """What besad says against the job: at once in a problem, or when it fails."""
        response = self.daemon.request("POST", "/v1/jobs", spec)
        if response.status == 422:
            return " ".join(f"{e['pointer']} {e['detail']}" for e in response.json["errors"])
        self.assertEqual(response.status, 201, response.body)
        done = self.daemon.finish(response.json["id"])
        self.assertEqual(done["state"], "failed", done)
        self.assertFalse(os.path.exists(os.path.join(self.daemon.output, done["spec"]["output"])))
        return done["error"]["message"]

    def broken_model(self, name):
        directory = os.path.join(self.daemon.models, name)
        shutil.copytree(os.path.join(self.daemon.models, "small"), directory)
        return directory, os.path.join(directory, "model.safetensors")

    def check(self, name, *words, **spec):
        message = self.message(small_job(model=name, **spec))
        for word in words:
            self.assertIn(word, message)

    def test_truncated_weights(self):
        _, path = self.broken_model("truncated")
        os.truncate(path, os.path.getsize(path) - 100)
        self.check("truncated", "model.safetensors")

    def test_truncated_header(self):
        _, path = self.broken_model("headless")
        os.truncate(path, 40)
        self.check("headless", "model.safetensors")

    def edit(self, name, change):
        directory, path = self.broken_model(name)
        header, data = read_safetensors(path)
        data = change(header, data) or data
        write_safetensors(path, header, data)

    def test_overlapping_offsets(self):
        def overlap(header, _):
            first, second = header["model.layers.0.self_attn.q_proj.weight"], header["model.layers.0.self_attn.o_proj.weight"]
            second["data_offsets"] = first["data_offsets"]
        self.edit("overlap", overlap)
        self.check("overlap", "model.safetensors", "model.layers.0.self_attn")

    def test_offsets_out_of_range(self):
        def shift(header, data):
            header["lm_head.weight"]["data_offsets"] = [n + len(data) for n in header["lm_head.weight"]["data_offsets"]]
        self.edit("range", shift)
        self.check("range", "model.safetensors", "lm_head.weight")

    def test_missing_tensor(self):
        def drop(header, data):
            begin, end = header.pop("lm_head.weight")["data_offsets"]
            for info in header.values():
                if info["data_offsets"][0] >= end:
                    info["data_offsets"] = [n - (end - begin) for n in info["data_offsets"]]
            header["other.weight"] = {"dtype": "BF16", "shape": [(end - begin) // 2],
                                      "data_offsets": [len(data) - (end - begin), len(data)]}
            return data[:begin] + data[end:] + data[begin:end]
        self.edit("missing", drop)
        self.check("missing", "lm_head.weight", evaluation={"perplexity": [
            {"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]})

    def test_missing_linear(self):
        def rename(header, _):
            header["renamed"] = header.pop("model.layers.1.mlp.up_proj.weight")
        self.edit("unlinked", rename)
        self.check("unlinked", "model.layers.1.mlp.up_proj.weight")

    def test_wrong_shape(self):
        def turn(header, _):
            header["model.layers.0.mlp.down_proj.weight"]["shape"].reverse()
        self.edit("turned", turn)
        self.check("turned", "model.layers.0.mlp.down_proj.weight", "64", "160")

    def test_nan_weights(self):
        def spoil(header, data):
            begin = header["model.layers.1.self_attn.k_proj.weight"]["data_offsets"][0]
            return data[:begin + 10] + b"\xc0\x7f" + data[begin + 12:]
        self.edit("nan", spoil)
        self.check("nan", "model.layers.1.self_attn.k_proj.weight", "finite")

    def test_unknown_architecture(self):
        directory, _ = self.broken_model("alien")
        path = os.path.join(directory, "config.json")
        with open(path) as file:
            config = json.load(file)
        config.update(model_type="alien", architectures=["AlienForCausalLM"])
        with open(path, "w") as file:
            json.dump(config, file)
        self.check("alien", "alien")

    def test_malformed_config(self):
        directory, _ = self.broken_model("malformed")
        for text in ("", "[]", "{\"model_type\": \"llama\"}", "{" * 500):
            with self.subTest(text[:20]):
                with open(os.path.join(directory, "config.json"), "w") as file:
                    file.write(text)
                self.check("malformed", "config.json")

    def calibrate(self, name, content, samples=4, length=16):
        with open(os.path.join(self.daemon.data, name), "wb") as file:
            file.write(content)
        return self.message(small_job(calibration={"path": name, "samples": samples, "sequence_length": length}))

    def test_empty_calibration(self):
        self.assertIn("empty.safetensors", self.calibrate("empty.safetensors", b""))

    def test_calibration_shorter_than_asked(self):
        message = self.message(small_job(calibration={"path": "tokens.safetensors", "samples": 1000, "sequence_length": 64}))
        self.assertIn("tokens.safetensors", message)
        self.assertIn("1000", message)
        self.assertIn("32", message)

    def test_calibration_with_ids_beyond_the_vocabulary(self):
        ids = array.array("i", range(280, 280 + 64))
        header = {"input_ids": {"dtype": "I32", "shape": [4, 16], "data_offsets": [0, 256]}}
        path = os.path.join(self.daemon.data, "beyond.safetensors")
        write_safetensors(path, header, ids.tobytes())
        message = self.message(small_job(calibration={"path": "beyond.safetensors", "samples": 4, "sequence_length": 16}))
        self.assertIn("beyond.safetensors", message)
        self.assertIn("300", message)

    def test_text_without_a_tokenizer(self):
        self.assertIn("tokenizer", self.calibrate("plain.txt", b"some words " * 1000))

    def test_tokenizer_beyond_the_embedding(self):
        directory, _ = self.broken_model("chatty")
        demo = os.path.join(os.path.dirname(__file__), "..", "..", "demo", "tiny-llama")
        for name in ("tokenizer.model", "tokenizer_config.json"):
            shutil.copy(os.path.join(demo, name), directory)
        with open(os.path.join(self.daemon.data, "words.txt"), "wb") as file:
            file.write(b"some words " * 1000)
        self.check("chatty", "of id", "300 rows", calibration={"path": "words.txt", "samples": 4, "sequence_length": 16})

    def test_broken_json_lines(self):
        with gzip.open(os.path.join(self.daemon.data, "broken.jsonl.gz"), "wb") as file:
            file.write(b'{"text": "fine"}\n{"text": \n')
        directory, _ = self.broken_model("reader")
        demo = os.path.join(os.path.dirname(__file__), "..", "..", "demo", "tiny-llama")
        shutil.rmtree(directory)
        shutil.copytree(demo, directory)
        self.check("reader", "broken.jsonl.gz", calibration={"path": "broken.jsonl.gz", "samples": 4, "sequence_length": 16})

    def test_full_disk(self):
        """A file-size limit stands for it: writing the output fails in the same call. The database stays well below it."""
        daemon = Daemon()
        self.addCleanup(daemon.remove)
        small_model(daemon, 16)
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = os.path.getsize(os.path.join(daemon.models, "small", "model.safetensors"))
        daemon.start()
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (size - 1, hard))
        done = daemon.finish(daemon.submit(small_job(output="big")))
        self.assertEqual(done["state"], "failed")
        self.assertIn("model.safetensors", done["error"]["message"])
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        job = daemon.request("POST", f"/v1/jobs/{done['id']}/retry").json["id"]
        self.assertEqual(daemon.finish(job)["state"], "succeeded")


if __name__ == "__main__":
    unittest.main()
