#!/usr/bin/env python3
"""GET /v1/models and GET /v1/data: what is there, what cannot be used and why, Hugging Face caches, links, changes on the disk."""
import gzip
import json
import os
import shutil
import unittest

from support import Daemon, small_job, small_model, write_calibration

LFS = (b"version https://git-lfs.github.com/spec/v1\n"
       b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n")


class Lists(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, 2)
        self.daemon.start()

    def get(self, what):
        answer = self.daemon.get(f"/v1/{what}")
        self.assertEqual(answer.status, 200, answer.body)
        self.assertNotIn(self.daemon.directory, answer.body.decode())  # the operator's paths are nobody's business
        return answer.json

    def models(self):
        return {m["name"]: m for m in self.get("models")["models"]}

    def data(self):
        return {f["name"]: f for f in self.get("data")["data"]}

    def copy(self, name, without=()):
        directory = os.path.join(self.daemon.models, name)
        shutil.copytree(os.path.join(self.daemon.models, "small"), directory, ignore=lambda *_: without)
        return directory

    def write(self, *path, content):
        path = os.path.join(*path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def change_config(self, directory, **change):
        path = os.path.join(directory, "config.json")
        with open(path) as file:
            config = json.load(file)
        self.write(path, content=json.dumps({**config, **change}).encode())

    def hub(self, root, repository, files):
        """A repository of a Hugging Face cache; the path of its snapshot, below the root."""
        snapshot = os.path.join(repository, "snapshots", "59f0237dc86e8b4f2bfed34145211a17414b3b01")
        for number, (name, content) in enumerate(files.items()):
            blob = f"{number:040x}"
            self.write(root, repository, "blobs", blob, content=content)
            link = os.path.join(root, snapshot, name)
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(os.path.relpath(os.path.join(root, repository, "blobs", blob), os.path.dirname(link)), link)
        self.write(root, repository, "refs", "main", content=b"59f0237dc86e8b4f2bfed34145211a17414b3b01")
        return snapshot

    # ---- models

    def test_a_model(self):
        model = self.models()["small"]
        size = os.path.getsize(os.path.join(self.daemon.models, "small", "model.safetensors"))
        self.assertEqual(model, {"name": "small", "title": None, "family": "llama", "blocks": 2, "bytes": size, "supported": True,
                                 "reason": None, "lineage": None})

    def test_a_model_knows_where_it_comes_from(self):
        self.assertIsNone(self.models()["small"]["lineage"])
        job = self.daemon.submit(small_job(method="wanda", sparsity=0.4, output="made"))
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        directory = os.path.join(self.daemon.models, "made")
        shutil.copytree(os.path.join(self.daemon.output, "made"), directory)
        made = self.models()["made"]
        self.assertTrue(made["supported"], made)
        self.assertEqual(made["lineage"], {"model": "small", "job": job, "method": "wanda", "sparsity": 0.4})
        with open(os.path.join(directory, "besad.json")) as file:
            report = json.load(file)
        report["spec"]["model"] = os.path.join(self.daemon.models, "small")  # as `besad run` may have it
        self.write(directory, "besad.json", content=json.dumps(report).encode())
        self.assertEqual(self.models()["made"]["lineage"]["model"], "small")
        for other in (b"{", b"[]", json.dumps({"spec": 1, "job": job}).encode(), json.dumps({**report, "job": 7}).encode()):
            self.write(directory, "besad.json", content=other)
            made = self.models()["made"]
            self.assertEqual((made["lineage"], made["supported"]), (None, True))

    def test_models_that_cannot_be_pruned(self):
        def without_weights(name, **files):
            directory = self.copy(name, ["model.safetensors"])
            for file, content in files.items():
                self.write(directory, file, content=content)

        self.change_config(self.copy("alien"), model_type="alien", architectures=["AlienForCausalLM"])
        self.write(self.copy("broken"), "config.json", content=b"{")
        self.write(self.copy("pointer"), "model.safetensors", content=LFS)
        self.write(self.copy("config-pointer"), "config.json", content=LFS)
        self.write(self.copy("page"), "config.json", content=b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n")
        self.write(self.copy("unlinked"), "model.safetensors", content=b"../../blobs/" + b"0" * 64)
        without_weights("nothing")
        without_weights("pickled", **{"pytorch_model.bin": b"PK"})
        without_weights("sharded", **{"model-00001-of-00002.safetensors": b"", "model-00002-of-00002.safetensors": b""})
        self.write(self.daemon.models, "gguf", "model-q4.gguf", content=b"GGUF")
        self.copy("headless", ["config.json"])
        self.write(self.daemon.models, "notes", "readme.txt", content=b"no model")
        expected = {"alien": ["config.json", "'alien'", "gemma3_text (Gemma3ForCausalLM)"],
                    "broken": ["config.json", "not valid JSON"],
                    "pointer": ["model.safetensors", "git-lfs", "git lfs pull"], "config-pointer": ["config.json", "git-lfs"],
                    "page": ["config.json", "web page"], "unlinked": ["model.safetensors", "link"],
                    "nothing": ["model.safetensors", "no weights"], "pickled": ["pytorch_model.bin", "safetensors"],
                    "sharded": ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
                    "gguf": ["config.json", "model-q4.gguf"], "headless": ["config.json", "model.safetensors"]}
        models = self.models()
        self.assertEqual(set(models), {*expected, "small"})
        for name, words in expected.items():
            with self.subTest(name):
                self.assertFalse(models[name]["supported"])
                for word in words:
                    self.assertIn(word, models[name]["reason"])
                problem = self.daemon.request("POST", "/v1/jobs", small_job(model=name))
                self.assertEqual(problem.status, 422)
                self.assertEqual(problem.json["errors"], [{"pointer": "/model", "detail": models[name]["reason"]}])

    def test_what_is_a_model(self):
        """By the names of its weights, where there is no config.json."""
        for directory, file in (("torch", "pytorch_model-00001-of-00002.bin"), ("original", "consolidated.00.pth"), ("ggml", "tiny.gguf"),
                                ("index", "pytorch_model.bin.index.json"), ("optimizer", "pytorch_model.json"), ("notes", "consolidated.txt"),
                                ("other", "weights.safetensors"), ("scheduler", "scheduler.bin")):
            self.write(self.daemon.models, directory, file, content=b"x")
        os.mkfifo(os.path.join(self.daemon.models, "small", "pipe"))
        models = self.models()
        self.assertEqual(set(models), {"torch", "original", "ggml", "small"})
        self.assertTrue(models["small"]["supported"])

    def test_what_is_too_much_to_look_at(self):
        """Files, headers, an index and a report that are larger than the list reads: it says so, or goes without."""
        many = self.copy("many")
        for number in range(4096):
            self.write(many, f"z{number}.txt", content=b"")
        headers = self.copy("headers", ["model.safetensors"])
        for number in range(2):
            with open(os.path.join(headers, f"model-0000{number + 1}-of-00002.safetensors"), "wb") as file:
                file.write((60 << 20).to_bytes(8, "little"))
                file.truncate(100 << 20)
        index = self.write(self.copy("index", ["model.safetensors"]), "model.safetensors.index.json", content=b"{")
        os.truncate(index, 65 << 20)
        os.truncate(self.write(self.copy("report"), "besad.json", content=b"{"), 5 << 20)
        models = self.models()
        for name, reason in (("many", "too many files"), ("headers", "too large to be read for this list"), ("index", "index.json")):
            self.assertFalse(models[name]["supported"])
            self.assertIn(reason, models[name]["reason"])
        self.assertEqual((models["report"]["supported"], models["report"]["lineage"]), (True, None))

    def test_where_nothing_is_looked_for(self):
        """Below six directories, and behind names that are longer than a spec may have."""
        deep = "/".join(f"d{n}" for n in range(6))
        shutil.copytree(os.path.join(self.daemon.models, "small"), os.path.join(self.daemon.models, deep))
        self.assertEqual(set(self.models()), {"small", deep})
        self.assertFalse(self.get("models")["truncated"])
        shutil.move(os.path.join(self.daemon.models, deep), os.path.join(self.daemon.models, deep.replace("d0", "more/d0")))
        self.assertEqual(set(self.models()), {"small"})
        self.assertTrue(self.get("models")["truncated"])
        shutil.rmtree(os.path.join(self.daemon.models, "more"))
        long = "/".join("x" * 240 for _ in range(5))
        shutil.copytree(os.path.join(self.daemon.models, "small"), os.path.join(self.daemon.models, long))
        self.write(self.daemon.models, "deleted\x7f", "config.json", content=b"{}")
        self.assertEqual(set(self.models()), {"small"})

    def test_caches_of_other_things(self):
        """A title is told of what a hub's cache has where it has it, and of nothing else."""
        for place, title in (("hub/models--a--b/snapshots/1", "a/b"), ("models--b/snapshots/1", "b"), ("datasets--a--b/snapshots/1", None),
                             ("models--a--c/snapshots/1/part", None), ("snapshots/1", None)):
            shutil.copytree(os.path.join(self.daemon.models, "small"), os.path.join(self.daemon.models, place))
            with self.subTest(place):
                self.assertEqual(self.models()[place]["title"], title)

    def test_a_hugging_face_cache(self):
        files = {}
        for name in ("config.json", "model.safetensors"):
            with open(os.path.join(self.daemon.models, "small", name), "rb") as file:
                files[name] = file.read()
        snapshot = self.hub(os.path.join(self.daemon.models, "hub"), "models--meta-llama--Llama-3.2-1B", files)
        models = self.models()
        self.assertEqual(set(models), {"small", f"hub/{snapshot}"})
        model = models[f"hub/{snapshot}"]
        self.assertEqual((model["supported"], model["title"]), (True, "meta-llama/Llama-3.2-1B"), model)
        done = self.daemon.finish(self.daemon.submit(small_job(model=model["name"], method="magnitude")))
        self.assertEqual(done["state"], "succeeded", done["error"])
        problem = self.daemon.request("POST", "/v1/jobs", small_job(model="hub/models--meta-llama--Llama-3.2-1B")).json
        self.assertIn("snapshots/", problem["errors"][0]["detail"])

    def test_a_model_that_changes(self):
        self.assertTrue(self.models()["small"]["supported"])
        directory = os.path.join(self.daemon.models, "small")
        weights = os.path.join(directory, "model.safetensors")
        size = os.path.getsize(weights)
        os.truncate(weights, size - 1)
        self.assertIn("model.safetensors", self.models()["small"]["reason"])
        os.truncate(weights, size)
        self.assertTrue(self.models()["small"]["supported"])
        self.change_config(directory, num_hidden_layers=1)
        self.assertEqual(self.models()["small"]["blocks"], 1)
        os.rename(directory, directory + "-renamed")
        self.assertEqual(list(self.models()), ["small-renamed"])

    def bytes_read(self):
        with open(f"/proc/{self.daemon.process.pid}/io") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("rchar:"))

    def test_what_is_known_is_not_read_again(self):
        large = 3 << 20
        self.change_config(os.path.join(self.daemon.models, "small"), _name_or_path=large * "x")
        before = self.bytes_read()
        self.assertEqual(self.models()["small"]["blocks"], 2)
        first = self.bytes_read()
        self.assertGreater(first - before, large)
        self.models()
        self.assertLess(self.bytes_read() - first, large)
        self.change_config(os.path.join(self.daemon.models, "small"), _name_or_path=(large + 1) * "x")
        second = self.bytes_read()
        self.models()
        self.assertGreater(self.bytes_read() - second, large)

    def test_links_out_of_the_model_root(self):
        outside = os.path.join(self.daemon.directory, "elsewhere")
        shutil.copytree(os.path.join(self.daemon.models, "small"), outside)
        os.symlink(outside, os.path.join(self.daemon.models, "linked"))
        os.mkdir(os.path.join(self.daemon.models, "links"))
        for name in os.listdir(outside):
            os.symlink(os.path.join(outside, name), os.path.join(self.daemon.models, "links", name))
        models = self.models()
        self.assertEqual(set(models), {"small", "links"})
        self.assertFalse(models["links"]["supported"])
        self.assertIn("leads out of", models["links"]["reason"])

    def test_too_many_models(self):
        for number in range(1001):
            self.write(self.daemon.models, "many", f"{number:04}", "config.json", content=b"{}")
        answer = self.get("models")
        self.assertEqual((len(answer["models"]), answer["truncated"]), (1000, True))

    # ---- data

    def test_data(self):
        self.write(self.daemon.data, "plain.txt", content=b"Some text.\n" * 100)
        self.write(self.daemon.data, "deep", "rows.jsonl.gz", content=gzip.compress(b'{"text": "a"}\n{"text": "b"}\n'))
        self.write(self.daemon.data, "rows.json", content=b'[{"text": "a"},\n {"text": "b"}]\n')
        self.write(self.daemon.data, ".hidden", content=b"text")
        self.write(self.daemon.data, "table.parquet", content=b"PAR1" + bytes(100) + b"PAR1")
        self.write(self.daemon.data, "pointer.jsonl", content=LFS)
        self.write(self.daemon.data, "empty.txt", content=b"")
        shutil.copy(os.path.join(self.daemon.models, "small", "model.safetensors"),
                    os.path.join(self.daemon.data, "weights.safetensors"))
        files = self.data()
        found = {name: (f["kind"], f["compression"], f["supported"]) for name, f in files.items()}
        self.assertEqual(found, {"plain.txt": ("text", "none", True), "deep/rows.jsonl.gz": ("json_lines", "gzip", True),
                                 "rows.json": ("json_array", "none", True), "tokens.safetensors": ("tokens", "none", True),
                                 "table.parquet": (None, None, False), "pointer.jsonl": (None, None, False),
                                 "empty.txt": (None, None, False), "weights.safetensors": (None, None, False)})
        for name, f in files.items():
            self.assertEqual(f["size"], os.path.getsize(os.path.join(self.daemon.data, name)))
            self.assertEqual(f["reason"] is None, f["supported"])
        for name, word in (("table.parquet", "arquet"), ("pointer.jsonl", "git-lfs"), ("empty.txt", "empty"),
                           ("weights.safetensors", "input_ids")):
            self.assertIn(word, files[name]["reason"])
            self.assertIn(name, files[name]["reason"])
        done = self.daemon.finish(self.daemon.submit(small_job(method="wanda")))
        self.assertEqual(done["state"], "succeeded", done["error"])

    def test_tokens_that_are_none(self):
        for name, content in (("short.safetensors", b"\1\0\0"), ("long.safetensors", (2 << 20).to_bytes(8, "little") + b'{"input_ids":'),
                              ("wrong.safetensors", (2).to_bytes(8, "little") + b"[]")):
            self.write(self.daemon.data, name, content=content)
        files = self.data()
        for name in ("short.safetensors", "long.safetensors", "wrong.safetensors"):
            self.assertFalse(files[name]["supported"])
            self.assertIn(name, files[name]["reason"])
        self.assertIn("a header of 2097152 bytes is not one of a file of tokens", files["long.safetensors"]["reason"])

    def test_data_in_a_hugging_face_cache(self):
        rows = gzip.compress(b'{"text": "a"}\n' * 9)
        snapshot = self.hub(self.daemon.data, "datasets--allenai--c4", {"en/c4-train.json.gz": rows})
        self.assertEqual(set(self.data()), {"tokens.safetensors", f"{snapshot}/en/c4-train.json.gz"})
        self.assertEqual(self.data()[f"{snapshot}/en/c4-train.json.gz"]["kind"], "json_lines")

    def test_links_out_of_the_data_root(self):
        outside = self.write(self.daemon.directory, "elsewhere", "secret.txt", content=b"secret")
        inside = self.write(self.daemon.data, "inside.txt", content=b"public")
        for name, target in (("out.txt", outside), ("out", os.path.dirname(outside)), ("up.txt", "../elsewhere/secret.txt"),
                             ("broken.txt", "nothing"), ("self", "."), ("in.txt", inside), ("near.txt", "inside.txt")):
            os.symlink(target, os.path.join(self.daemon.data, name))
        self.assertEqual(set(self.data()), {"tokens.safetensors", "inside.txt", "in.txt", "near.txt"})

    def test_data_that_changes(self):
        path = self.write(self.daemon.data, "file", content=b"Some text.\n")
        self.assertEqual(self.data()["file"]["kind"], "text")
        self.write(path, content=b'{"text": "a"}\n{"text": "b"}\n')
        self.assertEqual(self.data()["file"]["kind"], "json_lines")
        write_calibration(path, 2, 8)
        self.assertEqual(self.data()["file"]["kind"], "tokens")
        os.remove(path)
        self.assertNotIn("file", self.data())

    def test_names_that_no_spec_can_give(self):
        for name in (b"\xff.txt", b"a\nb.txt", "ä ö.txt".encode()):
            self.write(os.fsencode(self.daemon.data), name, content=b"text")
        self.assertEqual(set(self.data()), {"tokens.safetensors", "ä ö.txt"})

    def test_unreadable(self):
        if os.geteuid() == 0:
            self.skipTest("root reads everything")
        os.chmod(self.write(self.daemon.data, "private.txt", content=b"text"), 0)
        os.mkdir(os.path.join(self.daemon.models, "private"), 0)
        self.addCleanup(os.chmod, os.path.join(self.daemon.models, "private"), 0o700)
        self.assertIn("Permission denied", self.data()["private.txt"]["reason"])
        self.assertIn("Permission denied", self.models()["private"]["reason"])


if __name__ == "__main__":
    unittest.main()
