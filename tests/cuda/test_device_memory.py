#!/usr/bin/env python3
"""--device-memory, on a besad with the emulated CUDA backend: what cannot fit fails at once, with the numbers."""
import json
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
from support import BESAD, PATIENCE, Daemon, write_calibration, write_model, wait_for  # noqa: E402

SAMPLES, FEW, TOKENS = 1536, 512, 64


class DeviceMemory(unittest.TestCase):
    def setUp(self):
        self.place = Daemon()  # for its directories; it is not started
        self.addCleanup(self.place.remove)
        write_model(os.path.join(self.place.models, "small"), 64, 32, 2, 1, 2, vocab=300, scale=0.1)
        write_calibration(os.path.join(self.place.data, "tokens.safetensors"), SAMPLES, TOKENS, vocab=300)

    def run_job(self, output, memory=None, method="wanda", samples=SAMPLES):
        calibration = {"path": "tokens.safetensors", "samples": samples, "sequence_length": TOKENS}
        job, checkpoint = (os.path.join(self.place.directory, output + end) for end in (".json", ".checkpoint"))
        with open(job, "w") as file:
            json.dump({"model": "small", "output": output, "method": method, "sparsity": 0.5,
                       **({"calibration": calibration} if method == "wanda" else {})}, file)
        done = subprocess.run([BESAD, "run", "--backend", "cuda", *(["--device-memory", f"{memory}M"] if memory else []),
                               "--checkpoint-dir", checkpoint, "--model-root", self.place.models, "--data-root", self.place.data,
                               "--output-root", self.place.output, job], capture_output=True, text=True, timeout=PATIENCE)
        events = []
        if os.path.exists(os.path.join(checkpoint, "events.jsonl")):
            with open(os.path.join(checkpoint, "events.jsonl")) as file:
                events = [json.loads(line) for line in file]
        return done, events

    def test_too_little(self):
        done, events = self.run_job("none", 66)
        self.assertEqual(done.returncode, 1, done.stderr)
        needs = re.search(r"the job needs (\d+) MiB of device memory, and 66 MiB are free", done.stderr)
        self.assertTrue(needs, done.stderr)
        self.assertNotIn("block.started", [e["type"] for e in events])

    def test_less_gives_the_same(self):
        """Hidden states that do not fit on the device live on the host; blocks go to disk beside the next one from either."""
        needs = int(re.search(r"the job needs (\d+) MiB", self.run_job("none", 66, samples=FEW)[0].stderr)[1])
        models = []
        for output, memory in (("all", None), ("less", needs * 32 // 31 + 2)):
            done, events = self.run_job(output, memory, samples=FEW)
            self.assertEqual(done.returncode, 0, done.stderr)
            warnings = [e["data"]["message"] for e in events if e["type"] == "warning"]
            self.assertEqual(any("host memory" in w for w in warnings), memory is not None, warnings)
            blocks = [(e["data"]["block"], e["type"]) for e in events if e["type"].startswith("block.")]
            self.assertEqual(blocks, [(b, t) for b in range(2) for t in ("block.started", "block.finished")])
            with open(os.path.join(self.place.output, output, "model.safetensors"), "rb") as file:
                models.append(file.read())
        self.assertEqual(models[0], models[1])

    def test_estimate(self):
        """What an estimate says of the device is what a job then finds, also beside one."""
        daemon = Daemon("--backend", "cuda", "--device-memory", "66M")
        self.addCleanup(daemon.remove)
        write_model(os.path.join(daemon.models, "small"), 64, 32, 2, 1, 2, vocab=300, scale=0.1)
        write_calibration(os.path.join(daemon.data, "tokens.safetensors"), FEW, TOKENS, vocab=300)
        daemon.start()
        spec = {"model": "small", "method": "wanda", "sparsity": 0.5,
                "calibration": {"path": "tokens.safetensors", "samples": FEW, "sequence_length": TOKENS}}
        device = daemon.request("POST", "/v1/estimate", spec).json["memory"]["device"]
        self.assertIs(device["fits"], False)
        self.assertEqual(device["available_bytes"], 66 << 20)
        done = daemon.finish(daemon.submit(spec))
        self.assertEqual(done["state"], "failed")
        said = re.search(r"the job needs (\d+) MiB of device memory, and (\d+) MiB are free", done["error"]["message"])
        self.assertEqual([int(n) for n in said.groups()], [(device["peak_bytes"] >> 20) + 1, device["available_bytes"] >> 20])
        # It is the same while the device computes, and behind a job that has had some of it.
        evaluation = {"perplexity": [{"name": "tokens", "path": "tokens.safetensors", "sequence_length": TOKENS}]}
        job = daemon.submit({"model": "small", "method": "none", "evaluation": evaluation})
        wait_for("the start", lambda: daemon.job(job)["progress"]["phase"] == "evaluating dense" or daemon.job(job)["state"] != "queued")
        self.assertEqual(daemon.request("POST", "/v1/estimate", spec).json["memory"]["device"], device)
        self.assertIn(daemon.request("POST", f"/v1/jobs/{job}/cancel").status, (200, 409))
        daemon.finish(job)
        self.assertEqual(daemon.request("POST", "/v1/estimate", spec).json["memory"]["device"], device)

    def test_enough(self):
        done, events = self.run_job("magnitude", 140, method="magnitude")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("warning", [e["type"] for e in events])


if __name__ == "__main__":
    unittest.main()
