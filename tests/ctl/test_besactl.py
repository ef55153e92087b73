#!/usr/bin/env python3
"""besactl against a real daemon: on a terminal and in a pipe, through a restart, with its exit codes and its JSON."""
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
from support import BESAD, PATIENCE, ROOT, Daemon, small_job, small_model, wait_for, write_model  # noqa: E402

COMPLETION = os.path.join(ROOT, "ctl", "completion", "besactl.bash")
BESACTL = os.path.join(os.path.dirname(BESAD), "besactl")
DONE, USAGE, REFUSED, UNREACHABLE, FAILED, CANCELLED = range(6)
BLOCKS = 12


class Terminal:
    """A command on a pseudo-terminal of 100 columns; `text` grows as it writes. It ends with the test."""

    def __init__(self, test, command, environment):
        master, slave = pty.openpty()
        subprocess.run(["stty", "cols", "100"], stdin=slave, check=True)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.text = b""
        test.addCleanup(self.kill)
        self.reader = threading.Thread(target=self.read, args=(master,), daemon=True)
        self.reader.start()

    def read(self, master):
        try:
            while piece := os.read(master, 65536):
                self.text += piece
        except OSError:
            pass  # Linux's end of file on a terminal
        os.close(master)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        status = self.process.wait(PATIENCE)
        self.reader.join()
        return status


class Besactl(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, BLOCKS)
        self.daemon.start()

    def environment(self):
        return {**os.environ, "BESAD_URL": f"http://127.0.0.1:{self.daemon.port}", "TERM": "xterm"}

    def run_ctl(self, *arguments, **more):
        return subprocess.run([BESACTL, *arguments], capture_output=True, text=True, env=self.environment(), timeout=PATIENCE,
                              **more)

    def says(self, *arguments, status=DONE, **more):
        done = self.run_ctl(*arguments, **more)
        self.assertEqual(done.returncode, status, (arguments, done.stdout, done.stderr))
        return done.stdout

    def job_file(self, **spec):
        path = os.path.join(self.daemon.directory, "job.json")
        with open(path, "w") as file:
            json.dump(small_job(**spec), file)
        return path

    def test_gc(self):
        self.daemon.stop()
        self.daemon.start("--keep-failed", "0")
        self.assertEqual(self.says("gc", "--dry-run"), "0 jobs would be forgotten, 0 B\n")
        running = self.says("submit", self.long_job()).strip()
        job = self.daemon.submit(small_job(output="queued"))
        wait_for("the first to run", lambda: self.daemon.job(running)["state"] == "running")
        self.says("cancel", job)
        told = self.says("gc", "--dry-run")
        self.assertRegex(told, rf"(?m)^{job} +cancelled +\S+ \S+ +\S+ k?B +keep_failed$")
        self.assertRegex(told, r"(?m)^1 job would be forgotten, \S+ k?B$")
        self.assertEqual([r["job"] for r in json.loads(self.says("gc", "--dry-run", "--json"))["removals"]], [job])
        self.says("show", job)
        self.assertRegex(self.says("gc"), r"(?m)^1 job forgotten, ")
        self.says("show", job, status=REFUSED)
        old = ".besad-replaced-1000000000-000000000-job"
        os.mkdir(os.path.join(self.daemon.output, old))
        told = self.says("gc", "--dry-run")
        self.assertRegex(told, rf"(?m)^{old} +replaced +2001-09-09 01:46:40 +0 B +keep_replaced$")
        self.assertRegex(self.says("gc"), r"(?m)^0 jobs forgotten, 1 replaced output removed, 0 B$")
        self.assertFalse(os.path.exists(os.path.join(self.daemon.output, old)))
        self.says("gc", "all", status=USAGE)
        self.says("rm", "--dry-run", running, status=USAGE)

    def test_audit(self):
        job = self.says("submit", self.long_job()).strip()
        self.says("cancel", job)
        self.says("rm", 26 * "0", status=REFUSED)
        lines = self.says("audit").splitlines()
        self.assertEqual(lines[0].split(), ["WHEN", "(UTC)", "WHO", "FROM", "ACTION", "OF", "OUTCOME"])
        self.assertEqual([line.split()[2:] for line in lines[1:]], [["-", "127.0.0.1", "job.delete", 26 * "0", "not-found"],
                                                                     ["-", "127.0.0.1", "job.cancel", job, "done"],
                                                                     ["-", "127.0.0.1", "job.submit", job, "done"]])
        self.assertEqual([entry["action"] for entry in json.loads(self.says("audit", "--json", "--limit", "2"))], ["job.delete", "job.cancel"])
        self.assertEqual(len(json.loads(self.says("audit", "--json", "--limit", "0"))), 3)
        self.says("audit", job, status=USAGE)
    def test_drain(self):
        self.assertRegex(self.says("drain"), r"^drained since \S+ \S+ UTC: no job is begun\nno job is at work\n$")
        job = self.daemon.submit(small_job(output="waits"))
        self.assertRegex(self.says("info"), r"(?m)^drained_since +20")
        self.assertEqual(self.daemon.job(job)["state"], "queued")
        self.assertEqual(self.says("undrain"), "not drained: jobs are begun\n")
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        running = self.says("submit", self.slow_job()).strip()
        wait_for("it to run", lambda: self.daemon.job(running)["state"] == "running")
        self.assertIn(f"still at work: job {running}\n", self.says("drain"))
        self.assertIs(json.loads(self.says("drain", "--now", "--json"))["drained"], True)
        wait_for("it to stop", lambda: self.daemon.job(running)["state"] == "queued")
        self.assertIn("no job is at work", self.says("drain"))
        self.says("undrain", "--now", status=USAGE)

    def slow_job(self):
        """A job that runs for many seconds: passes over every block, again and again."""
        return self.job_file(besa={"epochs": 40})

    def long_job(self):
        """A job that runs until it is cancelled: nobody waits for its end."""
        small_model(self.daemon, 100, "long")
        return self.job_file(model="long", besa={"epochs": 100})

    def test_pipe(self):
        out = self.says("submit", "--watch", self.job_file())
        self.assertNotIn("\r", out)
        self.assertNotIn("\x1b", out)
        blocks = re.findall(r"^block (\d+)/12  reconstruction \S+  sparsity 50(?:\.0+)? ?%", out, re.M)
        self.assertEqual([int(b) for b in blocks], list(range(1, BLOCKS + 1)), out)
        self.assertIn("\nsucceeded\n", out)

    def test_terminal(self):
        terminal = Terminal(self, [BESACTL, "submit", "--watch", self.slow_job()], self.environment())
        self.assertEqual(terminal.end(), DONE, terminal.text[-500:])
        text = terminal.text.decode()
        bars = re.findall(r"\r([^\r\n\x1b]*\[[#-]+\][^\r\n\x1b]*)\x1b\[K", text)
        self.assertGreater(len(bars), 3, text[-500:])
        self.assertTrue(all(len(bar) < 100 for bar in bars))
        for part in (r"block \d+/12", r"\d %|\d%", r"loss \d", r"sparsity \d", r"left"):
            self.assertTrue(any(re.search(part, bar) for bar in bars), (part, bars[-3:]))
        parts = [float(m[1]) for bar in bars if (m := re.search(r"\]  ([0-9.]+) %", bar))]
        self.assertGreater(len(parts), 3, bars[-3:])
        self.assertEqual(parts, sorted(parts))  # it never goes back
        lines = re.sub(r"\r[^\n]*?\x1b\[K", "", text)
        self.assertEqual(len(re.findall(r"^block \d+/12 ", lines, re.M)), BLOCKS, lines)

    def test_restart(self):
        terminal = Terminal(self, [BESACTL, "submit", "--watch", self.slow_job()], self.environment())
        wait_for("a finished block", lambda: b"block 2/12" in terminal.text)
        port = self.daemon.port
        self.daemon.kill()
        wait_for("the loss of the connection", lambda: b"trying again" in terminal.text)
        self.daemon.start(port=port)
        self.assertEqual(terminal.end(), DONE, terminal.text[-500:])
        text = terminal.text.decode()
        self.assertIn("connected again", text)
        lines = re.findall(r"^block (\d+)/12  reconstruction", re.sub(r"\r[^\n]*?\x1b\[K", "", text), re.M)
        self.assertEqual([int(b) for b in lines], list(range(1, BLOCKS + 1)))  # none lost, none twice

    def test_interrupted_watch_leaves_the_job(self):
        job = self.says("submit", self.long_job()).strip()
        wait_for("the job to run", lambda: self.daemon.job(job)["state"] == "running")
        watch = subprocess.Popen([BESACTL, "watch", job], env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True)
        self.addCleanup(watch.kill)
        watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=PATIENCE)
        self.assertEqual(watch.returncode, -signal.SIGINT)
        self.assertIn("the job goes on", errors)
        self.assertEqual(self.daemon.job(job)["state"], "running")

    def test_exit_codes(self):
        self.assertIn("/sparsity", self.run_ctl("submit", self.job_file(sparsity=1.2)).stderr)
        self.says("submit", self.job_file(sparsity=1.2), status=REFUSED)
        self.says("submit", "absent.json", status=USAGE)
        self.says("dance", status=USAGE)
        self.says("show", "0" * 26, status=REFUSED)
        self.says("info", "--url", "http://127.0.0.1:9", status=UNREACHABLE)
        failing = self.job_file(timeout_seconds=0.2, besa={"epochs": 40})
        self.says("submit", "--wait", failing, status=FAILED)
        job = self.says("submit", self.long_job()).strip()
        self.says("cancel", job)
        self.says("watch", job, status=CANCELLED)

    def test_after(self):
        first = self.says("submit", self.long_job()).strip()
        second = self.says("submit", self.job_file(method="wanda"), "--after", "last").strip()
        third = self.says("submit", self.job_file(method="wanda"), "--after", first, "--after", second).strip()
        self.assertEqual(json.loads(self.says("show", "--json", third))["depends_on"], [first, second])
        shown = self.says("show", third)
        self.assertRegex(shown, f"depends on +{first} {second}\n")
        self.assertRegex(shown, f"waits for +{first} {second}\n")
        listed = self.says("list")
        self.assertRegex(listed, f"{second} +queued +after …{first[-4:]} ")
        self.assertRegex(listed, f"{third} +queued +after …{first[-4:]} \\+1 ")
        self.assertEqual(json.loads(self.says("submit", self.job_file(depends_on=[first]), "--after", second, "--dry-run"))["depends_on"], [first, second])
        self.says("submit", self.job_file(depends_on=first), "--after", second, status=USAGE)
        self.assertIn("depends_on", self.run_ctl("submit", self.job_file(method="wanda"), "--after", "01m85j1whand51sh74m987j2rq").stderr)
        self.says("cancel", first)
        self.says("watch", third, status=FAILED)
        self.assertIn(f"it depends on job {first}, which was cancelled", self.says("show", third))

    def test_life_of_a_job(self):
        job = self.says("submit", "--model", "small", "--sparsity", "50%", "--calibration", "tokens.safetensors", "--samples", "32",
                        "--sequence-length", "64", "--name", "by hand").strip()
        other = self.says("submit", self.job_file(method="wanda")).strip()
        self.says("watch", job)
        self.says("watch", other)
        noted = self.says("submit", self.job_file(method="wanda", metadata={"team": "old"}), "--metadata", "team=a & b", "--metadata",
                          "x.y=1=2").strip()
        self.says("watch", noted)
        self.assertEqual(json.loads(self.says("show", "--json", noted))["spec"]["metadata"], {"team": "a & b", "x.y": "1=2"})
        listed = json.loads(self.says("list", "--json", "--metadata", "team=a & b", "--metadata", "x.y=1=2"))["jobs"]
        self.assertEqual([j["id"] for j in listed], [noted])
        self.assertEqual(json.loads(self.says("list", "--json", "--metadata", "team=a"))["jobs"], [])
        self.says("list", "--metadata", "team", status=USAGE)
        self.says("rm", noted)
        self.assertEqual(json.loads(self.says("show", "--json", job))["state"], "succeeded")
        self.assertIn("by hand", self.says("list"))
        self.assertEqual({j["id"] for j in json.loads(self.says("list", "--json"))["jobs"]}, {job, other})
        logged = self.says("log", job).splitlines()
        self.assertRegex(logged[0], "^[0-9T:.-]+Z info: queued$")
        self.assertRegex(logged[-1], "Z info: succeeded$")
        self.says("log", "01hzzzzzzz0123456789abcdef", status=REFUSED)
        report = json.loads(self.says("report", "--json", job))
        self.assertEqual(len(report["blocks"]), BLOCKS)
        self.assertIn("q_proj", self.says("report", job))
        compared = self.says("compare", job, other)
        self.assertIn("admm", compared)
        self.assertIn("wanda", compared)
        self.assertRegex(self.says("artifacts", job), r"(?m)^model\.safetensors +\S+ [kM]B  [0-9a-f]{64}$")
        self.assertIn("besad.json", [entry["name"] for entry in json.loads(self.says("artifacts", "--json", job))["artifacts"]])
        self.says("retry", job, status=REFUSED)
        self.says("rm", job, other)
        self.assertEqual(json.loads(self.says("list", "--json"))["jobs"], [])
        self.assertIn("small", self.says("models"))
        self.assertRegex(self.says("data"), r"(?m)^tokens\.safetensors +tokens +none +\d")
        self.assertEqual(json.loads(self.says("info", "--json"))["version"], json.loads(self.daemon.get("/v1/info").body)["version"])

    def test_pause_and_resume(self):
        job = self.says("submit", self.long_job()).strip()
        wait_for("the job to run", lambda: self.daemon.job(job)["state"] == "running")
        self.assertRegex(self.says("pause", job), rf"^{job} paus(ing|ed)$")
        terminal = Terminal(self, [BESACTL, "watch", job], self.environment())
        wait_for("the pause", lambda: self.daemon.job(job)["state"] == "paused")
        self.assertIn(job, self.says("list", "--state", "paused"))
        wait_for("the watcher to hear of it", lambda: b"paused" in terminal.text)
        self.assertIn("queued", self.says("resume", job))
        wait_for("the job to run", lambda: self.daemon.job(job)["state"] == "running")
        self.says("cancel", job)
        self.assertEqual(terminal.end(), CANCELLED, terminal.text[-500:])

    def complete(self, *words):
        """What bash offers for the last word."""
        script = f"""source {shlex.quote(COMPLETION)}
                     compopt() {{ :; }}
                     COMP_WORDS=({" ".join(map(shlex.quote, words))}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
                     _besactl; printf '%s\\n' "${{COMPREPLY[@]}}" """
        path = os.path.dirname(BESACTL) + os.pathsep + os.environ["PATH"]
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**self.environment(), "PATH": path},
                              check=True, timeout=PATIENCE)
        self.assertEqual(done.stderr, "")
        return done.stdout.splitlines()

    def test_study(self):
        path = os.path.join(self.daemon.directory, "study.json")
        with open(path, "w") as file:
            json.dump({"name": "two ways", "spec": small_job(evaluation={"perplexity": [
                {"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]}),
                "grid": {"method": ["wanda", "magnitude"], "sparsity": [0.25]}}, file)
        self.says("study", "show", status=REFUSED)  # there is none yet
        study = self.says("study", "submit", path, "--idempotency-key", "once").strip()
        self.assertEqual(self.says("study", "submit", path, "--idempotency-key", "once").strip(), study)
        out = self.says("study", "watch", study)
        for number, method in ((1, "wanda"), (2, "magnitude")):
            self.assertIn(f'{number}/2  succeeded  {{"method":"{method}","sparsity":0.25}}\n', out)
        rows = json.loads(self.says("study", "show", "--json"))["rows"]
        table = self.says("study", "show", "last")
        self.assertTrue(out.endswith(table), out)
        for row in rows:
            self.assertRegex(table, rf"(?m)^{row['job']} +succeeded +{row['settings']['method']} +0\.25 +25\.0\d* % +"
                                    rf"{row['perplexity']['tokens']['pruned']:.4g}")
        served = self.daemon.get(f"/v1/studies/{study}", Accept="text/csv").body.decode()
        self.assertEqual(self.says("study", "show", study, "--csv"), served.replace("\r\n", "\n"))
        self.assertRegex(self.says("study", "list"), rf"(?m)^{study} +2 +2 succeeded .* two ways$")
        self.assertEqual(self.complete("besactl", "study", "show", study[:3]), [study])
        self.assertEqual(self.complete("besactl", "study", "w"), ["watch"])
        self.says("study", "cancel", study, status=REFUSED)
        self.assertEqual(self.says("study", "rm", study), f"{study} removed\n")
        for wrong in (["study"], ["study", "submit"], ["study", "cancel"], ["study", "burn"], ["study", "show", "a", "b"], ["study", "show", "/"],
                      ["study", "submit", path + "x"], ["show", "--csv"]):
            self.says(*wrong, status=USAGE)

    def test_cancelled_study(self):
        path = os.path.join(self.daemon.directory, "study.json")
        with open(self.long_job()) as job, open(path, "w") as file:
            json.dump({"name": "long", "spec": json.load(job), "grid": {"sparsity": [0.5, 0.6]}}, file)
        terminal = Terminal(self, [BESACTL, "study", "submit", "--watch", path], self.environment())
        wait_for("the first job", lambda: b"1/2  running" in terminal.text)
        self.assertRegex(self.says("study", "cancel", "last"), r"^\S+ cancelled\n$")
        self.assertEqual(terminal.end(), CANCELLED, terminal.text[-500:])
        self.assertIn(b"2/2  cancelled", terminal.text)

    def test_simulated(self):
        job = self.says("submit", "--simulate", "--method", "magnitude", "--model", "small", "--sparsity", "0.5").strip()
        self.says("watch", job)
        hardware = json.loads(self.says("report", "--json", job))["hardware"]
        counted = hardware["simulated"]
        text = self.says("report", job)
        self.assertRegex(text, r"\nall +" + " +".join(f"{counted[name]['cycles']} +{counted[name]['speedup']:.2f}" for name in counted) + r"\n")
        self.assertRegex(text, r"\nq_proj +\d+ +\d\.\d\d ")

    def test_measured(self):
        job = self.says("submit", "--measure", "--method", "magnitude", "--model", "small", "--sparsity", "0.5").strip()
        self.says("watch", job)
        hardware = json.loads(self.says("report", "--json", job))["hardware"]
        text = self.says("report", job)
        token = hardware["decode"]
        self.assertRegex(text, rf"\none token +{token['dense_us']:.1f} +{token['sparse_us']:.1f} +{token['speedup']:.2f}\s")
        self.assertRegex(text, r"\nq_proj +\d+\.\d +\d+\.\d +\d+\.\d\d +\d\.\d\d\d\n")
        self.assertNotIn("Cycles", text)

    def test_names_and_completion(self):
        with open(os.path.join(self.daemon.data, "$(touch owned) text.txt"), "w") as file:
            file.write("Some text.\n")
        with open(os.path.join(self.daemon.data, "table.parquet"), "wb") as file:
            file.write(b"PAR1" + bytes(100) + b"PAR1")
        os.mkdir(os.path.join(self.daemon.models, "broken"))
        with open(os.path.join(self.daemon.models, "broken", "config.json"), "w") as file:
            file.write("{")
        self.assertEqual(self.says("models", "--names"), "small\n")
        self.assertEqual(self.says("data", "--names"), "$(touch owned) text.txt\ntokens.safetensors\n")
        self.assertRegex(self.says("models"), r"(?m)^broken .*config\.json")
        self.assertRegex(self.says("data"), r"(?m)^table\.parquet .*arquet")
        self.assertEqual(self.complete("besactl", "submit", "--model", "s"), ["small"])
        self.assertEqual(self.complete("besactl", "submit", "-c", ""), ["$(touch owned) text.txt", "tokens.safetensors"])
        self.assertEqual(self.complete("besactl", "submit", "--eval", "t"), ["tokens.safetensors"])
        self.assertEqual(self.complete("besactl", "submit", "--eval", "wiki=t"), ["wiki=tokens.safetensors"])
        self.assertEqual(self.complete("besactl", "submit", "--set", "evaluation.perplexity.0.path=to"),
                         ["evaluation.perplexity.0.path=tokens.safetensors"])
        self.assertEqual(self.complete("besactl", "d"), ["drain", "data"])

    def test_set_in_a_list(self):
        job = self.says("submit", "-m", "small", "--method", "none", "--set", "evaluation.perplexity.0.path=tokens.safetensors",
                        "--set", "evaluation.perplexity.0.sequence_length=64").strip()
        self.says("watch", job)
        self.assertEqual(list(self.daemon.job(job)["result"]["perplexity"]), ["tokens"])

    def test_scores_of_tasks(self):
        shutil.copytree(os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(self.daemon.models, "llama"))
        shutil.copy(os.path.join(ROOT, "tests", "data", "tasks", "choices.jsonl"), self.daemon.data)
        jobs = []
        for sparsity in (0.5, 0.9):
            job = self.daemon.submit({"model": "llama", "method": "magnitude", "sparsity": sparsity,
                                      "evaluation": {"tasks": [{"name": "mine", "path": "choices.jsonl", "format": "choices"}]}})
            self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
            jobs.append(job)
        score = self.daemon.job(jobs[0])["result"]["tasks"]["mine"]
        text = {model: f"{100 * score[model]['acc']:.1f} % ± {100 * score[model]['acc_stderr']:.1f} %" for model in score}
        self.assertRegex(self.says("show", jobs[0]), f"mine acc +dense {text['dense']}, pruned {text['pruned']}\n")
        compared = self.says("compare", *jobs)
        self.assertRegex(compared, f"mine acc dense +{text['dense']} +{text['dense']}\n")
        self.assertRegex(compared, f"mine acc pruned +{text['pruned']} ")
        self.assertRegex(compared, r"mine acc_norm pruned +\d")

    def test_events_as_json(self):
        out = self.says("submit", "--watch", "--json", self.job_file())
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(sum(e.get("type") == "block.finished" for e in events), BLOCKS)

    def test_estimate(self):
        spec = self.job_file(method="wanda")
        out = self.says("submit", "--estimate", spec)
        for line in (r"device memory +[\d.]+ .B of [\d.]+ .B$", r"process memory +[\d.]+ .B of", r"output +[\d.]+ .B of", r"checkpoint +[\d.]+ .B of",
                     r"total time +not known"):
            self.assertRegex(out, re.compile("^" + line, re.M))
        answer = json.loads(self.says("submit", "--estimate", "--json", spec))
        self.assertIs(answer["memory"]["process"]["fits"], True)
        self.assertEqual(json.loads(self.says("list", "--json"))["jobs"], [])
        self.says("submit", "--wait", spec)
        self.assertRegex(self.says("submit", "--estimate", spec), r"pruning time +\S+ .*by 12 blocks of 1 such job\n")
        self.says("submit", "--estimate", "--watch", spec, status=USAGE)
        self.says("submit", "--estimate", self.job_file(sparsity=2), status=REFUSED)

    def test_idempotency_key(self):
        write_model(os.path.join(self.daemon.models, "other"), 64, 160, 4, 2, 1, vocab=300)
        jobs = {self.says("submit", "-k", "nightly-{date}", self.job_file()).strip() for _ in range(2)}
        self.assertEqual(len(jobs), 1)
        self.says("submit", "-k", "nightly-{date}", self.job_file(model="other"), status=REFUSED)

    def test_token(self):
        path = os.path.join(self.daemon.directory, "token")
        with open(path, "w") as file:
            file.write("an-example-token-long-enough\n")
        os.chmod(path, 0o600)
        self.daemon.stop()
        self.daemon.token = "an-example-token-long-enough"
        self.daemon.start("--token-file", path)
        self.says("list", status=REFUSED)
        self.says("list", "--token-file", path)


if __name__ == "__main__":
    unittest.main()
