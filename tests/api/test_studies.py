#!/usr/bin/env python3
"""Studies over HTTP: a small one to its end and its table as JSON and CSV, a kill in the middle, refusals, limits, the idempotency key, cancel, forget."""
import csv
import hashlib
import io
import os
import shutil
import unittest

from support import ROOT, Daemon, small_job, small_model, wait_for

EVALUATION = {"perplexity": [{"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]}
STATES = ("queued", "running", "cancelling", "pausing", "paused", "succeeded", "failed", "cancelled")


def study(grid, name="a study", **spec):
    return {"name": name, "spec": small_job(**spec), "grid": grid}


class WithStudies(unittest.TestCase):
    options = ()

    def setUp(self):
        self.daemon = Daemon("--threads", "1", *self.options)
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, 4)
        self.daemon.start()

    def post(self, body, **headers):
        return self.daemon.post("/v1/studies", body, **headers)

    def submit(self, *arguments, **more):
        response = self.post(study(*arguments, **more))
        self.assertEqual(response.status, 201, response.body)
        self.assertEqual(response.headers["Location"], f"/v1/studies/{response.json['id']}")
        return response.json

    def study(self, identity):
        return self.daemon.get(f"/v1/studies/{identity}").json

    def finish(self, identity):
        return wait_for(lambda: f"the end of the study; besad {self.daemon.condition()}",
                        lambda: (s := self.study(identity))["finished"] and s)

    def cancel(self, identity):
        return self.daemon.request("POST", f"/v1/studies/{identity}/cancel")

    def delete(self, identity):
        return self.daemon.request("DELETE", f"/v1/studies/{identity}")

    def jobs(self):
        return self.daemon.get("/v1/jobs").json["jobs"]

    def problem(self, response, status, name):
        self.assertEqual(response.status, status, response.body)
        self.assertEqual(response.json["type"], f"urn:besad:problem:{name}")
        return response.json

    def wrong(self, body):
        """{pointer: detail} of a study that is refused."""
        problem = self.problem(self.post(body), 422, "invalid-study")
        self.assertEqual(self.jobs(), [])
        return {error["pointer"]: error["detail"] for error in problem["errors"]}


class Studies(WithStudies):
    def check_row(self, row):
        """The row says of the job what the job says, and of its output what is there."""
        job = self.daemon.job(row["job"])
        self.assertEqual((row["state"], row["output"]), (job["state"], job["spec"]["output"]))
        for key in ("sparsity", "zeros", "params", "perplexity", "tasks", "seconds", "pruning_seconds"):
            self.assertEqual(row[key], job["result"][key], key)
        directory = os.path.join(self.daemon.output, row["output"])
        sizes = [os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(directory) for name in names]
        self.assertEqual(row["bytes"], sum(sizes))
        return job

    def check_csv(self, shown):
        response = self.daemon.get(f"/v1/studies/{shown['id']}", Accept="text/csv")
        self.assertEqual(response.headers["Content-Type"], "text/csv; charset=utf-8")
        table = list(csv.DictReader(io.StringIO(response.body.decode(), newline="")))
        self.assertEqual(len(table), len(shown["rows"]))
        for line, row in zip(table, shown["rows"]):
            self.assertEqual((line["job"], line["state"], line["output"], line["error"]), (row["job"], row["state"], row["output"], ""))
            self.assertEqual((float(line["sparsity"]), line["besa.importance"]),
                             (row["settings"]["sparsity"], row["settings"]["besa.importance"]))
            self.assertEqual(float(line["achieved_sparsity"]), row["sparsity"])
            self.assertEqual((int(line["zeros"]), int(line["bytes"])), (row["zeros"], row["bytes"]))
            self.assertEqual(float(line["perplexity.tokens"]), row["perplexity"]["tokens"]["pruned"])
            self.assertEqual(float(line["perplexity.tokens.dense"]), row["perplexity"]["tokens"]["dense"])
            self.assertEqual(line["archive_bytes"], "")

    def test_to_the_end(self):
        made = self.submit({"sparsity": [0.5, 0.6], "besa.importance": ["wanda", "magnitude"]}, name="Wie groß?", evaluation=EVALUATION)
        settings = [row["settings"] for row in made["rows"]]
        self.assertEqual(settings, [{"sparsity": s, "besa.importance": i} for s in (0.5, 0.6) for i in ("wanda", "magnitude")])
        self.assertEqual((made["jobs"], made["finished"]), (4, False))
        done = self.finish(made["id"])
        self.assertEqual(done["states"], {state: 4 * (state == "succeeded") for state in STATES}, done)
        for number, row in enumerate(done["rows"]):
            job = self.check_row(row)
            self.assertEqual((job["spec"]["sparsity"], job["spec"]["besa"]["importance"]), tuple(row["settings"].values()))
            self.assertEqual(job["name"], f"Wie groß?: sparsity={row['settings']['sparsity']}, "
                                          f"besa.importance={row['settings']['besa.importance']}")
            self.assertEqual(row["output"], f"Wie-gro-{made['id']}/{number + 1}_sparsity-{row['settings']['sparsity']}_"
                                            f"besa.importance-{row['settings']['besa.importance']}")
        self.assertGreater(done["rows"][2]["zeros"], done["rows"][0]["zeros"])
        self.check_csv(done)
        listed = self.daemon.get("/v1/studies").json
        self.assertEqual(listed, {"studies": [{key: done[key] for key in ("id", "name", "created_at", "states", "jobs", "finished")}],
                                  "next": None})
        self.problem(self.cancel(made["id"]), 409, "wrong-state")
        self.forget(done)

    def forget(self, done):
        """A job that is forgotten leaves its row, an output that is gone no size, and a study that is forgotten nothing but outputs."""
        first, second = done["rows"][:2]
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{first['job']}").status, 204)
        shutil.rmtree(os.path.join(self.daemon.output, second["output"]))
        rows = self.study(done["id"])["rows"]
        self.assertEqual(rows[0], {**first, "forgotten": True})
        self.assertEqual(rows[1], {**second, "bytes": None})
        self.assertEqual(self.delete(done["id"]).status, 204)
        self.assertEqual(self.jobs(), [])
        self.assertTrue(os.path.exists(os.path.join(self.daemon.output, first["output"], "config.json")))
        self.problem(self.daemon.get(f"/v1/studies/{done['id']}"), 404, "not-found")
        self.problem(self.delete(done["id"]), 404, "not-found")

    def dense(self, grid, **spec):
        """The dense model's perplexity, as each job of a study has it."""
        done = self.finish(self.submit(grid, evaluation=EVALUATION, method="magnitude", **spec)["id"])
        return [row["perplexity"]["tokens"]["dense"] for row in done["rows"]]

    def test_the_dense_model_is_evaluated_once(self):
        """What is kept is seen by keeping another number, as if it were the right one; and a damaged one is not taken."""
        directory = os.path.join(self.daemon.state, "scores")
        [right] = self.dense({"sparsity": [0.5]})
        [key] = os.listdir(directory)
        with open(os.path.join(directory, key), "w") as file:
            file.write(f"123.5 {hashlib.sha256(f'{key} 123.5'.encode()).hexdigest()}\n")
        self.assertEqual(self.dense({"sparsity": [0.5, 0.6]}), [123.5, 123.5])
        with open(os.path.join(directory, key), "a") as file:
            file.write("damaged")
        self.assertEqual(self.dense({"sparsity": [0.5, 0.6]}), [right, right])
        self.assertEqual(os.listdir(directory), [key])
        small_model(self.daemon, 3)
        self.assertNotEqual(self.dense({"sparsity": [0.5]}), [right])
        self.assertEqual(len(os.listdir(directory)), 2)

    def test_kill_in_the_middle(self):
        made = self.submit({"besa.epochs": [20, 21, 22]}, output="killed/{id}")
        wait_for("the second job", lambda: self.study(made["id"])["rows"][1]["state"] == "running")
        self.daemon.kill()
        self.daemon.start()
        again = self.study(made["id"])
        self.assertEqual([row["job"] for row in again["rows"]], [row["job"] for row in made["rows"]])
        self.assertEqual(again["rows"][0]["state"], "succeeded")
        done = self.finish(made["id"])
        self.assertEqual(done["states"]["succeeded"], 3, done)
        for number, row in enumerate(done["rows"]):
            self.assertEqual(row["output"], f"killed/{made['id']}/{number + 1}_besa.epochs-{20 + number}")
            self.check_row(row)

    def test_key(self):
        body = study({"sparsity": [0.5, 0.6]}, method="magnitude")
        first = self.post(body, Idempotency_Key="a")
        again = self.post({key: body[key] for key in reversed(body)}, Idempotency_Key="a")
        self.assertEqual((first.status, again.status, again.json["id"]), (201, 201, first.json["id"]))
        self.assertEqual(again.headers["Location"], first.headers["Location"])
        self.problem(self.post({**body, "name": "other"}, Idempotency_Key="a"), 422, "idempotency-key-reused")
        self.problem(self.post(body, Idempotency_Key="a b"), 400, "invalid-header")
        self.assertEqual(len(self.jobs()), 2)
        self.assertEqual(self.post(body, Idempotency_Key="b").status, 201)
        self.assertEqual(len(self.jobs()), 4)

    def test_refused_combinations(self):
        wrong = self.wrong(study({"besa.candidates": [2, 1, 5], "quantization.bits": [4, 99], "sparsity": [0.5, 0.6]}, besa={"x": 1}))
        self.assertEqual(set(wrong), {"/grid/besa.candidates/1", "/grid/quantization.bits/1", "/spec/besa/x"})
        self.assertTrue(wrong["/grid/besa.candidates/1"].endswith("(with besa.candidates=1, quantization.bits=4, sparsity=0.5)"), wrong)
        self.assertTrue(wrong["/grid/quantization.bits/1"].endswith("(with besa.candidates=2, quantization.bits=99, sparsity=0.5)"), wrong)
        self.assertEqual(set(self.wrong(study({"quantization": [None, {"bits": 1}]}))), {"/grid/quantization/1/bits"})
        self.assertEqual(set(self.wrong(study({"sparsity": [0.5, 0.6]}, output=5))), {"/spec/output"})
        self.assertEqual(set(self.wrong(study({"model.x": [1]}))), {"/spec"})
        self.assertEqual(set(self.wrong(study({"nothing.of.it": [1]}))), {"/spec/nothing"})
        self.assertEqual(set(self.wrong({"name": "\n", "spec": [], "grid": {"sparsity": []}, "more": 1})),
                         {"/name", "/spec", "/grid/sparsity", "/more"})
        self.assertEqual(set(self.wrong({**study({"name": ["a"]}), "spec": small_job(name="mine")})), {"/grid/name", "/spec/name"})
        self.assertEqual(set(self.wrong([])), {""})
        self.assertEqual(self.daemon.get("/v1/studies").json["studies"], [])

    def test_outputs_that_are_there(self):
        made = self.submit({"sparsity": [0.5]}, method="magnitude", output="taken")
        self.finish(made["id"])
        body = study({"sparsity": [0.5, 0.6]}, method="magnitude", output="taken")
        self.assertIn("with sparsity=0.5", self.problem(self.post(body), 409, "output-exists")["detail"])
        self.assertEqual(len(self.jobs()), 1)
        body["spec"]["overwrite"] = True
        again = self.post(body).json
        self.assertEqual(self.finish(again["id"])["states"]["succeeded"], 2)

    def test_names(self):
        """Whatever characters name and settings have, and however long they are: jobs get names, outputs places, and cells of the CSV quotes."""
        self.assertEqual(self.daemon.request("POST", "/v1/drain").status, 200)
        odd = ["a,b", 'say "no"', "é" * 200]
        made = self.submit({"metadata.of": odd}, name="é" * 200, method="magnitude")
        names = [self.daemon.job(row["job"])["name"] for row in made["rows"]]
        self.assertEqual({len(name.encode()) <= 200 for name in names}, {True})
        made = self.submit({"metadata.of": odd}, name="s", method="magnitude")
        names = [self.daemon.job(row["job"])["name"] for row in made["rows"]]
        self.assertEqual(names[:2], ["s: metadata.of=a,b", 's: metadata.of=say "no"'])
        table = self.daemon.get(f"/v1/studies/{made['id']}", Accept="text/csv").body.decode()
        rows = list(csv.DictReader(io.StringIO(table, newline="")))
        self.assertEqual([row["metadata.of"] for row in rows], odd)
        for hole, directory in (("in/{id}/and-{id}", "in/{0}/and-{0}"), ("{id}", "{0}")):
            made = self.submit({"sparsity": [0.5]}, method="magnitude", output=hole)
            self.assertEqual(os.path.dirname(made["rows"][0]["output"]), directory.format(made["id"]))
        for name in ("", "x" * 201, "\u009f", "\x7f", "a\x1fb", None, 5):
            with self.subTest(name):
                problem = self.problem(self.post({**study({"sparsity": [0.5]}), "name": name}), 422, "invalid-study")
                self.assertEqual([error["pointer"] for error in problem["errors"]], ["/name"])

    def test_claimed_outputs(self):
        """One of its outputs is that of a job that waits, and of none of its jobs is anything there then."""
        self.assertEqual(self.daemon.request("POST", "/v1/drain").status, 200)
        first = self.submit({"sparsity": [0.5, 0.6]}, method="magnitude", output="taken")
        body = study({"sparsity": [0.4, 0.6]}, method="magnitude", output="taken")
        self.assertIn("taken/", self.problem(self.post(body), 409, "output-claimed")["detail"])
        self.assertEqual(len(self.jobs()), 2)
        cancelled = first["rows"][0]["job"]
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{cancelled}/cancel").status, 200)
        other = self.daemon.submit(small_job(output="taken/" + first["rows"][0]["output"].partition("/")[2], method="magnitude"))
        refused = self.daemon.request("POST", f"/v1/jobs/{cancelled}/retry")
        self.problem(refused, 409, "output-claimed")
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{other}/cancel").status, 200)
        os.makedirs(os.path.join(self.daemon.output, first["rows"][0]["output"]))
        self.problem(self.daemon.request("POST", f"/v1/jobs/{cancelled}/retry"), 409, "output-exists")

    def test_cancel(self):
        small_model(self.daemon, 100, "long")
        made = self.submit({"besa.epochs": [98, 99, 100]}, model="long")
        running = made["rows"][0]["job"]
        wait_for("a running job", lambda: self.daemon.job(running)["state"] == "running")
        self.problem(self.delete(made["id"]), 409, "wrong-state")
        shown = self.cancel(made["id"])
        self.assertEqual(shown.status, 200)
        self.assertEqual([row["state"] for row in shown.json["rows"]][1:], ["cancelled"] * 2)
        done = self.finish(made["id"])
        self.assertEqual(done["states"]["cancelled"], 3)
        self.assertEqual(self.cancel(made["id"]).status, 200)
        self.assertEqual([event["type"] for event in self.daemon.events(made["rows"][2]["job"])], ["job.queued", "job.cancelled"])
        self.assertEqual(self.delete(made["id"]).status, 204)
        self.assertEqual(os.listdir(os.path.join(self.daemon.state, "jobs")), [])

    def test_pages(self):
        made = [self.submit({"sparsity": [0.1 * n]}, method="magnitude")["id"] for n in (1, 2, 3)]
        page = self.daemon.get("/v1/studies?limit=2").json
        self.assertEqual(([s["id"] for s in page["studies"]], page["next"]), (made[:0:-1], made[1]))
        page = self.daemon.get(f"/v1/studies?limit=2&after={page['next']}").json
        self.assertEqual(([s["id"] for s in page["studies"]], page["next"]), (made[:1], None))
        self.problem(self.daemon.get("/v1/studies?after=x"), 400, "invalid-query")
        self.problem(self.daemon.get("/v1/studies/x"), 404, "not-found")
        self.problem(self.cancel(26 * "0"), 404, "not-found")
        self.problem(self.daemon.get(f"/v1/studies/{made[0]}", Accept="text/html"), 406, "not-acceptable")

    def test_too_many_jobs(self):
        self.assertEqual(self.daemon.get("/v1/info").json["limits"]["study_jobs"], 256)
        most = {"calibration.seed": list(range(64)), "sparsity": [0.2, 0.3, 0.4, 0.5]}
        wrong = self.wrong(study({**most, "besa.epochs": [1, 2]}))
        self.assertIn("256 jobs", wrong["/grid"])
        self.assertEqual(set(self.wrong(study({"calibration.seed": list(range(257))}))), {"/grid/calibration.seed"})
        self.assertEqual(self.submit(most, method="magnitude")["jobs"], 256)


class Demo(unittest.TestCase):
    def test_studies_are_accepted(self):
        demo, data = (os.path.join(ROOT, *path) for path in (("demo",), ("tests", "data")))
        daemon = Daemon("--model-root", demo, "--data-root", demo, "--data-root", data)
        self.addCleanup(daemon.remove)
        daemon.start()
        jobs = {}
        for name in os.listdir(os.path.join(demo, "studies")):
            with open(os.path.join(demo, "studies", name)) as file:
                made = daemon.request("POST", "/v1/studies", file.read())
            self.assertEqual(made.status, 201, (name, made.body))
            jobs[name] = made.json["jobs"]
            self.assertEqual(daemon.request("POST", f"/v1/studies/{made.json['id']}/cancel").status, 200)
        self.assertEqual(jobs, {"candidates.json": 7, "samples.json": 7, "importance.json": 4, "granularity.json": 8, "rows.json": 4,
                                "epochs.json": 4})


class Queue(WithStudies):
    options = ("--queue-limit", "4")

    def test_too_many_jobs(self):
        small_model(self.daemon, 100, "long")
        self.assertEqual(set(self.wrong(study({"calibration.seed": [1, 2, 3, 4, 5]}))), {"/grid/calibration.seed"})
        self.assertEqual(set(self.wrong(study({"calibration.seed": [1, 2, 3], "sparsity": [0.5, 0.6]}))), {"/grid"})
        running = self.submit({"besa.epochs": [100]}, model="long")["rows"][0]["job"]
        wait_for("a running job", lambda: self.daemon.job(running)["state"] == "running")
        self.submit({"sparsity": [0.5, 0.6]})
        refused = self.post(study({"sparsity": [0.5, 0.6, 0.7]}))
        self.problem(refused, 503, "queue-full")
        self.assertIn("Retry-After", refused.headers)
        self.assertEqual((len(self.jobs()), len(self.daemon.get("/v1/studies").json["studies"])), (3, 2))
        self.submit({"sparsity": [0.5, 0.6]})

    def test_full(self):
        self.assertEqual(self.daemon.request("POST", "/v1/drain").status, 200)
        over, paused = (self.daemon.submit(small_job(output=name, method="magnitude")) for name in ("over", "paused"))
        for job, action in ((over, "cancel"), (paused, "pause")):
            self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/{action}").status, 200)
        self.submit({"sparsity": [0.2, 0.3, 0.4, 0.5]}, method="magnitude")
        self.problem(self.post(study({"sparsity": [0.5]})), 503, "queue-full")
        for job, action in ((over, "retry"), (paused, "resume")):
            self.problem(self.daemon.request("POST", f"/v1/jobs/{job}/{action}"), 503, "queue-full")


if __name__ == "__main__":
    unittest.main()
