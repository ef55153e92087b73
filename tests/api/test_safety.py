#!/usr/bin/env python3
"""Work that must not go wrong silently: inputs that change under a job, outputs that are not besad's, links that lead out of a root."""
import json
import os
import shutil
import threading
import unittest

from support import Daemon, small_job, small_model, wait_for, write_model

BLOCKS = 8
SLOW_EPOCHS = 6  # a job that takes long enough to step in
ROUNDS = int(os.environ.get("ROUNDS", "1000"))  # submissions while links are swapped


def contents(directory):
    """{path below the directory: bytes, or None for a link}"""
    result = {}
    for where, _, files in os.walk(directory):
        for name in files:
            path = os.path.join(where, name)
            if os.path.islink(path):
                result[os.path.relpath(path, directory)] = None
                continue
            with open(path, "rb") as file:
                result[os.path.relpath(path, directory)] = file.read()
    return result


class Case(unittest.TestCase):
    options = ()

    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"), *self.options)
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, BLOCKS)
        self.model = os.path.join(self.daemon.models, "small")

    def submit(self, **spec):
        return self.daemon.submit(small_job(**spec))

    def events(self, job, kind):
        return [e["data"] for e in self.daemon.events(job) if e["type"] == kind]

    def blocks_done(self, job):
        return len(self.events(job, "block.finished"))

    def run_until(self, job, blocks):
        wait_for(f"block {blocks}", lambda: self.blocks_done(job) >= blocks)


class Inputs(Case):
    """A job that goes on, or ends, with other inputs than it began with."""

    def slow_job(self, **spec):
        return self.submit(output="pruned", besa={"epochs": SLOW_EPOCHS}, **spec)

    def replace_shard(self):
        """Another model of the same shape, as large and as old."""
        path = os.path.join(self.model, "model.safetensors")
        before = os.stat(path)
        with open(path, "rb") as file:
            data = bytearray(file.read())
        for i in range(len(data) - 1000, len(data)):
            data[i] ^= 1
        with open(path + ".new", "wb") as file:
            file.write(data)
        os.utime(path + ".new", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.rename(path + ".new", path)

    def expect_change(self, job, part):
        end = self.daemon.finish(job)
        self.assertEqual((end["state"], end["error"]["code"]), ("failed", "invalid"), end)
        self.assertIn("has changed since this job began", end["error"]["message"])
        self.assertIn(part, end["error"]["message"])
        self.assertFalse(os.path.exists(os.path.join(self.daemon.output, "pruned")))

    def test_a_model_replaced_between_cancel_and_retry(self):
        self.daemon.start()
        job = self.slow_job()
        self.run_until(job, 3)
        self.daemon.request("POST", f"/v1/jobs/{job}/cancel")
        self.assertEqual(self.daemon.finish(job)["state"], "cancelled")
        self.assertLess(self.blocks_done(job), BLOCKS)
        self.replace_shard()
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
        self.expect_change(job, "'model.safetensors' is another file")

    def test_a_model_replaced_while_besad_is_down(self):
        self.daemon.start()
        job = self.slow_job()
        self.run_until(job, 3)
        self.daemon.kill()
        self.replace_shard()
        self.daemon.start()
        self.expect_change(job, "'model.safetensors'")

    def test_a_model_replaced_in_mid_job(self):
        self.daemon.start()
        job = self.slow_job()
        self.run_until(job, 1)
        self.replace_shard()
        self.assertLess(self.blocks_done(job), BLOCKS)
        self.expect_change(job, "'model.safetensors'")

    def test_a_config_written_anew(self):
        self.daemon.start()
        job = self.slow_job()
        self.run_until(job, 3)
        self.daemon.kill()
        path = os.path.join(self.model, "config.json")
        with open(path) as file:
            config = json.load(file)
        with open(path, "w") as file:
            json.dump({**config, "rope_theta": 20000.0}, file)
        self.daemon.start()
        self.expect_change(job, "'config.json' has another content")

    def test_a_warning_is_told_once(self):
        """A job that goes on loads its model again, and notices the same."""
        path = os.path.join(self.model, "config.json")
        with open(path) as file:
            config = json.load(file)
        with open(path, "w") as file:
            json.dump({**config, "num_hidden_layers": BLOCKS - 1}, file)
        self.daemon.start()
        job = self.slow_job()
        self.run_until(job, 2)
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        attempts = [data["attempt"] for data in self.events(job, "block.started")]
        self.assertEqual(max(attempts), 2)
        # What learning warns of is another matter: a thread more may be enough for it.
        told = [data["message"] for data in self.events(job, "warning") if "config.json does not ask for" in data["message"]]
        self.assertEqual(len(told), 1, told)

    def test_other_evaluation_data(self):
        shutil.copy(os.path.join(self.daemon.data, "tokens.safetensors"), os.path.join(self.daemon.data, "eval.safetensors"))
        self.daemon.start()
        job = self.slow_job(evaluation={"perplexity": [{"path": "eval.safetensors", "sequence_length": 64}]})
        self.run_until(job, 3)
        self.daemon.kill()
        path = os.path.join(self.daemon.data, "eval.safetensors")
        with open(path, "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\1\0\0\0")
        self.daemon.start()
        self.expect_change(job, "'eval.safetensors'")

    def test_the_same_files_under_other_circumstances(self):
        """What is the same goes on: touched by nobody, or with its small files written anew with the same content."""
        self.daemon.start()
        job = self.slow_job()
        self.run_until(job, 3)
        self.daemon.kill()
        path = os.path.join(self.model, "config.json")
        shutil.copy(path, path + ".copy")
        os.rename(path + ".copy", path)
        self.daemon.start()
        end = self.daemon.finish(job)
        self.assertEqual(end["state"], "succeeded", end)
        with open(os.path.join(self.daemon.output, "pruned", "besad.json")) as file:
            report = json.load(file)
        files = {entry["file"]: entry for entry in report["inputs"]["model"]}
        shard = os.stat(os.path.join(self.model, "model.safetensors"))
        self.assertEqual(files["model.safetensors"]["inode"], str(shard.st_ino))
        self.assertEqual(files["model.safetensors"]["mtime"], str(shard.st_mtime_ns))
        self.assertEqual(len(files["config.json"]["sha256"]), 64)
        self.assertEqual(report["spec"]["sparsity"], 0.5)
        self.assertEqual(report["savepoint_format"], 2)


class Overwrite(Case):
    """Only what besad made is replaced, and it is kept aside."""

    def quick_job(self, output, **spec):
        return self.daemon.finish(self.submit(method="magnitude", output=output, **spec))

    def aside(self):
        return sorted(name for name in os.listdir(self.daemon.output) if name.startswith(".besad-replaced-"))

    def test_a_tree_of_other_outputs(self):
        self.daemon.start()
        for output in ("team/a", "team/b"):
            self.assertEqual(self.quick_job(output)["state"], "succeeded")
        before = contents(self.daemon.output)
        response = self.daemon.request("POST", "/v1/jobs", small_job(output="team", overwrite=True))
        self.assertEqual(response.status, 409, response.body)
        self.assertIn("besad did not make it", response.json["detail"])
        self.assertEqual(contents(self.daemon.output), before)
        os.mkdir(os.path.join(self.daemon.output, "team", "a", "notes"))
        response = self.daemon.request("POST", "/v1/jobs", small_job(output="team/a", overwrite=True))
        self.assertEqual(response.status, 409, response.body)
        self.assertIn("'notes'", response.json["detail"])

    def test_names_that_grow_too_long(self):
        """Fit for a spec, but not for a disk once a job's id stands in them."""
        self.daemon.start()
        for output in ("{id}" * 40, "/".join(["{id}" * 8] * 24), "/".join(["{id}" * 8] * 19 + ["x" * 200])):
            response = self.daemon.request("POST", "/v1/jobs", small_job(output=output))
            self.assertEqual((response.status, response.json["errors"]), (422, [{"pointer": "/output", "detail": "is too long"}]), output)
        self.assertEqual(os.listdir(self.daemon.output), [])

    def test_what_becomes_somebody_elses_while_the_job_runs(self):
        self.daemon.start()
        job = self.submit(output="out", overwrite=True, besa={"epochs": SLOW_EPOCHS})
        self.run_until(job, 1)
        os.mkdir(os.path.join(self.daemon.output, "out"))
        with open(os.path.join(self.daemon.output, "out", "thesis.txt"), "w") as file:
            file.write("years of work")
        end = self.daemon.finish(job)
        self.assertEqual((end["state"], end["error"]["code"]), ("failed", "exists"), end)
        self.assertEqual(os.listdir(os.path.join(self.daemon.output, "out")), ["thesis.txt"])
        shutil.rmtree(os.path.join(self.daemon.output, "out"))  # nothing is lost: a retry only publishes
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")

    def test_the_old_one_is_kept_aside(self):
        self.daemon.start()
        self.assertEqual(self.quick_job("out")["state"], "succeeded")
        old = contents(os.path.join(self.daemon.output, "out"))
        end = self.quick_job("out", sparsity=0.7, overwrite=True)
        self.assertEqual(end["state"], "succeeded", end)
        self.assertEqual(self.aside(), [end["result"]["replaced"]])
        self.assertEqual(contents(os.path.join(self.daemon.output, self.aside()[0])), old)
        self.daemon.stop()
        self.daemon.start("--keep-replaced", "0")
        wait_for("the old output's end", lambda: not self.aside())

    def test_a_place_that_cannot_be_written_to(self):
        self.daemon.start()
        with open(os.path.join(self.daemon.output, "file"), "w"):
            pass
        response = self.daemon.request("POST", "/v1/jobs", small_job(output="file/out"))
        self.assertEqual((response.status, response.json["errors"][0]["pointer"]), (422, "/output"), response.body)


class Links(Case):
    """Links are followed as long as they stay inside a root."""

    def expect_refusal(self, spec, pointer):
        response = self.daemon.request("POST", "/v1/jobs", spec)
        self.assertEqual(response.status, 422, response.body)
        error = response.json["errors"][0]
        self.assertEqual(error["pointer"], pointer)
        self.assertRegex(error["detail"], "leads out of (the|its) root.*inside a root only")
        self.assertNotIn(self.secret, json.dumps(response.json))

    def setUp(self):
        super().setUp()
        self.secret = os.path.join(self.daemon.directory, "elsewhere")
        os.mkdir(self.secret)
        with open(os.path.join(self.secret, "token"), "w") as file:
            file.write("hidden from all")

    def test_out_of_a_model(self):
        """One rule for a link to a model and for a model of links."""
        self.daemon.start()
        write_model(os.path.join(self.secret, "model"), 64, 160, 4, 2, 2, vocab=300)
        os.symlink(os.path.join(self.secret, "model"), os.path.join(self.daemon.models, "linked"))
        self.expect_refusal(small_job(model="linked"), "/model")
        os.mkdir(os.path.join(self.daemon.models, "of-links"))
        for name in os.listdir(os.path.join(self.secret, "model")):
            os.symlink(os.path.join(self.secret, "model", name), os.path.join(self.daemon.models, "of-links", name))
        self.expect_refusal(small_job(model="of-links"), "/model")
        os.symlink(os.path.join(self.secret, "token"), os.path.join(self.model, "README.md"))
        self.expect_refusal(small_job(), "/model")
        os.unlink(os.path.join(self.model, "README.md"))
        os.symlink(os.path.join(self.secret, "token"), os.path.join(self.daemon.data, "text.txt"))
        self.expect_refusal(small_job(calibration={"path": "text.txt", "samples": 1, "sequence_length": 64}), "/calibration/path")

    def test_a_link_that_comes_later(self):
        self.daemon.start()
        blocker = self.submit(output="first", besa={"epochs": 3 * SLOW_EPOCHS})
        job = self.submit(method="magnitude", output="second")
        os.symlink(os.path.join(self.secret, "token"), os.path.join(self.model, "README.md"))
        self.daemon.request("POST", f"/v1/jobs/{blocker}/cancel")
        end = self.daemon.finish(job)
        self.assertEqual(end["state"], "failed", end)
        self.assertIn("README.md: a link leads out of the root", end["error"]["message"])
        self.assertNotIn(b"hidden from all", b"".join(filter(None, contents(self.daemon.output).values())))

    def test_an_outputs_parent_becomes_a_link(self):
        self.daemon.start()
        os.mkdir(os.path.join(self.daemon.output, "team"))
        job = self.submit(output="team/out", besa={"epochs": SLOW_EPOCHS})
        self.run_until(job, 1)
        os.rmdir(os.path.join(self.daemon.output, "team"))
        os.symlink(self.secret, os.path.join(self.daemon.output, "team"))
        end = self.daemon.finish(job)
        self.assertEqual((end["state"], end["error"]["code"]), ("failed", "invalid"), end)
        self.assertIn("leads out of the root", end["error"]["message"])
        self.assertEqual(os.listdir(self.secret), ["token"])

    def test_a_hugging_face_cache(self):
        """Snapshots of links into blobs: the root is the cache."""
        repository = os.path.join(self.daemon.models, "models--some--model")
        snapshot = os.path.join(repository, "snapshots", "0123")
        os.makedirs(snapshot)
        os.mkdir(os.path.join(repository, "blobs"))
        for i, name in enumerate(sorted(os.listdir(self.model))):
            shutil.copy(os.path.join(self.model, name), os.path.join(repository, "blobs", f"blob{i}"))
            os.symlink(f"../../blobs/blob{i}", os.path.join(snapshot, name))
        self.daemon.start()
        job = self.submit(model="models--some--model/snapshots/0123", method="magnitude", output="out")
        end = self.daemon.finish(job)
        self.assertEqual(end["state"], "succeeded", end)
        self.assertFalse([name for name, data in contents(os.path.join(self.daemon.output, "out")).items() if data is None])

    def test_swapped_links(self):
        """Whoever may write below the roots swaps files and directories for links all the time; nothing outside is read or written."""
        write_model(os.path.join(self.daemon.models, "tiny"), 16, 32, 2, 1, 1, vocab=64)
        model, team = os.path.join(self.daemon.models, "tiny"), os.path.join(self.daemon.output, "team")
        readme, spare = os.path.join(model, "README.md"), os.path.join(self.daemon.output, "spare")
        stop = threading.Event()

        def put_links():
            os.symlink(os.path.join(self.secret, "token"), readme + ".link")
            os.rename(readme + ".link", readme)
            os.makedirs(team, exist_ok=True)
            os.rename(team, spare)
            os.symlink(self.secret, team)

        def take_links():
            with open(readme + ".new", "w") as file:
                file.write("a model")
            os.rename(readme + ".new", readme)
            if os.path.islink(team):
                os.unlink(team)
            if os.path.isdir(spare) and not os.path.exists(team):
                os.rename(spare, team)
            shutil.rmtree(spare, ignore_errors=True)  # besad has made the directory meanwhile

        def swap():
            while not stop.wait(0.003):
                for act in (put_links, take_links):
                    try:
                        act()
                    except OSError:  # besad was there in between
                        pass

        self.daemon.start("--queue-limit", str(ROUNDS + 10))
        swapper = threading.Thread(target=swap)
        swapper.start()
        jobs, statuses = [], {}
        try:
            for i in range(ROUNDS):
                response = self.daemon.request("POST", "/v1/jobs", {"model": "tiny", "method": "magnitude", "sparsity": 0.5,
                                                                    "output": f"team/{i}"})
                statuses[response.status] = statuses.get(response.status, 0) + 1
                if response.status == 201:
                    jobs.append(response.json["id"])
                else:
                    self.assertIn(response.status, (409, 422), response.body)
            ends = [self.daemon.finish(job) for job in jobs]
        finally:
            stop.set()
            swapper.join()
        states = [end["state"] for end in ends]
        print(f"statuses {statuses}, {states.count('succeeded')} published, {states.count('failed')} failed")
        self.assertGreater(states.count("succeeded"), 0)
        self.assertEqual(contents(self.secret), {"token": b"hidden from all"})
        self.assertEqual(os.listdir(self.secret), ["token"])
        for data in contents(self.daemon.output).values():
            self.assertNotIn(b"hidden from all", data or b"")
        self.assertEqual(self.daemon.get("/healthz").status, 200)


if __name__ == "__main__":
    unittest.main()
