#!/usr/bin/env python3
"""Jobs that an earlier besad began, and databases it wrote (tests/data/upgrade/), go on with this one; a newer besad's are left alone."""
import json
import os
import shutil
import sqlite3
import subprocess
import unittest

from support import BESAD, PATIENCE, ROOT, Daemon, digests, small_job, small_model, wait_for
from random_models import read_safetensors  # where it is, support knows

DATA = os.path.join(ROOT, "tests", "data", "upgrade")
BLOCKS = 4


def contents(directory):
    """The bytes of every file below the directory."""
    result = {}
    for path, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(path, name), "rb") as file:
                result[os.path.relpath(os.path.join(path, name), directory)] = file.read()
    return result


def edit(path, change):
    with open(path) as file:
        value = json.load(file)
    change(value)
    with open(path, "w") as file:
        json.dump(value, file)


class HalfDone(unittest.TestCase):
    def place(self, version):
        """The half-done jobs of that version, in directories of their own."""
        daemon = Daemon("--threads", "1", "--backend", "cpu")
        self.addCleanup(daemon.remove)
        for name in ("models", "data", os.path.join(version, "state"), os.path.join(version, "output")):
            shutil.copytree(os.path.join(DATA, name), os.path.join(daemon.directory, os.path.basename(name)), dirs_exist_ok=True)
        for path, _, names in os.walk(daemon.directory):
            if "savepoint.json" in names:
                edit(os.path.join(path, "savepoint.json"), lambda savepoint: self.adopt(savepoint, daemon))
        return daemon

    def adopt(self, savepoint, daemon):
        """The files that a savepoint knows by their identity are these copies now."""
        inputs = savepoint.get("inputs", {"model": [], "data": []})
        for root, entries in ((os.path.join(daemon.models, "small"), inputs["model"]), (daemon.data, inputs["data"])):
            for entry in entries:
                if "inode" in entry:
                    status = os.stat(os.path.join(root, entry["file"]))
                    entry.update(device=str(status.st_dev), inode=str(status.st_ino), mtime=str(status.st_mtime_ns))

    def half_done(self, daemon):
        connection = sqlite3.connect(os.path.join(daemon.state, "besad.db"))
        (job, blocks), = connection.execute("SELECT id, blocks_done FROM jobs").fetchall()
        connection.close()
        self.assertTrue(0 < blocks < BLOCKS)
        return job

    def run_job(self, daemon, version, **changes):
        path = os.path.join(daemon.directory, "job.json")
        shutil.copy(os.path.join(DATA, version, "job.json"), path)
        edit(path, lambda spec: spec.update(changes))
        return subprocess.run([BESAD, "run", *daemon.options, "--model-root", daemon.models, "--data-root", daemon.data, "--output-root",
                               daemon.output, path], capture_output=True, text=True, timeout=PATIENCE)


class Upgrade(HalfDone):
    def check_alike(self, output, plain):
        """Half of it was computed then, and on another machine: masks are others where two weights count almost the same. A hundredth of a
        tensor's weights is so; with two calibration sequences instead of the job's more than three are others in some."""
        header, one = read_safetensors(os.path.join(output, "model.safetensors"))
        plain_header, other = read_safetensors(os.path.join(plain, "model.safetensors"))
        self.assertEqual(header, plain_header)
        for name, (_, _, values) in one.items():
            halves, plain_halves = memoryview(values).cast("H"), memoryview(other[name][2]).cast("H")
            differ = sum(a != b for a, b in zip(halves, plain_halves))
            self.assertLessEqual(differ, 0.03 * len(halves), name)

    def check_begun(self, version, begun, output):
        """The blocks that were finished then are to the bit what they were."""
        was, now = (read_safetensors(os.path.join(path, "model.safetensors"))[1]
                    for path in (os.path.join(DATA, version, "output", begun), output))
        finished = [name for name in now if name.startswith(("model.layers.0.", "model.layers.1."))]
        self.assertEqual({name: now[name] for name in finished}, {name: was[name] for name in finished})
        self.assertTrue(finished)

    def check_layers(self, block, plain):
        self.assertEqual({name: layer["params"] for name, layer in block.items()}, {name: layer["params"] for name, layer in plain.items()})
        for name, layer in block.items():
            self.assertAlmostEqual(layer["rate"], plain[name]["rate"], delta=0.01)
            self.assertAlmostEqual(layer["zeros"], plain[name]["zeros"], delta=0.01 * layer["params"])

    def check_output(self, daemon, version, begun, output):
        """It is what an undisturbed job of today makes of the same spec, but for what last digits decide."""
        with open(os.path.join(daemon.output, output, "besad.json")) as file:
            report = json.load(file)
        spec = dict(report["spec"], output="plain", name="plain")
        plain = daemon.submit(spec)
        self.assertEqual(daemon.finish(plain)["state"], "succeeded")
        self.check_begun(version, begun, os.path.join(daemon.output, output))
        self.check_alike(os.path.join(daemon.output, output), os.path.join(daemon.output, "plain"))
        with open(os.path.join(daemon.output, "plain", "besad.json")) as file:
            plain_report = json.load(file)
        self.assertEqual(len(report["blocks"]), len(plain_report["blocks"]))
        for block, plain_block in zip(report["blocks"], plain_report["blocks"]):
            self.check_layers(block["layers"], plain_block["layers"])
        self.assertEqual(report["spec"]["calibration"]["field"], "text")  # what was added since has its default
        self.assertIs(report["spec"]["besa"]["safeguards"], False)  # or what there was before it

    def check_served(self, version):
        daemon = self.place(version)
        job = self.half_done(daemon)
        before = [e for e in sqlite3.connect(os.path.join(daemon.state, "besad.db")).execute(
            "SELECT id, type, data FROM events ORDER BY id")]
        daemon.start()
        done = daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done["error"])
        self.assertEqual(done["attempt"], 2)
        self.assertNotIn("field", done["spec"]["calibration"])  # it is shown as it was resolved then
        events = daemon.events(job)
        self.assertEqual([e["id"] for e in events], list(range(1, len(events) + 1)))
        self.assertEqual([(e["id"], e["type"], e["data"]) for e in events[:len(before)]],
                         [(number, kind, json.loads(data)) for number, kind, data in before])
        self.assertEqual([e["data"]["block"] for e in events if e["type"] == "block.finished"], list(range(BLOCKS)))
        self.assertEqual([e["data"]["model"] for e in events if e["type"] == "eval.finished"], ["dense", "pruned"])
        self.check_output(daemon, version, f".besad-{job}", "served")
        self.assertEqual(daemon.stop(), 0)
        connection = sqlite3.connect(os.path.join(daemon.state, "besad.db"))
        self.assertEqual(connection.execute("PRAGMA user_version").fetchall(), [(15,)])
        self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        connection.close()

    def test_served_before_notifications(self):
        self.check_served("6d143de")

    def test_served_before_inputs(self):
        self.check_served("7d978ae")

    def test_served_before_fields(self):
        self.check_served("d3ecd7c")

    def test_run(self):
        for version in ("7d978ae", "d3ecd7c"):
            with self.subTest(version):
                daemon = self.place(version)
                directory = os.path.join(daemon.output, ".besad-run-job")
                before = contents(directory)
                other = self.run_job(daemon, version, sparsity=0.25)
                self.assertEqual(other.returncode, 1)
                self.assertIn("/sparsity was 0.5 and is now 0.25", other.stderr)
                self.assertEqual({**contents(directory), "lock": b""}, {**before, "lock": b""})
                done = self.run_job(daemon, version)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual([line.split(":")[0] for line in done.stderr.splitlines() if line.startswith("block ")],
                                 ["block 3 of 4", "block 4 of 4"])
                self.assertFalse(os.path.exists(directory))
                shutil.rmtree(daemon.state)
                daemon.start()
                self.check_output(daemon, version, ".besad-job", "run")

    def test_run_off_the_half(self):
        """What "auto" stood for then, at 60 %, and Prodigy's factor for it stay the job's."""
        def off_the_half(spec):
            spec["sparsity"] = 0.6
            spec["besa"].update(parameterization="softmax", d_coef=50)

        for request in ({}, {"besa": None}, {"besa": {"parameterization": "auto"}}, {"besa": {"epochs": 1}}):
            with self.subTest(request):
                daemon = self.place("7d978ae")
                directory = os.path.join(daemon.output, ".besad-run-job")
                edit(os.path.join(directory, "job.json"), off_the_half)
                edit(os.path.join(directory, "checkpoint", "job", "savepoint.json"), lambda savepoint: off_the_half(savepoint["spec"]))
                before = contents(directory)
                for other, key in (({"lambda": 6}, "lambda"), ({"parameterization": "sigmoid", "d_coef": 50}, "parameterization")):
                    refused = self.run_job(daemon, "7d978ae", sparsity=0.6, besa=other)
                    self.assertEqual(refused.returncode, 1)
                    self.assertIn(f"/besa/{key} was ", refused.stderr)
                self.assertEqual({**contents(directory), "lock": b""}, {**before, "lock": b""})
                done = self.run_job(daemon, "7d978ae", sparsity=0.6, **request)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual([line.split(":")[0] for line in done.stderr.splitlines() if line.startswith("block ")],
                                 ["block 3 of 4", "block 4 of 4"])
                with open(os.path.join(daemon.output, "run", "besad.json")) as file:
                    besa = json.load(file)["spec"]["besa"]
                self.assertEqual((besa["parameterization"], besa["d_coef"]), ("softmax", 50))


class Newer(HalfDone):
    """What a newer besad wrote is refused and left as it is."""

    def test_savepoint(self):
        daemon = self.place("d3ecd7c")
        job = self.half_done(daemon)
        path = os.path.join(daemon.state, "jobs", job, "savepoint.json")
        edit(path, lambda savepoint: savepoint.update(format=99))
        before = contents(os.path.join(daemon.state, "jobs")), contents(daemon.output)
        daemon.start()
        done = daemon.finish(job)
        self.assertEqual(done["state"], "failed")
        self.assertIn("newer besad", done["error"]["message"])
        self.assertEqual((contents(os.path.join(daemon.state, "jobs")), contents(daemon.output)), before)
        edit(path, lambda savepoint: savepoint.update(format=2))
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
        self.assertEqual(daemon.finish(job)["state"], "succeeded")

    def test_job_of_besad_run(self):
        daemon = self.place("d3ecd7c")
        edit(os.path.join(daemon.output, ".besad-run-job", "job.json"), lambda job: job.update(format=99))
        before = contents(daemon.output)
        done = self.run_job(daemon, "d3ecd7c")
        self.assertEqual(done.returncode, 1)
        self.assertIn("newer besad", done.stderr)
        after = contents(daemon.output)
        self.assertEqual(after.pop(os.path.join(".besad-run-job", "lock")), b"")
        self.assertEqual(after, before)

    def check_database(self, daemon):
        def database():
            return {name: data for name, data in contents(daemon.state).items() if data and not name.endswith(("-shm", "lock"))}
        before = database()
        done = subprocess.run([BESAD, *daemon.options, "--listen", "127.0.0.1:0", "--model-root", daemon.models, "--output-root",
                               daemon.output, "--state-dir", daemon.state], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 1)
        self.assertIn("newer besad", done.stderr)
        self.assertEqual(database(), before)

    def test_database(self):
        daemon = self.place("d3ecd7c")
        connection = sqlite3.connect(os.path.join(daemon.state, "besad.db"))
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        self.check_database(daemon)

    def test_database_with_its_journal(self):
        """As a kill leaves it: what is newer stands in the journal alone."""
        daemon = self.place("d3ecd7c")
        other = os.path.join(daemon.directory, "other")
        os.mkdir(other)
        shutil.copy(os.path.join(daemon.state, "besad.db"), other)
        connection = sqlite3.connect(os.path.join(other, "besad.db"))
        connection.execute("PRAGMA user_version = 99")
        for name in ("besad.db", "besad.db-wal"):
            shutil.copy(os.path.join(other, name), daemon.state)
        connection.close()
        self.assertIn("besad.db-wal", os.listdir(daemon.state))
        self.check_database(daemon)

    def test_other_journal_mode(self):
        daemon = self.place("d3ecd7c")
        connection = sqlite3.connect(os.path.join(daemon.state, "besad.db"))
        connection.execute("PRAGMA user_version = 99")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
        self.check_database(daemon)


class Options(unittest.TestCase):
    def test_a_job_goes_on_with_what_it_was_submitted_with(self):
        """Its operator's calibration is another one since, and another model of that name would be found first."""
        daemon = Daemon("--threads", "1")
        self.addCleanup(daemon.remove)
        small_model(daemon, 20)
        first, second = (os.path.join(daemon.directory, name) for name in ("first.safetensors", "second.safetensors"))
        for path in (first, second):
            shutil.move(os.path.join(daemon.data, "tokens.safetensors"), path)
            small_model(daemon, 20)
        with open(second, "r+b") as file:  # other tokens
            file.seek(-64, os.SEEK_END)
            file.write(bytes(64))
        spec = small_job(method="wanda", calibration={"samples": 32, "sequence_length": 64})
        daemon.start("--calibration", first)
        plain = daemon.submit(dict(spec, output="plain"))
        self.assertEqual(daemon.finish(plain)["state"], "succeeded")
        running, waiting = (daemon.submit(dict(spec, output=output)) for output in ("running", "waiting"))
        wait_for("a finished block", lambda: any(e["type"] == "block.finished" for e in daemon.events(running)))
        daemon.kill()

        models, daemon.models = daemon.models, os.path.join(daemon.directory, "more")
        small_model(daemon, 3)
        daemon.start("--model-root", models, "--calibration", second)
        for job, output in ((running, "running"), (waiting, "waiting")):
            done = daemon.finish(job)
            self.assertEqual(done["state"], "succeeded", done["error"])
            self.assertEqual(done["spec"]["calibration"]["path"], first)
            self.assertEqual(digests(os.path.join(daemon.output, output)), digests(os.path.join(daemon.output, "plain")))


if __name__ == "__main__":
    unittest.main()
