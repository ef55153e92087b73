#!/usr/bin/env python3
"""The HTTP API against its contract (openapi.yaml), on a real daemon."""
import json
import os
import re
import socket
import unittest

from support import Daemon, digests, small_job, small_model, wait_for, write_calibration

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


class Contract(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"), "--queue-limit", "8")
        small_model(cls.daemon, 4)
        small_model(cls.daemon, 200, "long")
        cls.daemon.start()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.remove()

    def problem(self, response, status, pointer=None):
        self.assertEqual(response.status, status, response.body)
        self.assertEqual(response.headers["Content-Type"].split(";")[0], "application/problem+json")
        problem = response.json
        self.assertEqual(problem["status"], status)
        self.assertTrue(problem["title"])
        if pointer:
            self.assertIn(pointer, [e["pointer"] for e in problem["errors"]], problem)
        return problem

    def post(self, body, **headers):
        return self.daemon.post("/v1/jobs", body, **headers)

    def running(self, **spec):
        """A job that runs until it is cancelled."""
        job = self.daemon.submit(small_job(model="long", besa={"epochs": 20}, **spec))
        wait_for("the job to run", lambda: self.daemon.job(job)["state"] == "running")
        return job

    def cancel(self, job):
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/cancel").status, 200)
        return self.daemon.finish(job)

    def test_calibration_from_several_files(self):
        sources = [{"path": "tokens.safetensors", "weight": 3}, {"path": "tokens.safetensors"}]
        job = self.daemon.submit(small_job(method="wanda", calibration={"sources": sources, "samples": 8, "sequence_length": 64}))
        shown = self.daemon.job(job)["spec"]["calibration"]
        self.assertEqual(shown["sources"], [{**sources[0], "field": "text"}, {**sources[1], "weight": 1, "field": "text"}])
        self.assertNotIn("path", shown)
        done = self.daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done)
        with open(os.path.join(self.daemon.output, done["result"]["output"], "besad.json")) as file:
            record = json.load(file)
        self.assertEqual(record["spec"]["calibration"], shown)
        self.assertRegex(record["calibration_hash"], "^[0-9a-f]{16}$")
        again = self.daemon.submit(done["spec"] | {"output": None})  # what a client was shown can be sent
        self.assertEqual(self.daemon.finish(again)["state"], "succeeded")
        self.problem(self.post(small_job(calibration={"sources": [{"path": "none"}]})), 422, "/calibration/sources/0/path")

    def test_a_job_from_post_to_model(self):
        response = self.post(small_job(evaluation={"perplexity": [
            {"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]}))
        self.assertEqual(response.status, 201, response.body)
        job = response.json
        self.assertEqual(response.headers["Location"], f"/v1/jobs/{job['id']}")
        self.assertIn(job["state"], ("queued", "running"))
        self.assertIsNone(job["result"])
        self.assertRegex(job["created_at"], TIME)
        spec = job["spec"]
        self.assertEqual((spec["method"], spec["pattern"], spec["precision"], spec["priority"]), ("besa", "unstructured", "auto", 0))
        self.assertEqual((spec["besa"]["candidates"], spec["besa"]["parameterization"], spec["besa"]["d_coef"]), (101, "sigmoid", 5))
        self.assertEqual(spec["output"], f"small-besa-{job['id']}")

        done = self.daemon.finish(job["id"])
        self.assertEqual(done["state"], "succeeded", done)
        self.assertEqual(done["result"]["output"], spec["output"])
        self.assertAlmostEqual(done["result"]["sparsity"], 0.5, places=4)
        perplexity = done["result"]["perplexity"]["tokens"]
        self.assertGreater(perplexity["dense"], 1)
        self.assertGreater(perplexity["pruned"], 1)
        self.assertIsNone(done["error"])
        files = os.listdir(os.path.join(self.daemon.output, spec["output"]))
        for name in ("config.json", "model.safetensors", "besad.json"):
            self.assertIn(name, files)

        events = self.daemon.events(job["id"])
        types = [e["type"] for e in events]
        self.assertEqual(types[0], "job.queued")
        self.assertEqual(types[-1], "job.succeeded")
        self.assertEqual(types.count("block.finished"), 4)
        self.assertEqual(types.count("eval.finished"), 2)
        self.assertIn("block.step", types)
        report = self.daemon.get(f"/v1/jobs/{job['id']}/report").json
        self.assertEqual(len(report["blocks"]), 4)
        for layer in report["blocks"][0]["layers"].values():
            self.assertEqual(set(layer), {"rate", "zeros", "params"})

        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job['id']}/cancel").status, 409)
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job['id']}/retry").status, 409)
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{job['id']}").status, 204)
        self.problem(self.daemon.get(f"/v1/jobs/{job['id']}"), 404)
        self.assertTrue(os.path.exists(os.path.join(self.daemon.output, spec["output"])))

    def test_event_stream(self):
        job = self.daemon.submit(small_job(output="streamed"))
        seen = [(i, t) for i, t, _ in self.daemon.stream(job) if t != "comment"]
        self.assertEqual(seen[-1][1], "end")
        stored = [(e["id"], e["type"]) for e in self.daemon.events(job)]
        self.assertEqual([s for s in seen if s[1] != "end"], stored)
        rest = [i for i, t, _ in self.daemon.stream(job, Last_Event_ID="3") if t not in ("comment", "end")]
        self.assertEqual(rest, list(range(4, len(stored) + 1)))

    def test_idempotency(self):
        job = self.running(output="first-in-line")
        spec = small_job(output="once", priority=-5)
        first = self.post(spec, Idempotency_Key="key-1")
        again = self.post(spec, Idempotency_Key="key-1")
        self.assertEqual((first.status, again.status), (201, 201))
        self.assertEqual(first.json["id"], again.json["id"])
        self.problem(self.post(small_job(output="twice"), Idempotency_Key="key-1"), 422)
        self.problem(self.post(small_job(output="once")), 409)
        self.cancel(first.json["id"])
        self.cancel(job)

    def test_output_that_exists(self):
        self.assertEqual(self.daemon.finish(self.daemon.submit(small_job(output="taken", method="wanda")))["state"], "succeeded")
        self.problem(self.post(small_job(output="taken")), 409)
        job = self.daemon.submit(small_job(output="taken", method="magnitude", overwrite=True))
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        with open(os.path.join(self.daemon.output, "taken", "besad.json")) as file:
            self.assertEqual(json.load(file)["spec"]["method"], "magnitude")

    def test_field_problems(self):
        for change, pointer in (({"sparsity": 1.2}, "/sparsity"), ({"sparsity": "half"}, "/sparsity"), ({"model": None}, "/model"),
                                ({"color": "red"}, "/color"), ({"besa": {"candidates": 1}}, "/besa/candidates"),
                                ({"besa": {"colour": 1}}, "/besa/colour"), ({"method": "guess"}, "/method"),
                                ({"pattern": "2:4", "method": "none"}, "/pattern"), ({"pattern": "4:2", "method": "wanda"}, "/pattern"), ({"model": "../state"}, "/model"), ({"model": "/etc"}, "/model"),
                                ({"output": "../x"}, "/output"), ({"output": ".hidden"}, "/output"),
                                ({"calibration": {"path": "nothing"}}, "/calibration/path"),
                                ({"calibration": {"path": "../models/small/model.safetensors"}}, "/calibration/path"),
                                ({"evaluation": {"perplexity": [{"path": 7}]}}, "/evaluation/perplexity/0/path"),
                                ({"priority": 1.5}, "/priority")):
            with self.subTest(pointer=pointer, change=change):
                self.problem(self.post({**small_job(), **change}), 422, pointer)

    def test_none_takes_no_sparsity(self):
        for sparsity in (0.5, "0"):
            problem = self.post({"model": "small", "method": "none", "sparsity": sparsity})
            self.problem(problem, 422, "/sparsity")
            self.assertIn("none prunes nothing: leave sparsity out", problem.json["errors"][0]["detail"])
        for spec in ({"sparsity": 0}, {"sparsity": None}, {}):
            job = self.daemon.submit({"model": "small", "method": "none", **spec})
            self.assertEqual(self.daemon.finish(job)["state"], "succeeded")

    def test_problems_say_what_was_found(self):
        for change, found in (({"sparsity": 1.2}, "from 0 to 0.95, not 1.2"), ({"overwrite": "yes"}, 'not "yes"'),
                              ({"method": "guess"}, 'none, not "guess"'), ({"color": 1}, "precision, priority, timeout_seconds"),
                              ({"model": "absent"}, "GET /v1/models"), ({"priority": [1] * 99}, "[1,1,1")):
            self.assertIn(found, self.post({**small_job(), **change}).json["errors"][0]["detail"])

    def test_symlink_out_of_the_roots(self):
        os.symlink("/etc", os.path.join(self.daemon.models, "etc"))
        self.problem(self.post(small_job(model="etc")), 422, "/model")

    def test_bodies(self):
        self.problem(self.post("{", Content_Type="application/json"), 400)
        self.problem(self.post("[" * 5000, Content_Type="application/json"), 400)
        self.problem(self.post("{}", Content_Type="text/xml"), 415)
        self.problem(self.post("{}", Content_Type="application/x-www-form-urlencoded"), 422, "/model")
        self.problem(self.post("{}", Content_Type="application/x-www-form-urlencoded", Origin="http://evil.example"), 403)
        self.problem(self.post(" " * (2 << 20), Content_Type="application/json"), 413)

    def test_paths_and_methods(self):
        self.problem(self.daemon.get("/nothing"), 404)
        self.problem(self.daemon.get("/v1/jobs/nothing"), 404)
        wrong = self.daemon.request("PUT", "/v1/jobs")
        self.problem(wrong, 405)
        self.assertIn("POST", wrong.headers["Allow"])
        self.assertGreaterEqual(self.daemon.get("/v1/jobs?limit=0").status, 400)
        self.assertGreaterEqual(self.daemon.get("/v1/jobs?colour=red").status, 400)

    def test_lists(self):
        jobs = [self.running(output="busy")]
        jobs += [self.daemon.submit(small_job(output=f"listed-{i}", priority=-9)) for i in range(3)]
        seen, after = [], None
        while True:
            page = self.daemon.get("/v1/jobs?limit=2" + (f"&after={after}" if after else "")).json
            self.assertLessEqual(len(page["jobs"]), 2)
            seen += [j["id"] for j in page["jobs"]]
            after = page["next"]
            if after is None:
                break
        self.assertEqual(len(seen), len(set(seen)))
        self.assertTrue(set(jobs) <= set(seen))
        queued = self.daemon.get("/v1/jobs?state=queued").json["jobs"]
        self.assertTrue(queued)
        self.assertEqual({j["state"] for j in queued}, {"queued"})
        for job in reversed(jobs):
            self.cancel(job)

    def test_metadata(self):
        first = self.running(output="noted", metadata={"team": "prune", "k/ä]": "a b&c", "left out": None})
        self.assertEqual(self.daemon.job(first)["spec"]["metadata"], {"team": "prune", "k/ä]": "a b&c"})
        second = self.daemon.submit(small_job(output="noted-too", priority=-9, metadata={"team": "prune"}))
        third = self.daemon.submit(small_job(output="not-noted", priority=-9, metadata={}))
        self.assertNotIn("metadata", self.daemon.job(third)["spec"])

        def found(query):
            response = self.daemon.get("/v1/jobs?" + query)
            self.assertEqual(response.status, 200, response.body)
            return [job["id"] for job in response.json["jobs"]]
        self.assertEqual(found("metadata[team]=prune"), [second, first])
        self.assertEqual(found("metadata%5Bteam%5D=prune&limit=1"), [second])
        self.assertEqual(found(f"metadata[team]=prune&after={second}"), [first])
        self.assertEqual(found("state=queued&metadata[team]=prune"), [second])
        self.assertEqual(found("metadata[team]=prune&metadata[k/%C3%A4]]=a%20b%26c"), [first])
        self.assertEqual(found("metadata[team]="), [])
        self.assertEqual(found(f"metadata[{'%C3%A4' * 64}]={'%C3%A4' * 512}"), [])
        for query in ("metadata=x", "metadata[team]", "metadata[team=x", "metadata[team]=a&metadata[team]=b", "metadata[%ff]=a", "metadata[a]=%ff",
                      "metadata[]=a", f"metadata[{'k' * 65}]=a", "metadata[a%0a]=b", f"metadata[a]={'v' * 513}",
                      "&".join(f"metadata[k{i}]=v" for i in range(17))):
            with self.subTest(query):
                self.problem(self.daemon.get("/v1/jobs?" + query), 400)
        many = {f"k{i}": "v" for i in range(16)}
        self.assertEqual(found("&".join(f"metadata[{key}]={value}" for key, value in many.items())), [])
        for metadata, pointer in (({**many, "one more": ""}, "/metadata"), ({"k" * 65: ""}, "/metadata/" + "k" * 65), ({"k": "v" * 513}, "/metadata/k"),
                                  ({"k": 1}, "/metadata/k"), ({"": "v"}, "/metadata/"), ("text", "/metadata")):
            with self.subTest(metadata=metadata):
                self.problem(self.post(small_job(metadata=metadata)), 422, pointer)
        # A key answers for one request, with what it notes.
        noted = small_job(output="keyed", priority=-9, metadata={"n": "1"})
        keyed = self.post(noted, Idempotency_Key="noted").json["id"]
        self.assertEqual(self.post(noted, Idempotency_Key="noted").json["id"], keyed)
        self.problem(self.post({**noted, "metadata": {"n": "2"}}, Idempotency_Key="noted"), 422)
        for job in (keyed, third, second, first):
            self.cancel(job)

    def test_priorities(self):
        busy = self.running(output="busy-too")
        low = self.daemon.submit(small_job(output="low", method="magnitude", priority=1))
        high = self.daemon.submit(small_job(output="high", method="magnitude", priority=2))
        self.cancel(busy)
        low, high = self.daemon.finish(low), self.daemon.finish(high)
        self.assertLess(high["started_at"], low["started_at"])

    def test_full_queue(self):
        jobs = [self.running(output="hog")]
        for i in range(8):
            jobs.append(self.daemon.submit(small_job(output=f"queued-{i}")))
        full = self.post(small_job(output="too-many"))
        self.problem(full, 503)
        self.assertTrue(int(full.headers["Retry-After"]) > 0)
        for job in reversed(jobs):
            self.cancel(job)

    def test_cancel_is_quick_and_idempotent(self):
        """It ends a job in the middle of a block: one of this job takes minutes."""
        write_calibration(os.path.join(self.daemon.data, "many.safetensors"), 2048, 64, vocab=300)
        job = self.daemon.submit(small_job(output="interrupted", besa={"epochs": 100}, calibration={
            "path": "many.safetensors", "samples": 2048, "sequence_length": 64}))
        wait_for("a finished step", lambda: any(e["type"] == "block.step" for e in self.daemon.events(job)))
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/cancel").json["state"], "cancelling")
        self.daemon.request("POST", f"/v1/jobs/{job}/cancel")
        self.assertEqual(self.daemon.finish(job)["state"], "cancelled")
        types = [e["type"] for e in self.daemon.events(job)]
        self.assertNotIn("block.finished", types)
        self.assertEqual(types.count("job.cancelled"), 1)
        self.assertFalse(os.path.exists(os.path.join(self.daemon.output, "interrupted")))

    def test_pause_and_resume(self):
        def act(job, action, status=200):
            response = self.daemon.request("POST", f"/v1/jobs/{job}/{action}")
            self.assertEqual(response.status, status, response.body)
            return response.json
        spec, blocks = {"model": "half", "besa": {"epochs": 2}}, 6
        small_model(self.daemon, blocks, "half")
        plain = self.daemon.submit(small_job(output="never-paused", **spec))
        self.assertEqual(self.daemon.finish(plain)["state"], "succeeded")
        job = self.daemon.submit(small_job(output="paused", **spec))
        other = self.daemon.submit(small_job(output="meanwhile", method="wanda"))
        wait_for("a finished block", lambda: any(e["type"] == "block.finished" for e in self.daemon.events(job)))
        self.assertIn(act(job, "pause")["state"], ("pausing", "paused"))
        self.assertIn(act(job, "pause")["state"], ("pausing", "paused"))
        self.assertEqual(self.daemon.finish(other)["state"], "succeeded")  # the worker is free for the next one
        shown = self.daemon.job(job)
        self.assertEqual((shown["state"], shown["finished_at"], shown["error"]), ("paused", None, None))
        self.assertEqual([j["id"] for j in self.daemon.get("/v1/jobs?state=paused").json["jobs"]], [job])
        self.problem(self.post(small_job(output="paused")), 409)
        self.assertEqual(act(job, "retry", 409)["type"], "urn:besad:problem:wrong-state")
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{job}").status, 409)
        before = [e for e in self.daemon.events(job) if e["type"] == "block.finished"]
        self.assertLess(len(before), blocks)
        self.assertEqual(act(job, "resume")["state"], "queued")
        done = self.daemon.finish(job)
        self.assertEqual((done["state"], done["attempt"]), ("succeeded", 2), done["error"])
        events = self.daemon.events(job)
        self.assertEqual([e["data"]["block"] for e in events if e["type"] == "block.finished"], list(range(blocks)))
        self.assertEqual([(e["type"], e["data"].get("reason")) for e in events if e["type"] in ("job.paused", "job.queued")],
                         [("job.queued", "submitted"), ("job.paused", None), ("job.queued", "resumed")])
        outputs = (digests(os.path.join(self.daemon.output, name)) for name in ("paused", "never-paused"))
        self.assertEqual(next(outputs), next(outputs))
        for action in ("pause", "resume"):
            self.assertEqual(act(job, action, 409)["type"], "urn:besad:problem:wrong-state")
            self.problem(self.daemon.request("POST", f"/v1/jobs/01hzzzzzzz0123456789abcdef/{action}"), 404)

    def test_timeout(self):
        job = self.daemon.submit(small_job(model="long", output="slow", besa={"epochs": 20}, timeout_seconds=1))
        done = self.daemon.finish(job)
        self.assertEqual((done["state"], done["error"]["code"]), ("failed", "timeout"))

    def test_service_pages(self):
        self.assertEqual(self.daemon.get("/healthz").status, 200)
        info = self.daemon.get("/v1/info").json
        self.assertEqual(info["backend"], "cpu")
        load = wait_for("the device's utilisation",
                        lambda: (d := self.daemon.get("/v1/info").json["device_load"])["utilisation"] is not None and d)
        self.assertTrue(0 <= load["utilisation"] <= 1 and 0 < load["memory_used_bytes"] < load["memory_total_bytes"], load)
        models = {m["name"]: m for m in self.daemon.get("/v1/models").json["models"]}
        self.assertEqual(models["small"]["family"], "llama")
        metrics = self.daemon.get("/metrics").body.decode()
        self.assertRegex(metrics, r'(?m)^besad_build_info\{.*version=".+"\} 1$')
        self.assertIn("besad_jobs", metrics)
        page = self.daemon.get("/")
        self.assertIn(b"<html", page.body)
        self.assertIn("default-src", page.headers["Content-Security-Policy"])
        self.assertIn(b"openapi: 3.1", self.daemon.get("/openapi.yaml").body)

    def test_slow_clients_do_not_hold_the_server(self):
        sockets = [socket.create_connection(("127.0.0.1", self.daemon.port)) for _ in range(20)]
        for s in sockets:
            s.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        self.assertEqual(self.daemon.get("/healthz").status, 200)
        for s in sockets:
            s.close()


class Token(unittest.TestCase):
    def test_token(self):
        daemon = Daemon()
        self.addCleanup(daemon.remove)
        path = os.path.join(daemon.directory, "token")
        with open(path, "w") as file:
            file.write("correct-horse-battery-staple\n")
        os.chmod(path, 0o600)
        daemon.token = "correct-horse-battery-staple"
        daemon.start("--token-file", path)
        self.assertEqual(daemon.get("/v1/jobs").status, 200)
        for authorization in ("", "Bearer wrong", "Basic Zm9vOmJhcg=="):
            refused = daemon.get("/v1/jobs", Authorization=authorization)
            self.assertEqual(refused.status, 401)
            self.assertIn("Bearer", refused.headers["WWW-Authenticate"])
        self.assertEqual(daemon.get("/healthz", Authorization="").status, 200)


if __name__ == "__main__":
    unittest.main()
