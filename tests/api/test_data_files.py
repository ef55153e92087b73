#!/usr/bin/env python3
"""Data files as people have them, over HTTP: the same rows in every form that is read give the same tokens and perplexity, and every form that
is not is refused by name. tests/data/inputs/make.py made what Python's own library cannot write."""
import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import tarfile
import unittest
import zipfile

from support import Daemon, ROOT

INPUTS = os.path.join(ROOT, "tests", "data", "inputs")
LENGTH = 16


def kept(name):
    with open(os.path.join(INPUTS, name), "rb") as file:
        return file.read()


ROWS = [json.loads(line) for line in kept("rows.jsonl").splitlines()]
TEXTS = [row["text"] for row in ROWS]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zipped(name, content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def tarred(name, content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


class DataFiles(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"))
        shutil.copytree(os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(cls.daemon.models, "tiny"))
        cls.daemon.start()
        cls.write("plain.jsonl", kept("rows.jsonl"))
        cls.expected = cls.numbers(cls.finish("plain.jsonl"))

    @classmethod
    def tearDownClass(cls):
        cls.daemon.remove()

    @classmethod
    def write(cls, name, content):
        path = os.path.join(cls.daemon.data, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)

    @classmethod
    def finish(cls, name, field=None, seed=0):
        """A job with the file as its calibration and its data set; the job, or the problem with it."""
        data = {"path": name, "sequence_length": LENGTH, **({"field": field} if field else {})}
        response = cls.daemon.request("POST", "/v1/jobs", {
            "model": "tiny", "method": "wanda", "sparsity": 0.5, "precision": "f32", "calibration": {**data, "samples": 4, "seed": seed},
            "evaluation": {"perplexity": [{**data, "name": "rows"}]}})
        return cls.daemon.finish(response.json["id"]) if response.status == 201 else response.json

    @staticmethod
    def numbers(job):
        assert job["state"] == "succeeded", job["error"]
        return job["result"]["calibration_hash"], job["result"]["perplexity"]["rows"]["dense"]

    def same(self, name, content, field=None):
        with self.subTest(name):
            self.write(name, content)
            self.assertEqual(self.numbers(self.finish(name, field)), self.expected)

    def refused(self, name, content, *words, field=None, seed=0):
        with self.subTest(name):
            self.write(name, content)
            job = self.finish(name, field, seed)
            message = job["error"]["message"] if "state" in job else json.dumps(job["errors"])
            self.assertNotEqual(job.get("state"), "succeeded")
            for word in (name, *words):
                self.assertIn(word, message)

    def warnings(self, job):
        return [event["data"]["message"] for event in self.daemon.events(job["id"]) if event["type"] == "warning"]

    def test_forms(self):
        self.same("noext", lines(ROWS))
        self.same("rows.txt", lines(ROWS))
        self.same("C4.JSON.GZ", gzip.compress(lines(ROWS)))
        self.same("members.gz", gzip.compress(lines(ROWS[:7])) + gzip.compress(lines(ROWS[7:])) + bytes(100))
        self.same("rows.jsonl.zst", kept("rows.jsonl.zst"))
        self.same("array.json", json.dumps(ROWS).encode())
        self.same("pretty.json", json.dumps(ROWS, indent=2).encode())
        self.same("pretty.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS).encode())
        self.same("mark.jsonl", b"\xef\xbb\xbf" + lines(ROWS))
        self.same("mark.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode())
        self.same("returns.jsonl", b"\r\n\r\n" + lines(ROWS).replace(b"\n", b"\r\n")[:-2])

    def test_hub(self):
        """Links of a Hugging Face cache: the blob's name says nothing."""
        for name, content in (("en/c4-train.json.gz", gzip.compress(lines(ROWS))), ("plain.jsonl", lines(ROWS))):
            blob = f"datasets--c4/blobs/{name.replace('/', '-')[:3]}0123"
            self.write(blob, content)
            link = os.path.join(self.daemon.data, "datasets--c4", "snapshots", "24d9", name)
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(os.path.relpath(os.path.join(self.daemon.data, blob), os.path.dirname(link)), link)
            job = self.finish(f"datasets--c4/snapshots/24d9/{name}")
            self.assertEqual(self.numbers(job), self.expected)

    def test_fields(self):
        self.same("content.jsonl", lines({"content": text, "text": "x"} for text in TEXTS), "content")
        self.same("nested.jsonl", lines({"data": [{"body": text}]} for text in TEXTS), "data.0.body")
        self.same("dotted.jsonl", lines({"data.body": text} for text in TEXTS), "data.body")
        parts = [text.split("\n") for text in TEXTS]
        self.same("messages.jsonl", lines({"messages": [{"role": "user", "content": p} for p in part]} for part in parts), "messages")
        self.same("sharegpt.jsonl", lines({"conversations": [{"from": "human", "value": p} for p in part]} for part in parts), "conversations")
        self.same("parts.jsonl", lines({"messages": [{"role": "user", "content": [{"type": "text", "text": text[:9]}, {"type": "image"},
                                                                                  {"type": "text", "text": text[9:]}]},
                                                     {"role": "assistant", "content": None}]} for text in TEXTS), "messages")
        job = self.finish("content.jsonl", "content")
        self.assertEqual(job["spec"]["calibration"]["field"], "content")
        self.assertEqual(job["spec"]["evaluation"]["perplexity"][0]["field"], "content")

    def test_field_that_is_not_there(self):
        self.refused("pc.jsonl", lines({"prompt": text, "completion": "x"} for text in TEXTS), "'prompt', 'completion'", "'field'", "line 1")
        self.refused("columns.json", json.dumps({"text": TEXTS}).encode(), "'text' is a list of 24", "line 1")
        self.refused("numbers.jsonl", lines({"text": 1} for _ in TEXTS), "'text' is a number")

    def test_as_python_reads_them(self):
        self.same("nan.jsonl", lines({**row, "score": float("nan"), "low": -float("inf")} for row in ROWS))
        self.same("twice.jsonl", b"".join(b'{"text": "short", ' + line[1:] for line in lines(ROWS).splitlines(True)))
        changed = [{"text": text + "\ud83d\0"} for text in TEXTS]
        self.write("odd.jsonl", lines(changed))
        self.write("same.jsonl", lines({"text": text + "\ufffd\0"} for text in TEXTS))
        self.assertEqual(self.numbers(self.finish("odd.jsonl")), self.numbers(self.finish("same.jsonl")))

    def test_rows_without_text(self):
        """Left out with one warning, whatever the seed draws; a row that is broken fails the job, whatever the seed draws."""
        rows = ROWS[:5] + [{"text": None}] + ROWS[5:] + [{"id": 1}]
        self.write("null.jsonl", lines(rows))
        job = self.finish("null.jsonl")
        self.assertEqual(self.numbers(job), self.expected)
        warnings = self.warnings(job)
        self.assertEqual(len(warnings), 1, warnings)
        self.assertIn("null.jsonl: 2 of 26 rows have no text in 'text'", warnings[0])
        for seed in range(3):
            self.refused("broken.jsonl", lines(ROWS) + b'{"text": ', "line 25", "not valid JSON", seed=seed)

    def test_text_that_begins_like_json(self):
        for name, begin in (("wiki", "[ edit ]\n"), ("latex.tex", "{\\em slanted}\n"), ("code.c", "{\n\tint x;\n}\n")):
            with self.subTest(name):
                self.write(name, (begin + "\n".join(TEXTS)).encode())
                job = self.finish(name)
                self.assertEqual(job["state"], "succeeded", job["error"])
        self.refused("wiki.json", ("[ edit ]\n" + "\n".join(TEXTS)).encode(), "not valid JSON", "line 1")

    def test_refused(self):
        data = lines(ROWS)
        self.refused("rows.parquet", kept("rows.parquet"), "Parquet", "JSON Lines")
        self.refused("no-suffix", kept("rows.parquet"), "Parquet")
        self.refused("packed.parquet.gz", gzip.compress(kept("rows.parquet")), "gzip", "Parquet")
        self.refused("rows.arrow", kept("rows.arrow"), "Arrow")
        self.refused("rows.feather", kept("rows.feather"), "Arrow")
        self.refused("ids.npy", kept("ids.npy"), "NumPy", "input_ids")
        self.refused("ids.pt", kept("ids.pt"), "PyTorch", "input_ids")
        self.refused("ids-old.pt", kept("ids-old.pt"), "pickle", "input_ids")
        self.refused("ids.bin", kept("ids.bin"), "binary", "input_ids")
        self.refused("ids.pkl", pickle.dumps(TEXTS), "pickle")
        self.refused("rows.jsonl.bz2", bz2.compress(data), "bzip2", "gzip or zstd")
        self.refused("rows.jsonl.xz", lzma.compress(data), "xz", "gzip or zstd")
        self.refused("rows.zip", zipped("rows.jsonl", data), "zip archive", "unpack")
        self.refused("rows.tar.gz", gzip.compress(tarred("rows.jsonl", data)), "tar archive")
        self.refused("utf16.txt", "\n".join(TEXTS).encode("utf-16"), "UTF-16", "UTF-8")
        self.refused("utf16le.txt", "\n".join(TEXTS).encode("utf-16-le"), "UTF-16")
        self.refused("latin1.txt", ("Größe über alles. " * 100).encode("latin-1"), "not UTF-8", "iconv")
        self.refused("zero.txt", b"words and \0 words " * 100, "binary")
        self.refused("pointer.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer", "git lfs pull")
        self.refused("page.jsonl", b"<!DOCTYPE html>\n<html>404</html>\n", "web page")
        self.refused("cut.jsonl.zst", kept("rows.jsonl.zst")[:-9], "zstd", "cut short")
        self.refused("array.txt", b'["a", "b"]', "row 1", "must be an object")

    def test_refused_when_submitted(self):
        """What the first bytes tell is told before anything is queued, at each field that names the file."""
        self.write("rows.parquet", kept("rows.parquet"))
        data = {"path": "rows.parquet", "sequence_length": LENGTH}
        response = self.daemon.request("POST", "/v1/jobs", {
            "model": "tiny", "sparsity": 0.5, "calibration": {**data, "samples": 4},
            "evaluation": {"perplexity": [data], "tasks": [{"path": "rows.parquet"}]}})
        self.assertEqual(response.status, 422, response.body)
        self.assertEqual({e["pointer"] for e in response.json["errors"] if "Parquet" in e["detail"]},
                         {"/calibration/path", "/evaluation/perplexity/0/path", "/evaluation/tasks/0/path"})
        self.assertNotIn(self.daemon.data, response.body.decode())


if __name__ == "__main__":
    unittest.main()
