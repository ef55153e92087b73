#!/usr/bin/env python3
"""The command line: `besad run` in a pipe and on a terminal, killed and run again; and start-ups that are refused."""
import hashlib
import json
import os
import pty
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest

from support import BESAD, PATIENCE, ROOT, Daemon, digests, small_job, small_model, wait_for, write_calibration

BLOCKS = int(os.environ.get("BLOCKS", "20"))
DATA = os.path.join(ROOT, "tests", "data")
OPTIONS = ["--threads", os.environ.get("OMP_NUM_THREADS", "2")]


class Run(unittest.TestCase):
    def setUp(self):
        self.place = Daemon()  # for its directories; it is not started
        self.addCleanup(self.place.remove)
        small_model(self.place, BLOCKS)

    def command(self, name="job", *options, **spec):
        path = os.path.join(self.place.directory, name + ".json")
        with open(path, "w") as file:
            json.dump(small_job(output=name, **spec), file)
        return [BESAD, "run", *OPTIONS, "--model-root", self.place.models, "--data-root", self.place.data, "--output-root",
                self.place.output, *options, path]

    def run_job(self, *arguments, **spec):
        return subprocess.run(self.command(*arguments, **spec), capture_output=True, text=True, timeout=PATIENCE)

    def interrupted(self, command, interrupt):
        """Runs it and calls interrupt(process) when its first block is done; its exit status, and what it says from then on."""
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            for line in process.stderr:
                if line.startswith("block "):
                    interrupt(process)
                    break
            said = process.stderr.read()
        return process.returncode, said

    def test_pipe(self):
        done = self.run_job("piped", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["output"], "piped")
        self.assertNotIn("\r", done.stderr)
        self.assertEqual(sum(line.startswith("block ") for line in done.stderr.splitlines()), BLOCKS)
        self.assertEqual(os.listdir(self.place.output), ["piped"])

    def test_scores_of_the_dense_model_are_kept(self):
        """The second of two jobs is told another number, which was put there, and so did not find it itself."""
        scores = os.path.join(self.place.directory, "scores")
        evaluation = {"perplexity": [{"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]}
        self.assertEqual(self.run_job("first", "--scores-dir", scores, method="magnitude", evaluation=evaluation).returncode, 0)
        [key] = os.listdir(scores)
        with open(os.path.join(scores, key), "w") as file:
            file.write(f"123.5 {hashlib.sha256(f'{key} 123.5'.encode()).hexdigest()}\n")
        done = self.run_job("second", "--json", "--scores-dir", scores, method="magnitude", evaluation=evaluation)
        self.assertEqual(json.loads(done.stdout)["perplexity"]["tokens"]["dense"], 123.5)
        done = self.run_job("third", "--json", method="magnitude", evaluation=evaluation)
        self.assertNotEqual(json.loads(done.stdout)["perplexity"]["tokens"]["dense"], 123.5)

    def test_no_loss_without_a_calibration(self):
        done = self.run_job("plain", method="magnitude", calibration=None)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("block 1 of", done.stderr)
        self.assertNotIn("loss", done.stderr)

    def test_terminal(self):
        master, slave = pty.openpty()
        process = subprocess.Popen(self.command("shown"), stdout=slave, stderr=slave)
        os.close(slave)
        text = b""
        try:
            while piece := os.read(master, 65536):
                text += piece
        except OSError:
            pass  # Linux's end of file on a terminal
        os.close(master)
        self.assertEqual(process.wait(), 0, text[-500:])
        self.assertIn(b"\r\x1b[K[", text)
        self.assertIn(b"#", text)

    def test_killed_and_run_again(self):
        self.assertEqual(self.run_job("plain").returncode, 0)
        rng, kills = random.Random(2), 0
        directory = os.path.join(self.place.directory, "checkpoint")
        command = self.command("crashed", "--checkpoint-dir", directory)
        while kills < 8:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.05, 1.2))
            process.kill()
            process.wait()
            kills += 1
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(digests(os.path.join(self.place.output, "crashed")), digests(os.path.join(self.place.output, "plain")))
        with open(os.path.join(directory, "events.jsonl")) as file:
            events = [json.loads(line) for line in file]
        self.assertEqual([e["id"] for e in events], list(range(1, len(events) + 1)))
        self.assertEqual([e["data"]["block"] for e in events if e["type"] == "block.finished"], list(range(BLOCKS)))
        attempt = 0
        for event in events:  # those that may come again say of which attempt they are, as the daemon's do
            attempt += event["type"] == "job.started"
            if event["type"] in ("block.started", "block.step"):
                self.assertEqual(event["data"]["attempt"], attempt)
        again = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((again.returncode, json.loads(again.stdout)["output"]), (0, "crashed"))

    def test_killed_while_it_cleans_up(self):
        """Whatever of its directory is gone, a job that has made its output is done."""
        directory, output = (os.path.join(self.place.output, name) for name in (".besad-run-done", "done"))
        kept = os.path.join(self.place.directory, "kept")
        self.assertEqual(self.run_job("done", "--checkpoint-dir", directory).returncode, 0)
        os.rename(directory, kept)
        made = digests(output)
        for gone in ((), ("checkpoint/done/savepoint.json",), ("checkpoint",), ("events.jsonl",), ("checkpoint", "events.jsonl"),
                     ("checkpoint", "events.jsonl", "job.json"), ("checkpoint", "events.jsonl", "job.json", "lock")):
            with self.subTest(gone):
                shutil.rmtree(directory, ignore_errors=True)
                shutil.copytree(kept, directory)
                for path in gone:
                    path = os.path.join(directory, path)
                    shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
                done = self.run_job("done", "--json")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn("block ", done.stderr)
                with open(os.path.join(output, "besad.json")) as file:
                    self.assertEqual(json.loads(done.stdout), json.load(file)["result"])
                self.assertEqual((os.listdir(self.place.output), digests(output)), (["done"], made))

    def test_done_and_run_again(self):
        """The same job is done; another one, or of other data, does not begin what it could not publish."""
        self.assertEqual(self.run_job("done").returncode, 0)
        tokens = os.path.join(self.place.data, "tokens.safetensors")
        for because, spec in (("", {}), ("", {"sparsity": 0.4}), ("tokens.safetensors' was written to", {})):
            with self.subTest(because=because, spec=spec):
                if because:
                    os.utime(tokens)
                again = self.run_job("done", **spec)
                self.assertNotIn("block ", again.stderr)
                if because or spec:
                    self.assertEqual(again.returncode, 1)
                    self.assertIn("the output 'done' exists", again.stderr)
                    self.assertIn(because, again.stderr)
                    shutil.rmtree(os.path.join(self.place.output, ".besad-run-done"))
                else:
                    self.assertEqual(again.returncode, 0, again.stderr)
                self.assertEqual(os.listdir(self.place.output), ["done"])
        done = self.run_job("done", overwrite=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sum(line.startswith("block ") for line in done.stderr.splitlines()), BLOCKS)

    def test_evaluations_are_told_once(self):
        """A job whose end fails, because something has come to lie in the output's place, evaluates again when it is run again."""
        shutil.copytree(os.path.join(DATA, "tiny-qwen"), os.path.join(self.place.models, "tiny"))
        shutil.copy(os.path.join(DATA, "tiny-qwen.calibration.safetensors"), os.path.join(self.place.data, "tiny.safetensors"))
        shutil.copy(os.path.join(DATA, "tasks", "boolq.jsonl"), self.place.data)
        directory = os.path.join(self.place.directory, "checkpoint")
        command = self.command("twice", "--checkpoint-dir", directory, model="tiny",
                               calibration={"path": "tiny.safetensors", "samples": 32, "sequence_length": 256},
                               evaluation={"perplexity": [{"path": "tiny.safetensors", "sequence_length": 256}],
                                           "tasks": [{"path": "boolq.jsonl", "format": "boolq"}]})
        status, said = self.interrupted(command, lambda _: os.mkdir(os.path.join(self.place.output, "twice")))
        self.assertIn("twice", said)
        self.assertEqual(status, 1)
        os.rmdir(os.path.join(self.place.output, "twice"))
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count("perplexity"), 0)  # it shows what is new
        with open(os.path.join(directory, "events.jsonl")) as file:
            events = [json.loads(line) for line in file]
        self.assertEqual([e["data"]["attempt"] for e in events if e["type"] == "job.started"], [1, 2])
        for kind in ("eval.finished", "task.finished"):
            self.assertEqual([e["data"]["model"] for e in events if e["type"] == kind], ["dense", "pruned"])

    def test_probed_after_a_stop(self):
        """Where the evaluation data is too short to be probed the calibration is, and is again when the job goes on."""
        write_calibration(os.path.join(self.place.data, "short.safetensors"), 1, 32, vocab=300)
        directory = os.path.join(self.place.directory, "checkpoint")
        command = self.command("probed", "--checkpoint-dir", directory, progress={"perplexity_every": 1},
                               evaluation={"perplexity": [{"path": "short.safetensors", "sequence_length": 32}]})
        self.assertEqual(self.interrupted(command, lambda p: p.send_signal(signal.SIGTERM))[0], 128 + signal.SIGTERM)
        self.assertEqual(subprocess.run(command, capture_output=True, timeout=PATIENCE).returncode, 0)
        with open(os.path.join(self.place.output, "probed", "besad.json")) as file:
            blocks = json.load(file)["blocks"]
        self.assertNotIn(None, [block["perplexity"] for block in blocks])

    def test_yesterdays_output_is_not_todays(self):
        """A run whose end fails goes on with its own blocks, although the output that lies there has its name and its spec."""
        report = os.path.join(self.place.output, "nightly", "besad.json")
        command = self.command("nightly", overwrite=True)
        self.assertEqual(subprocess.run(command, capture_output=True, timeout=PATIENCE).returncode, 0)
        with open(report) as file:
            yesterday = json.load(file)

        def put_another_there(_):
            os.rename(os.path.dirname(report), os.path.dirname(report) + ".kept")
            os.mkdir(os.path.dirname(report))  # not besad's: it is not replaced

        self.assertEqual(self.interrupted(command, put_another_there)[0], 1)
        os.rmdir(os.path.dirname(report))
        os.rename(os.path.dirname(report) + ".kept", os.path.dirname(report))
        self.assertEqual(subprocess.run(command, capture_output=True, timeout=PATIENCE).returncode, 0)
        with open(report) as file:
            today = json.load(file)
        seconds = [[block["seconds"] for block in r["blocks"]] for r in (yesterday, today)]
        self.assertNotEqual(*seconds)
        self.assertIsNotNone(today["result"]["replaced"])

    def test_signal_and_another_spec(self):
        command = self.command("stopped")
        self.assertEqual(self.interrupted(command, lambda p: p.send_signal(signal.SIGINT))[0], 128 + signal.SIGINT)
        other = self.run_job("stopped", sparsity=0.4)
        self.assertEqual(other.returncode, 1)
        self.assertIn("another spec", other.stderr)
        self.assertIn("/sparsity was 0.5 and is now 0.4", other.stderr)
        # What is noted of a job is no other work.
        self.assertEqual(self.run_job("stopped", metadata={"by": "hand"}).returncode, 0)
        with open(os.path.join(self.place.output, "stopped", "besad.json")) as file:
            self.assertEqual(json.load(file)["spec"]["metadata"], {"by": "hand"})

    def test_two_at_once_and_out_of_time(self):
        command = self.command("slow", "--json", besa={"epochs": 10}, timeout_seconds=3600)

        def second(first):
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("another besad works on this job", done.stderr)
            first.send_signal(signal.SIGINT)
        self.assertEqual(self.interrupted(command, second)[0], 128 + signal.SIGINT)
        late = self.run_job("late", besa={"epochs": 100}, timeout_seconds=0.05)
        self.assertEqual(late.returncode, 1)
        self.assertIn("longer than its timeout_seconds", late.stderr)

    def test_wrong_jobs(self):
        wrong = self.run_job("wrong", sparsity=1.2)
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("/sparsity", wrong.stderr)
        self.assertEqual(subprocess.run([BESAD, "run", "nothing.json"], capture_output=True).returncode, 2)
        self.assertEqual(subprocess.run([BESAD, "run"], capture_output=True).returncode, 2)


class Manual(unittest.TestCase):
    def test_every_option_is_in_the_manual(self):
        besactl = os.path.join(os.path.dirname(BESAD), "besactl")
        for program, page in ((BESAD, "besad.8"), (besactl, "besactl.1")):
            text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
            with open(os.path.join(ROOT, "man", page)) as file:
                manual = file.read()
            written = set(re.findall(r"(?<=[, ])-([a-z][a-z-]+)", "\n".join(re.findall(r"^(?:\.It )?\.?Fl .*", manual, re.M))))
            self.assertEqual(set(re.findall(r"--([a-z][a-z-]+)", text)), written, page)


class Monitoring(unittest.TestCase):
    def test_what_grafana_asks_for_is_there(self):
        with open(os.path.join(ROOT, "api", "metrics.c")) as file:
            known = set(re.findall(r'"((?:besad|process)_[a-z_]+)"', file.read()))
        for name in ("besad.json", "alerts.yaml"):
            with open(os.path.join(ROOT, "docs", "grafana", name)) as file:
                asked = set(re.findall(r"(?:besad|process)_[a-z_]+", file.read()))
            self.assertTrue(asked)
            self.assertEqual({re.sub("_bucket$", "", metric) for metric in asked} - known, set(), name)
        with open(os.path.join(ROOT, "docs", "grafana", "besad.json")) as file:
            self.assertTrue(json.load(file)["panels"])


class Start(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.remove)

    def refused(self, *options, status=1):
        d = self.daemon
        done = subprocess.run([BESAD, "--model-root", d.models, "--output-root", d.output, "--state-dir", d.state, *options],
                              capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stderr

    def test_an_open_address_needs_a_token(self):
        self.assertIn("--token-file", self.refused("--listen", "0.0.0.0:0"))
        path = os.path.join(self.daemon.directory, "token")
        with open(path, "w") as file:
            file.write("short\n")
        os.chmod(path, 0o600)
        self.assertIn("token", self.refused("--listen", "0.0.0.0:0", "--token-file", path, status=2))

    def test_one_daemon_per_state_directory(self):
        self.daemon.start()
        self.assertIn("another besad", self.refused("--listen", "127.0.0.1:0"))

    def test_options(self):
        """What is refused, and why; and what is taken. Each in front of --help, by which nothing is begun."""
        plain = os.path.join(self.daemon.directory, "plain")
        with open(plain, "w") as file:
            file.write("has spaces, so that it is no token\n")
        refused = {
            ("--what",): "unknown option --what", ("--threads",): "needs a value",
            ("--threads", "many"): "must be a number from", ("--threads", "0"): "must be a number from", ("--threads", "4x"): "must be a number from",
            ("--threads", "99999999999999999999"): "must be a number from", ("--queue-limit", ""): "must be a number from",
            ("--device-memory", "20X"): "must be a size in bytes", ("--min-free", "some"): "must be a size in bytes",
            ("--min-free", "16777215T"): "is too large", ("--max-state-bytes", "16777215T"): "is too large",
            **{("--keep-failed", wrong): "must be a time" for wrong in ("soon", "-1", "5y", "5mm", "m", "99999999999999999999", "999999999999d")},
            ("--retry-after", "31d"): "must be at most 30d", ("--retry-after", "later"): "must be a time",
            ("--backend", "abacus"): "must be auto, cpu or cuda", ("--model-root", "/nowhere"): "/nowhere", ("--data-root", plain): "not a directory",
            ("--output-root", plain): "not a directory", ("--state-dir", plain + "/below"): plain, ("--token-file", "/nowhere"): "/nowhere",
            ("--limits-file", "/nowhere"): "/nowhere", ("--on-finish", "/nowhere"): "/nowhere", ("--on-finish", plain): plain,
            ("--notify-key-file", plain): "printable characters", ("--notify-key-file", "/nowhere"): "/nowhere",
            ("--calibration", "/nowhere"): "/nowhere", ("--listen", "127.0.0.1:0") * 5: "more than 4 addresses",
            ("--notify-host", "h") * 17: "more than 16 hosts", ("--tls-cert", plain): "need each other",
        }
        for options, why in refused.items():
            with self.subTest(options):
                done = subprocess.run([BESAD, *options, *(["--help"] if why not in ("needs a value", "need each other") else [])],
                                      capture_output=True, text=True, timeout=PATIENCE)
                if why == "need each other":
                    self.assertIn(why, self.refused(*options, status=2))
                else:
                    self.assertEqual(done.returncode, 2, done.stdout)
                    self.assertIn(why, done.stderr)
        os.chmod(plain, 0o700)
        for options in (("--threads", "1"), ("--device-memory", "20G"), ("--keep-failed", "90"), ("--keep-failed", "90s"), ("--keep-failed", "7d"),
                        ("--retry-after", "30d"), ("--min-free", "8388607T"), ("--on-finish", plain), ("--backend", "cpu"), ("--version",)):
            with self.subTest(options):
                self.assertEqual(subprocess.run([BESAD, *options, "--help"], capture_output=True, timeout=PATIENCE).returncode, 0)

    def test_operands(self):
        for arguments, why in (
                (("more",), "what is 'more'?"), (("serve", "more"), "what is 'more'?"), (("pack", "a"), "pack needs the archive's directory"),
                (("export", "a", "b", "c"), "what is 'c'?"), (("export", "--type", "q9", "a", "b"), "--type must be"),
                (("generate", "--precision", "f16", "a"), "--precision must be"), (("generate", "--dense", "--sparse", "a"), "exclude each other"),
                (("generate", "--sparse", "--precision", "f32", "a"), "needs --precision bf16"), (("generate", "--top-p", "2", "a"), "from"),
                (("generate", "--temperature", "hot", "a"), "must be a number"), (("generate", "--top-p", "nan", "a"), "must be a number"),
                (("serve", "--output-root", self.daemon.output, "--state-dir", self.daemon.state), "--model-root is needed"),
                (("serve", "--model-root", self.daemon.models, "--state-dir", self.daemon.state), "--output-root is needed")):
            with self.subTest(arguments):
                done = subprocess.run([BESAD, *arguments], capture_output=True, text=True, timeout=PATIENCE)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(why, done.stderr)
        self.assertEqual(subprocess.run([BESAD, "generate", "--dense", "--dense", "--help"], capture_output=True).returncode, 0)

    def test_where_the_state_is(self):
        """Without --state-dir: what systemd says, the first of several; else $XDG_STATE_HOME; else ~; and nowhere where there is neither."""
        base = self.daemon.directory

        def look(**environment):
            """Where a check looks for a database."""
            known = {name: value for name, value in os.environ.items() if name not in ("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME")}
            return subprocess.run([BESAD, "check"], capture_output=True, text=True, env={**known, **environment}, timeout=PATIENCE)
        for place, environment in (
                ("one", {"STATE_DIRECTORY": f"{base}/one:{base}/two", "XDG_STATE_HOME": f"{base}/xdg", "HOME": f"{base}/home"}),
                ("xdg/besad", {"STATE_DIRECTORY": "", "XDG_STATE_HOME": f"{base}/xdg", "HOME": f"{base}/home"}),
                ("home/.local/state/besad", {"XDG_STATE_HOME": "relative", "HOME": f"{base}/home"})):
            done = look(**environment)
            self.assertIn(f"{base}/{place}", done.stderr)  # which is not there yet
            self.assertEqual(done.returncode, 2, done.stderr)
            os.makedirs(os.path.join(base, place))
            done = look(**environment)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(f"{os.path.realpath(base)}/{place} has no besad.db", done.stderr)
        for environment in ({}, {"HOME": "relative"}, {"HOME": ""}):
            done = look(**environment)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("--state-dir is needed", done.stderr)

    def test_addresses_that_cannot_be_listened_on(self):
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        plain = os.path.join(self.daemon.directory, "plain.new")  # a socket has this end to its name until it listens
        with open(plain, "w"):
            pass
        for address, why in ((f"127.0.0.1:{taken.getsockname()[1]}", "Address already in use"), ("nowhere", "must be HOST:PORT"),
                             ("127.0.0.1:", "must be HOST:PORT"), (":80", "must be HOST:PORT"), ("[::1:80", "must be HOST:PORT"),
                             ("::1:80", "must be HOST:PORT"), ("x" * 300 + ":80", "must be HOST:PORT"), ("127.0.0.1:port", "--listen 127.0.0.1:port"),
                             ("192.0.2.1:0", "Cannot assign requested address"), ("unix:relative", "unix:"), ("unix:/" + "x" * 200, "unix:"),
                             ("[::]:0", "needs --token-file"), ("unix:/nowhere/socket", "No such file"), (f"unix:{plain}/socket", "Not a directory"),
                             (f"unix:{plain}", "what is there is no socket"), (f"unix:{plain[:-4]}", "what is there is no socket")):
            with self.subTest(address):
                self.assertIn(why, self.refused("--listen", address))

    def test_sockets_that_cannot_be_passed_on(self):
        d = self.daemon
        command = [BESAD, "--model-root", d.models, "--output-root", d.output, "--state-dir", d.state]

        def start(count, descriptor):
            """As systemd does, with that descriptor as the first."""
            def adopt():
                os.dup2(descriptor, 3)
                os.set_inheritable(3, True)
                os.environ.update(LISTEN_FDS=count, LISTEN_PID=str(os.getpid()))
            pid = os.fork()
            if pid == 0:
                adopt()
                os.dup2(said.fileno(), 2)
                os.execv(BESAD, command)
            return os.waitpid(pid, 0)[1]
        for count, make, why in (("1", lambda: socket.socket(socket.AF_INET), "is no listening"), ("99", lambda: socket.create_server(("", 0)), "can be passed on"),
                                 ("-1", lambda: socket.create_server(("", 0)), "can be passed on"), ("1", lambda: open(os.devnull), "descriptor 3"),
                                 ("1", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "descriptor 3")):
            with self.subTest(count=count, why=why), make() as given, open(os.path.join(d.directory, "said"), "w+") as said:
                self.assertEqual(start(count, given.fileno()), 1 << 8)
                said.seek(0)
                self.assertIn(why, said.read())

    def test_what_cannot_be_told(self):
        """Standard output is full: no command says by its status that it has told what was asked."""
        self.daemon.start()
        self.daemon.stop()
        full = open("/dev/full", "w")
        self.addCleanup(full.close)
        backup = os.path.join(self.daemon.directory, "backup")
        for arguments in (("--help",), ("--version",), ("schema",), ("check", "--state-dir", self.daemon.state),
                          ("check", "--json", "--state-dir", self.daemon.state), ("backup", "--state-dir", self.daemon.state, backup)):
            with self.subTest(arguments):
                done = subprocess.run([BESAD, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
                self.assertEqual(done.returncode, 1)
                self.assertTrue(done.stderr)

    def test_a_foreign_database(self):
        os.makedirs(self.daemon.state)
        with open(os.path.join(self.daemon.state, "besad.db"), "wb") as file:
            file.write(b"this is not a database, and long enough to be one" * 100)
        self.assertIn("database", self.refused("--listen", "127.0.0.1:0"))
        shutil.rmtree(self.daemon.state)

    def test_token_is_read_again(self):
        path = os.path.join(self.daemon.directory, "token")

        def write(text):
            with open(path, "w") as file:
                file.write(text + "\n")
            os.chmod(path, 0o600)
        write("the-first-of-two-tokens")
        self.daemon.token = "the-first-of-two-tokens"
        self.daemon.start("--token-file", path)
        self.assertEqual(self.daemon.get("/v1/info").status, 200)
        write("short")
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_for("the complaint", lambda: "the tokens stay as they are" in self.daemon.log())
        self.assertEqual(self.daemon.get("/v1/info").status, 200)
        write("the-second-of-two-tokens")
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_for("the new token", lambda: self.daemon.get("/v1/info", Authorization="Bearer the-second-of-two-tokens").status == 200)
        self.assertEqual(self.daemon.get("/v1/info").status, 401)

    def test_limits_are_read_again(self):
        path = os.path.join(self.daemon.directory, "limits.json")

        def write(text):
            with open(path, "w") as file:
                file.write(text)
        write('{"queue": 2}')
        self.daemon.start("--queue-limit", "7", "--limits-file", path)
        self.assertEqual(self.daemon.get("/v1/info").json["limits"]["queue"], 2)
        for wrong in ('{"queue": 0}', '{"queues": 1}', "[]", ""):
            write(wrong)
            complaints = self.daemon.log().count("the limits stay as they are")
            self.daemon.process.send_signal(signal.SIGHUP)
            wait_for("the complaint", lambda n=complaints: self.daemon.log().count("the limits stay as they are") > n)
            self.assertEqual(self.daemon.get("/v1/info").json["limits"]["queue"], 2)
        write('{"queue": 5}')
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_for("the new limit", lambda: self.daemon.get("/v1/info").json["limits"]["queue"] == 5)
        self.daemon.stop()
        write('{"queue": "many"}')
        self.assertIn("queue", self.refused("--listen", "127.0.0.1:0", "--limits-file", path, status=2))

    def test_started_by_systemd(self):
        """A socket that was passed on, a notification when it is ready, and a watchdog that is fed."""
        with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            address = os.path.join(self.daemon.directory, "notify")
            manager.bind(address)
            manager.settimeout(PATIENCE)
            d = self.daemon

            def adopt():
                os.dup2(listening.fileno(), 3)  # SD_LISTEN_FDS_START
                os.set_inheritable(3, True)
                os.environ["LISTEN_PID"] = str(os.getpid())
                os.environ.pop("OMP_WAIT_POLICY", None)  # so that it starts itself once more, as it does where nobody sets this
            command = [BESAD, "--model-root", d.models, "--output-root", d.output, "--state-dir", d.state, "--listen", "127.0.0.1:1"]
            pid = os.fork()
            if pid == 0:
                adopt()
                os.environ.update(LISTEN_FDS="1", NOTIFY_SOCKET=address)
                os.execv(BESAD, command)
            try:
                self.assertEqual(manager.recv(100), b"READY=1")
                d.port = listening.getsockname()[1]
                self.assertEqual(d.get("/healthz").status, 200)
                self.assertEqual([manager.recv(100) for _ in range(2)], [b"WATCHDOG=1"] * 2)
            finally:
                os.kill(pid, signal.SIGTERM)
                _, status = os.waitpid(pid, 0)
            self.assertEqual(status, 0)
            self.assertIn(b"STOPPING=1", iter(lambda: manager.recv(100), None))

    def test_how_systemd_is_told(self):
        """By a path, or a name that is in no directory; and nobody is told by what is no such name."""
        directory = os.path.join(self.daemon.directory, "notify")
        for name, address in (("/" + directory.lstrip("/"), directory), ("@besad-" + self.daemon.directory, "\0besad-" + self.daemon.directory)):
            with self.subTest(name), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.bind(address)
                manager.settimeout(PATIENCE)
                self.daemon.start(environment={"NOTIFY_SOCKET": name})
                self.assertEqual(manager.recv(100), b"READY=1")
                self.daemon.process.send_signal(signal.SIGHUP)
                self.assertIn(b"RELOADING=1", iter(lambda: manager.recv(100), None))
                self.assertEqual(self.daemon.stop(), 0)
                self.assertIn(b"STOPPING=1", iter(lambda: manager.recv(100), None))
        for name in ("relative", "/" + "x" * 200, "/nowhere/there"):
            with self.subTest(name):
                self.daemon.start(environment={"NOTIFY_SOCKET": name})
                self.assertEqual(self.daemon.stop(), 0)

    def test_ipv6(self):
        token = os.path.join(self.daemon.directory, "token")
        with open(token, "w") as file:
            file.write("the-only-token-there-is\n")
        os.chmod(token, 0o600)
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
        self.daemon.options = ("--listen", f"[::1]:{port}", "--token-file", token)
        self.daemon.token = "the-only-token-there-is"
        self.daemon.start()

        def ask(token):
            with socket.create_connection(("::1", port), timeout=PATIENCE) as connection:
                connection.sendall(f"GET /v1/info HTTP/1.1\r\nHost: [::1]:{port}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode())
                return int(connection.makefile("rb").readline().split()[1])
        self.assertEqual([ask("the-only-token-there-is"), ask("another")], [200, 401])
        wait_for("the note", lambda: "refused: unauthorized, from ::1, 1 request" in self.daemon.log())

    def test_nothing_to_read_again(self):
        self.daemon.start()
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_for("the answer", lambda: "there is no file to read again" in self.daemon.log())
        self.assertEqual(self.daemon.stop(), 0)


if __name__ == "__main__":
    unittest.main()
