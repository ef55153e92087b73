#!/usr/bin/env python3
"""What a job would take, asked over HTTP: the numbers agree with what jobs then take, and asking changes nothing."""
import glob
import json
import os
import shutil
import sqlite3
import threading
import unittest

from support import SAMPLES, Daemon, small_job, small_model, wait_for, write_model

BLOCKS = 4


def disk_bytes(directory):
    return sum(os.path.getsize(os.path.join(directory, name)) for name in os.listdir(directory) if name != "besad.json")


class EstimateTest(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon().start()
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, BLOCKS)

    def estimate(self, spec, status=200):
        response = self.daemon.request("POST", "/v1/estimate", spec)
        self.assertEqual(response.status, status, response.body)
        return response.json

    def state(self):
        """All that the daemon has written: its database's rows, and files."""
        with sqlite3.connect(f"file:{self.daemon.state}/besad.db?mode=ro", uri=True) as db:
            rows = [list(db.execute(f"SELECT * FROM {table}")) for table in ("jobs", "events", "blocks")]
        files = sorted(glob.glob(os.path.join(self.daemon.output, "**"), recursive=True, include_hidden=True))
        return rows, files, sorted(os.listdir(os.path.join(self.daemon.state, "jobs")))

    def test_the_files_of_a_tune(self):
        """Its state, twice while one replaces the other, as large as it is where a job keeps it."""
        spec = small_job(method="wanda", refit={"method": "global", "batch_size": 4, "epochs": 1, "global_epochs": 16})
        told = self.estimate(spec)["disk"]["checkpoint"]["bytes"]
        job = self.daemon.submit(spec)
        wait_for("a step", lambda: any(e["type"] == "tune.step" for e in self.daemon.events(job)))
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/pause").status, 200)
        wait_for("its pause", lambda: self.daemon.job(job)["state"] == "paused")
        twice = 2 * os.path.getsize(os.path.join(self.daemon.state, "jobs", job, "tune.bin"))
        self.assertAlmostEqual(told / twice, 1, delta=0.02)

    def test_answer(self):
        before = self.state()
        spec = small_job(evaluation={"perplexity": [{"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]})
        answer = self.estimate(spec)
        self.assertEqual(set(answer), {"backend", "device", "precision", "memory", "disk", "seconds", "spec"})
        info = self.daemon.get("/v1/info").json
        self.assertEqual((answer["backend"], answer["device"], answer["precision"]), (info["backend"], info["device"], info["precision"]))
        device, process = answer["memory"]["device"], answer["memory"]["process"]
        for part in (device, process):
            self.assertGreater(part["peak_bytes"], 0)
            self.assertGreater(part["available_bytes"], part["peak_bytes"])
            self.assertIs(part["fits"], True)
        self.assertGreater(process["peak_bytes"], device["peak_bytes"])
        # Two savepoints' hidden states are there while one replaces the other.
        self.assertGreaterEqual(answer["disk"]["checkpoint"]["bytes"], 2 * (64 + SAMPLES * 64 * 64 * 4))
        self.assertIs(answer["disk"]["fits"], True)
        self.assertEqual(answer["seconds"], {"total": None, "pruning": None, "rest": None})  # nothing was measured
        self.assertEqual(self.state(), before)
        self.assertEqual(self.daemon.get("/v1/jobs").json["jobs"], [])

        done = self.daemon.finish(self.daemon.submit(answer["spec"] | {"output": "made"}))
        self.assertEqual(done["state"], "succeeded", done["error"])
        self.assertEqual(done["spec"], answer["spec"] | {"output": "made"})
        self.assertEqual(disk_bytes(os.path.join(self.daemon.output, "made")), answer["disk"]["output"]["bytes"])

    def test_more_takes_more(self):
        less = self.estimate(small_job(method="wanda", calibration={"path": "tokens.safetensors", "samples": 2, "sequence_length": 64}))
        more = self.estimate(small_job(method="wanda", calibration={"path": "tokens.safetensors", "samples": 32, "sequence_length": 64}))
        timed = self.estimate(small_job(method="wanda", calibration={"path": "tokens.safetensors", "samples": 2, "sequence_length": 64},
                                        hardware={"measure": True}))
        copied = 2 * 64 * 1048576  # what is copied to find the memory's rate
        self.assertGreater(timed["memory"]["process"]["peak_bytes"], copied)
        self.assertGreater(timed["memory"]["process"]["peak_bytes"], less["memory"]["process"]["peak_bytes"])
        learning = self.estimate(small_job(method="besa", calibration={"path": "tokens.safetensors", "samples": 32, "sequence_length": 64}))
        for part in ("device", "process"):
            self.assertLess(less["memory"][part]["peak_bytes"], more["memory"][part]["peak_bytes"])
            self.assertLess(more["memory"][part]["peak_bytes"], learning["memory"][part]["peak_bytes"])
        self.assertLess(less["disk"]["checkpoint"]["bytes"], more["disk"]["checkpoint"]["bytes"])
        none = self.estimate({"model": "small", "method": "none", "evaluation": {
            "perplexity": [{"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]}})
        self.assertGreater(none["memory"]["device"]["peak_bytes"], 0)
        self.assertEqual((none["disk"]["output"]["bytes"], none["disk"]["checkpoint"]["bytes"]), (0, 0))

    def test_a_packed_output_takes_less(self):
        plain = self.estimate(small_job(method="wanda", quantization={"bits": 4, "format": "dequantized"}))
        packed = self.estimate(small_job(method="wanda", quantization={"bits": 4}))
        self.assertLess(packed["disk"]["output"]["bytes"], plain["disk"]["output"]["bytes"])
        done = self.daemon.finish(self.daemon.submit(packed["spec"] | {"output": "made"}))
        self.assertEqual(done["state"], "succeeded", done["error"])
        self.assertEqual(disk_bytes(os.path.join(self.daemon.output, "made")), packed["disk"]["output"]["bytes"])
        shutil.copytree(os.path.join(self.daemon.output, "made"), os.path.join(self.daemon.models, "packed"))
        listed = {model["name"]: model for model in self.daemon.get("/v1/models").json["models"]}
        self.assertEqual(set(listed["packed"]), set(listed["small"]))
        again = self.estimate(small_job(method="wanda", model="packed"))
        self.assertGreater(again["disk"]["output"]["bytes"], packed["disk"]["output"]["bytes"])

    def test_seconds(self):
        first = small_job(method="wanda", output="first", progress={"perplexity_every": 0})
        done = self.daemon.finish(self.daemon.submit(first))
        self.assertEqual(done["state"], "succeeded", done["error"])
        same = self.estimate(first | {"output": "second"})["seconds"]
        self.assertEqual((same["pruning"]["measured_blocks"], same["pruning"]["measured_jobs"], same["pruning"]["scaled"]), (BLOCKS, 1, False))
        self.assertAlmostEqual(same["pruning"]["seconds"], done["result"]["pruning_seconds"], places=6)
        self.assertEqual(same["rest"]["measured_jobs"], 1)
        self.assertAlmostEqual(same["total"], done["result"]["seconds"], places=6)

        # Other numbers of tokens are scaled; loading them takes another time.
        half = small_job(method="wanda", progress={"perplexity_every": 0})
        half["calibration"] = half["calibration"] | {"samples": SAMPLES // 2}
        half = self.estimate(half)["seconds"]
        self.assertIs(half["pruning"]["scaled"], True)
        self.assertAlmostEqual(half["pruning"]["seconds"], same["pruning"]["seconds"] / 2, places=6)
        self.assertIsNone(half["rest"])
        self.assertIsNone(half["total"])
        # A twice as deep model takes twice as long.
        small_model(self.daemon, 2 * BLOCKS, "deep")
        deep = self.estimate(first | {"model": "deep", "output": "second"})["seconds"]
        self.assertIs(deep["pruning"]["scaled"], False)
        self.assertAlmostEqual(deep["pruning"]["seconds"], 2 * same["pruning"]["seconds"], places=6)
        self.assertIsNone(deep["total"])
        # Of another method nothing is known.
        self.assertEqual(self.estimate(small_job(method="besa"))["seconds"]["pruning"], None)
        # What was deleted is forgotten.
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{done['id']}").status, 204)
        self.assertIsNone(self.estimate(first | {"output": "second"})["seconds"]["total"])

    def test_seconds_of_other_work(self):
        """A block's time tells of another's where both do the same to each weight and token; what is around the blocks, where that is the same."""
        plain = {"model": "small", "method": "magnitude", "sparsity": 0.5}
        for output, spec in (("first", small_job(method="wanda", progress={"perplexity_every": 0})), ("plain", plain),
                             ("held", plain | {"calibration": small_job()["calibration"]})):
            done = self.daemon.finish(self.daemon.submit(spec | {"output": output}))
            self.assertEqual(done["state"], "succeeded", done["error"])
        first = small_job(method="wanda", progress={"perplexity_every": 0})
        same = self.estimate(first)["seconds"]
        self.assertIsNotNone(same["total"])
        # Half as many weights and more of another model: in proportion, for linears alone.
        write_model(os.path.join(self.daemon.models, "thin"), 64, 32, 4, 2, BLOCKS, vocab=300, scale=0.1)
        thin = self.estimate(first | {"model": "thin"})["seconds"]
        self.assertIs(thin["pruning"]["scaled"], True)
        self.assertLess(thin["pruning"]["seconds"], same["pruning"]["seconds"])
        self.assertIsNone(thin["rest"])
        half = first | {"calibration": first["calibration"] | {"sequence_length": 32, "samples": SAMPLES}}
        self.assertIs(self.estimate(half)["seconds"]["pruning"]["scaled"], True)
        # Of another precision, or what is done otherwise, nothing is known.
        other = {"bf16": "f32", "f32": "bf16"}[self.estimate(first)["precision"]]
        self.assertEqual(self.estimate(first | {"precision": other})["seconds"], {"total": None, "pruning": None, "rest": None})
        known = self.estimate(first | {"precision": self.estimate(first)["precision"]})["seconds"]
        self.assertEqual(known, same)
        self.assertIsNone(self.estimate(first | {"pattern": "2:4"})["seconds"]["pruning"])
        self.assertIsNone(self.estimate(first | {"allocation": {"method": "outlier"}})["seconds"]["rest"])
        tuned = self.estimate(first | {"refit": {"method": "global"}})["seconds"]
        self.assertIsNone(tuned["rest"])
        # One that was calibrated tells of none that is not, and the other way round.
        [job] = [j["id"] for j in self.daemon.get("/v1/jobs").json["jobs"] if j["spec"]["output"] == "plain"]
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{job}").status, 204)
        self.assertIsNone(self.estimate(plain)["seconds"]["pruning"])
        self.assertEqual(self.estimate(plain | {"calibration": small_job()["calibration"]})["seconds"]["pruning"]["measured_jobs"], 1)

    def test_timings_that_cannot_be_read(self):
        """They tell nothing."""
        spec = small_job(method="wanda", output="first", progress={"perplexity_every": 0})
        done = self.daemon.finish(self.daemon.submit(spec))
        self.assertEqual(done["state"], "succeeded", done["error"])
        self.daemon.stop()
        for column, part in (("result", "rest"), ("spec", "pruning")):
            with sqlite3.connect(f"{self.daemon.state}/besad.db") as db:
                db.execute(f"UPDATE jobs SET {column} = '{{}}'")
            self.daemon.start()
            self.assertIsNone(self.estimate(spec | {"output": "second"})["seconds"][part])
            self.daemon.stop()

    def test_refusals(self):
        """As of a job: the same status, and the same problems."""
        specs = [{}, {"model": "small"}, {"model": "none", "sparsity": 2}, small_job(besa={"candidates": 1}), small_job(unknown=1),
                 small_job(output="../out"), small_job(calibration={"path": "there-is-none"}), [], "text"]
        for spec in specs:
            job, estimate = (self.daemon.request("POST", path, json.dumps(spec), {"Content-Type": "application/json"})
                             for path in ("/v1/jobs", "/v1/estimate"))
            self.assertEqual(job.status, 422, job.body)
            self.assertEqual((estimate.status, estimate.json), (job.status, job.json))
        os.mkdir(os.path.join(self.daemon.output, "taken"))
        self.assertEqual(self.estimate(small_job(output="taken"), 409)["type"], "urn:besad:problem:output-exists")
        for body, headers, status in (("{", {}, 400), ('{"model": "a", "model": "b"}', {}, 400), ("{}", {"Content-Type": "text/plain"}, 415),
                                      (" " * ((1 << 20) + 1), {}, 413), ("{}", {"Accept": "text/html"}, 406),
                                      ("{}", {"Origin": "http://elsewhere"}, 403)):
            headers = {"Content-Type": "application/json"} | headers
            for path in ("/v1/jobs", "/v1/estimate"):
                self.assertEqual(self.daemon.request("POST", path, body, headers).status, status, (path, body[:40], headers))
        get = self.daemon.get("/v1/estimate")
        self.assertEqual((get.status, get.headers["Allow"]), (405, "POST"))
        self.assertEqual(self.daemon.get("/v1/jobs").json["jobs"], [])

    def test_beside_a_job(self):
        idle = self.estimate(small_job(output="asked"))
        small_model(self.daemon, 100, "long")
        job = self.daemon.submit(small_job(model="long", output="running", besa={"epochs": 100}))  # until it is cancelled
        wait_for("a step", lambda: any(e["type"] == "block.step" for e in self.daemon.events(job)))
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(self.estimate(small_job(output="asked")))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.daemon.job(job)["state"], "running")
        for answer in answers:
            for part in ("device", "process"):
                self.assertEqual(answer["memory"][part]["peak_bytes"], idle["memory"][part]["peak_bytes"])
                self.assertIs(answer["memory"][part]["fits"], True)
        self.assertEqual(len(answers), 4)
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/cancel").status, 200)
        self.assertEqual(self.daemon.finish(job)["state"], "cancelled")


class TokenTest(unittest.TestCase):
    def test_token(self):
        daemon = Daemon()
        self.addCleanup(daemon.remove)
        path = os.path.join(daemon.directory, "token")
        with open(path, "w") as file:
            file.write("secret-secret-secret-secret-secret\n")
        os.chmod(path, 0o600)
        daemon.token = "secret-secret-secret-secret-secret"
        daemon.start("--token-file", path)
        small_model(daemon, BLOCKS)
        self.assertEqual(daemon.request("POST", "/v1/estimate", small_job()).status, 200)
        self.assertEqual(daemon.request("POST", "/v1/estimate", small_job(), {"Authorization": "Bearer wrong"}).status, 401)


if __name__ == "__main__":
    unittest.main()
