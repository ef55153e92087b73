#!/usr/bin/env python3
"""What ADMM takes of each layer where it has that from BESA's rates: as far from the target as those would go had their candidates a whole of
room, so that it is what they are at 50 %, and further where the room is less.

Needs Python 3 alone. BESAD names the program, build/besad by default."""
import os
import unittest

from support import Daemon, small_job, small_model


class Budgets(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"))
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, 1)
        self.daemon.start()

    def first_block(self, method, sparsity, **more):
        """What each layer of it loses; the blocks behind it get other inputs from each method."""
        calibration = {"path": "tokens.safetensors", "samples": 8, "sequence_length": 64}
        job = self.daemon.submit({**small_job(output=f"{method}-{sparsity}", method=method), "sparsity": sparsity, "calibration": calibration,
                                  "overwrite": True, **more})
        done = self.daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done["error"])
        return next(e["data"]["layers"] for e in self.daemon.events(job) if e["type"] == "block.finished")

    def check(self, sparsity, factor, **more):
        besa = {"safeguards": False, "epochs": 4, **more}  # a random model is no better for what it learns
        learned = self.first_block("besa", sparsity, besa=besa)
        taken = self.first_block("admm", sparsity, besa=besa, admm={"rates": "layer"})
        for layers in learned, taken:
            weights = sum(layer["params"] for layer in layers.values())
            self.assertEqual(sum(layer["zeros"] for layer in layers.values()), round(sparsity * weights))
        moved = 0
        for name, layer in learned.items():
            off = layer["zeros"] / layer["params"] - sparsity
            moved = max(moved, abs(off))
            self.assertAlmostEqual(taken[name]["zeros"] / layer["params"] - sparsity, factor * off, delta=1e-3, msg=name)
        self.assertGreater(moved, 0.005)  # something was learned

    def test_reach(self):
        for sparsity, factor in ((0.5, 1), (0.7, 1 / 0.6)):
            with self.subTest(sparsity=sparsity):
                self.check(sparsity, factor)

    def test_nothing_to_take(self):
        """Too little is asked for to take one weight."""
        for method in ("admm", "besa"):
            with self.subTest(method):
                layers = self.first_block(method, 5e-324, **({"admm": {"rates": "layer"}} if method == "admm" else {}))
                self.assertEqual([layer["zeros"] for layer in layers.values()], [0] * len(layers))

    def test_softmax_has_all_the_room(self):
        self.check(0.7, 1, parameterization="softmax")


if __name__ == "__main__":
    unittest.main()
