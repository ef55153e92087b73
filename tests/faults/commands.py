"""What besad's commands besides `serve` and `run` are given in the laboratory, and what is to come of each."""
import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "api"))

from support import BESAD, Daemon, wait_for, write_calibration, write_model  # noqa: E402

THREADS = os.environ.get("OMP_NUM_THREADS", "1")
HANG = 60  # seconds after which what should have ended is taken to hang

# name: (arguments, exit status). {out} is what it makes.
COMMANDS = {
    "backup": (["backup", "--state-dir", "{state}", "{out}"], 0),
    "check": (["check", "--json", "--state-dir", "{state}"], 0),
    "check-backup": (["check", "{backup}"], 0),
    "check-damaged": (["check", "--json", "{damaged}"], 1),
    "restore": (["restore", "--state-dir", "{out}", "{backup}"], 0),
    "pack": (["pack", "--threads", THREADS, "{model}", "{out}"], 0),
    "pack-coded": (["pack", "--coded", "--threads", THREADS, "{model}", "{out}"], 0),
    "unpack": (["unpack", "--threads", THREADS, "{archive}", "{out}"], 0),
    "verify": (["verify", "--threads", THREADS, "{archive}"], 0),
    "export": (["export", "--type", "q8_0", "{model}", "{out}"], 0),
    "generate": (["generate", "--threads", THREADS, "--prompt", "The river", "--max-tokens", "2", "{model}"], 0),
    "bench": (["bench", "--simulate", "--json", "{model}"], 0),
    "schema": (["schema"], 0),
}


def make_model(directory):
    """One that has a tokenizer, and is small, called `words`."""
    path, saved = os.path.join(directory, "words"), os.path.join(ROOT, "tests", "data", "saved")
    shutil.copytree(os.path.join(saved, "llama"), path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(saved, name), path)
    return path


def different(left, wanted):
    """Where two outcomes differ."""
    files = sorted(name for name in {**left[2], **wanted[2]} if left[2].get(name) != wanted[2].get(name))
    at = next((i for i, (a, b) in enumerate(zip(left[1], wanted[1])) if a != b), min(len(left[1]), len(wanted[1])))
    text = f"{left[1][at:at + 80]!r} for {wanted[1][at:at + 80]!r}" if left[1] != wanted[1] else ""
    return f"status {left[0]} for {wanted[0]}; {text}; of files {files}"


class Place:
    """Directories that the commands read, and one that they write to."""

    def __init__(self):
        self.daemon = Daemon("--threads", THREADS, "--checkpoint-every", "0")
        self.base = self.daemon.directory
        names = {name: os.path.join(self.base, name) for name in ("backup", "damaged", "archive")}
        # Its own directory, so that it is seen what is left beside what is made.
        self.made = os.path.join(self.base, "made")
        self.paths = {"state": self.daemon.state, "model": make_model(self.daemon.models), "out": os.path.join(self.made, "out"), **names}
        self.make_state()
        for name, command in (("backup", ["backup", "--state-dir", self.daemon.state]), ("archive", ["pack", self.paths["model"]])):
            subprocess.run([BESAD, *command, self.paths[name]], check=True, capture_output=True, timeout=HANG)
        shutil.copytree(self.paths["backup"], self.paths["damaged"])
        self.damage()

    def make_state(self):
        """With a job that is over, and one that is paused and has a checkpoint."""
        daemon = self.daemon
        write_model(os.path.join(daemon.models, "small"), 32, 48, 4, 2, 40, vocab=300, scale=0.1)
        write_calibration(os.path.join(daemon.data, "tokens.safetensors"), 4, 32, vocab=300)
        spec = {"model": "small", "sparsity": 0.5, "progress": {"perplexity_every": 0}}
        daemon.start()
        daemon.finish(daemon.submit({**spec, "output": "done", "method": "magnitude"}))
        calibration = {"path": "tokens.safetensors", "samples": 4, "sequence_length": 32}
        job = daemon.submit({**spec, "output": "paused", "method": "besa", "calibration": calibration})
        wait_for("a block", lambda: any(e["type"] == "block.finished" for e in daemon.events(job)))
        assert daemon.request("POST", f"/v1/jobs/{job}/pause").status == 200
        wait_for("its pause", lambda: daemon.job(job)["state"] == "paused")
        assert daemon.stop() == 0

    def damage(self):
        """One byte of a checkpoint's hidden states."""
        for directory, _, files in os.walk(self.paths["damaged"]):
            for name in files:
                if name.startswith("hidden-"):
                    with open(os.path.join(directory, name), "r+b") as file:
                        file.seek(-1, os.SEEK_END)
                        byte = file.read(1)
                        file.seek(-1, os.SEEK_END)
                        file.write(bytes([byte[0] ^ 1]))

    def clear(self):
        shutil.rmtree(self.made, ignore_errors=True)
        os.mkdir(self.made)

    def run(self, name, environment=None):
        arguments = [argument.format(**self.paths) for argument in COMMANDS[name][0]]
        return subprocess.run([BESAD, *arguments], capture_output=True, timeout=HANG, env={**os.environ, **(environment or {})})

    def outcome(self, done):
        """Status, what it said, and the files that it made, but for one that has the time in it."""
        made = {}
        for directory, _, names in os.walk(self.made):
            for name in names:
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    made[os.path.relpath(path, self.made)] = hashlib.sha256(file.read()).hexdigest()
        made.pop("out/manifest.json", None)
        return done.returncode, done.stdout, made

    def begun(self):
        """Whether there is something that may be taken for what was to be made; a state directory without a database may not."""
        out = self.paths["out"]
        return os.path.exists(out) and (not os.path.isdir(out) or any(n not in ("lock", "jobs", "restore.besad-part") for n in os.listdir(out)))

    def wrong(self, name, done, wanted, again):
        """What is wrong with a run that met a fault, None where nothing is; `again` runs it once more without."""
        left, said = self.outcome(done), done.stderr[-300:]
        if left == wanted:
            return None
        if done.returncode == 0:
            return f"another outcome: {different(left, wanted)}; {said!r}"
        if done.returncode not in (1, 2):
            return f"status {done.returncode}: {said!r}"
        if not said.strip() and not done.stdout.strip():
            return "nothing is said of it"
        if wanted[0]:
            return None
        if self.begun():  # whole, where it is not known whether that is on the disk
            return None if left[2] == wanted[2] else f"it failed, and is begun: {different(left, wanted)}; {said!r}"
        more = again()
        if self.outcome(more) != wanted:
            return f"not gone on with: {said!r} then {more.returncode} {more.stderr[-300:]!r}"
        return None

    def remove(self):
        self.daemon.remove()
