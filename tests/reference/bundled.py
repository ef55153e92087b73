"""Jobs on the bundled model, and what a published code or PyTorch gave on it (tests/data/reference): same calibration tokens,
fp32. BESAD names the program, build/besad by default.

What a block comes to hangs on those before it alone. So what another test has of the whole model is compared on its first blocks: `run_part`.
With LONG in the environment (`make check-long`) these jobs too are of the whole model, and are evaluated."""
import array
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BESAD = os.environ.get("BESAD", os.path.join(ROOT, "build", "besad"))
LONG = bool(os.environ.get("LONG"))
PART = 2  # of six blocks
DATASET = "wikitext2"
FULL, SHORT = ({"perplexity": [{"name": DATASET, "path": path, "sequence_length": 256}]}
               for path in ("tiny-llama.wikitext2-64k.safetensors", "short.safetensors"))  # what references are of, and its first quarter
sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import read_safetensors, write_safetensors  # noqa: E402


def reference(name):
    with open(os.path.join(ROOT, "tests", "data", "reference", f"tiny-llama.{name}.json")) as file:
        return json.load(file)


class BundledModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="besad-reference-")
        cls.results, cls.said = {}, {}
        cls.models = os.path.join(cls.directory, "models")  # those that a test makes
        os.mkdir(cls.models)
        [(name, (kind, _, data))] = read_safetensors(os.path.join(ROOT, "tests", "data", "tiny-llama.wikitext2-64k.safetensors"))[1].items()
        write_safetensors(os.path.join(cls.directory, "short.safetensors"), {name: (kind, [16384], data[:len(data) // 4])})
        cls.write_part(os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(cls.models, "part"))

    @classmethod
    def write_part(cls, source, target):
        """The model `source`, cut off behind its first blocks."""
        shutil.copytree(source, target)
        with open(os.path.join(source, "config.json")) as file:
            config = json.load(file)
        with open(os.path.join(target, "config.json"), "w") as file:
            json.dump({**config, "num_hidden_layers": PART}, file)
        tensors = read_safetensors(os.path.join(source, "model.safetensors"))[1]
        write_safetensors(os.path.join(target, "model.safetensors"), {
            name: tensor for name, tensor in tensors.items() if not (block := re.search(r"\.layers\.(\d+)\.", name)) or int(block[1]) < PART})

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.directory)

    evaluation = FULL

    def run_job(self, name, **spec):
        """besad.json of a finished job; each job runs once."""
        if name in self.results:
            return self.results[name]
        job = {
            "model": "tiny-llama", "output": name, "precision": "f32",
            "calibration": {"path": "calibration.safetensors", "samples": 128, "sequence_length": 256},
            "evaluation": self.evaluation, **spec}
        path = os.path.join(self.directory, name + ".json")
        with open(path, "w") as file:
            json.dump(job, file)
        done = subprocess.run(
            [BESAD, "run", path, "--model-root", os.path.join(ROOT, "demo"), "--model-root", self.models, "--data-root", os.path.join(ROOT, "demo"),
             "--data-root", os.path.join(ROOT, "tests", "data"), "--data-root", self.directory,
             "--output-root", os.path.join(self.directory, "output"), "--scores-dir", os.path.join(self.directory, "scores")],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        sys.stderr.write(done.stderr)
        done.check_returncode()
        self.said[name] = done.stderr
        with open(os.path.join(self.directory, "output", name, "besad.json")) as file:
            self.results[name] = json.load(file)
        return self.results[name]

    def run_part(self, name, **spec):
        """The same of a job on the model's first blocks, without evaluation; LONG, of the whole one with all that it asks for."""
        return self.run_job(name, **spec) if LONG else self.run_job(name, **{**spec, "model": "part", "evaluation": {}})

    def beside(self, report, expected):
        """Pairs of the blocks of a report, be it of a part, and of the reference."""
        count = len(report["blocks"])
        self.assertIn(count, (len(expected["blocks"]), PART))
        return list(zip(report["blocks"], expected["blocks"][:count], strict=True))

    def perplexity(self, report, which="pruned"):
        return report["result"]["perplexity"][DATASET][which]

    def close(self, value, expected, relative):
        self.assertLess(abs(value / expected - 1), relative, f"{value} against {expected}")

    def one_shot(self, method, percent):
        return self.run_job(f"{method}-{percent}", method=method, sparsity=percent / 100)

    def besa(self, percent, name=None, **spec):
        return self.run_job(name or f"besa-{percent}", method="besa", sparsity=percent / 100, **spec)

    def exact(self, report, percent):
        params = sum(layer["params"] for block in report["blocks"] for layer in block["layers"].values())
        for block in report["blocks"]:
            layers = block["layers"].values()
            self.assertEqual(sum(l["zeros"] for l in layers), round(percent / 100 * sum(l["params"] for l in layers)))
        self.assertEqual(report["result"]["params"], params)

    def weights(self, name):
        """{tensor: rows} of a finished job's model, each row a list of 16-bit words."""
        _, tensors = read_safetensors(os.path.join(self.directory, "output", name, "model.safetensors"))
        rows = {}
        for tensor, (_, shape, data) in tensors.items():
            if tensor.endswith("_proj.weight"):
                words = array.array("H", data)
                rows[tensor] = [words[i:i + shape[1]] for i in range(0, len(words), shape[1])]
        return rows

    def two_of_four(self, name):
        for tensor, rows in self.weights(name).items():
            for row in rows:
                for i in range(0, len(row), 4):
                    self.assertEqual(sum(word == 0 for word in row[i:i + 4]), 2, tensor)

    def zeros(self, name):
        return {tensor: [[word & 0x7fff == 0 for word in row] for row in rows] for tensor, rows in self.weights(name).items()}
