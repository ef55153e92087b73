#!/usr/bin/env python3
"""A besad with the emulated CUDA backend whose device makes an error that stays: besad starts itself again, with its socket, and the job goes
on; not for ever, and not on the CPU."""
import os
import socket
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
from support import Daemon, wait_for, write_calibration, write_model  # noqa: E402


class LostDevice(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.remove)
        write_model(os.path.join(self.daemon.models, "small"), 64, 32, 2, 1, 3, vocab=300, scale=0.1)
        write_calibration(os.path.join(self.daemon.data, "tokens.safetensors"), 4, 16, vocab=300)
        self.fault = os.path.join(self.daemon.directory, "fault")
        self.refuse = os.path.join(self.daemon.directory, "refuse")
        self.gone = os.path.join(self.daemon.directory, "gone")
        self.environment = {"EMULATOR_FAULT": self.fault, "EMULATOR_REFUSE": self.refuse, "EMULATOR_GONE": self.gone}

    def start(self, backend, **environment):
        self.daemon.start("--backend", backend, environment={**self.environment, **environment})

    def break_device(self):
        self.touch(self.fault)

    def touch(self, path):
        with open(path, "w"):
            pass

    def submit(self, output):
        return self.daemon.submit({"model": "small", "output": output, "method": "besa", "sparsity": 0.5,
                                   "calibration": {"path": "tokens.safetensors", "samples": 4, "sequence_length": 16}})

    def model(self, output):
        with open(os.path.join(self.daemon.output, output, "model.safetensors"), "rb") as file:
            return file.read()

    def wait_for_event(self, job, kind, block):
        wait_for(kind, lambda: any(e["type"] == kind and e["data"]["block"] == block for e in self.daemon.events(job)))

    def wait_for_start(self, number):
        """Until besad answers for the number-th time; it fails when besad ends instead."""
        wait_for(f"start {number}", lambda: self.daemon.log().count("answers on port") == number or self.daemon.process.poll() is not None)
        self.assertIsNone(self.daemon.process.poll(), self.daemon.log())

    def keep_connecting(self):
        """Connects until told to stop; what was refused comes back in the list."""
        stop, refused, connections = threading.Event(), [], [0]

        def connect():
            while not stop.wait(0.002):
                try:
                    socket.create_connection(("127.0.0.1", self.daemon.port), timeout=60).close()
                    connections[0] += 1
                except ConnectionRefusedError as error:
                    refused.append(error)
        thread = threading.Thread(target=connect)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(stop.set)
        return stop, thread, refused, connections

    def test_the_job_goes_on(self):
        self.start("auto")
        whole = self.submit("whole")
        self.assertEqual(self.daemon.finish(whole)["state"], "succeeded")
        pid = self.daemon.process.pid
        stop, thread, refused, connections = self.keep_connecting()
        job = self.submit("broken")
        self.wait_for_event(job, "block.finished", 0)
        self.break_device()
        wait_for("the fault", lambda: not os.path.exists(self.fault))
        self.wait_for_start(2)
        ended = self.daemon.finish(job)
        stop.set()
        thread.join()
        self.assertEqual(ended["state"], "succeeded", ended)
        self.assertEqual((refused, self.daemon.process.pid, self.daemon.process.poll()), ([], pid, None))
        self.assertGreater(connections[0], 0)
        self.assertEqual(ended["attempt"], 2)
        finished = [e["data"]["block"] for e in self.daemon.events(job) if e["type"] == "block.finished"]
        self.assertEqual(finished, [0, 1, 2])
        self.assertEqual(self.model("broken"), self.model("whole"))
        self.assertIn("lost the device, queued again", self.daemon.log())
        self.assertEqual(self.daemon.stop(), 0)

    def test_twice_at_one_block_is_a_failure(self):
        self.start("cuda")
        self.break_device()
        job = self.submit("broken")
        wait_for("the first start after", lambda: not os.path.exists(self.fault))
        self.break_device()
        ended = self.daemon.finish(job)
        self.assertEqual((ended["state"], ended["error"]["code"]), ("failed", "backend"), ended)
        self.assertIn("cudaErrorIllegalAddress", ended["error"]["message"])
        self.wait_for_start(3)
        self.assertEqual(self.daemon.finish(self.submit("next"))["state"], "succeeded")

    def test_the_cpu_does_not_take_over(self):
        self.start("auto")
        self.touch(self.gone)
        self.break_device()
        job = self.submit("broken")
        wait_for("the end", lambda: self.daemon.process.poll() is not None or "computing on the CPU" in self.daemon.log())
        self.assertNotIn("computing on the CPU", self.daemon.log())
        self.assertNotEqual(self.daemon.process.returncode, 0)
        self.assertIn("the CPU does not take over from a CUDA device", self.daemon.log())
        os.unlink(self.gone)
        self.start("auto")
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")

    def test_nor_in_the_same_process(self):
        """An error that passes fails a job, and the next one gets a new backend: of the device, or none."""
        self.start("auto")
        self.touch(self.gone)
        self.touch(self.refuse)
        ended = self.daemon.finish(self.submit("broken"))
        self.assertEqual((ended["state"], ended["error"]["code"]), ("failed", "backend"), ended)
        ended = self.daemon.finish(self.submit("without"))
        self.assertEqual((ended["state"], ended["error"]["code"]), ("failed", "backend"), ended)
        self.assertIn("the CPU does not take over from a CUDA device", self.daemon.log())
        self.assertNotIn("computing on the CPU", self.daemon.log())
        estimate = self.daemon.request("POST", "/v1/estimate", {"model": "small", "method": "magnitude", "sparsity": 0.5})
        device = estimate.json["memory"]["device"]  # nobody knows what there is
        self.assertEqual((estimate.status, device["available_bytes"], device["fits"]), (200, None, None))
        os.unlink(self.gone)
        self.assertEqual(self.daemon.finish(self.submit("next"))["state"], "succeeded")
        self.assertEqual(self.daemon.log().count("answers on port"), 1)


if __name__ == "__main__":
    unittest.main()
