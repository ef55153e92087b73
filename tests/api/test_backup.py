#!/usr/bin/env python3
"""A backup of the state directory, made while besad runs; what is found wrong in one, and in a state directory; and the way back."""
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import unittest

from support import BESAD, PATIENCE, Daemon, digests, small_job, small_model, wait_for


class Backup(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "1"))
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon)
        small_model(self.daemon, 40, "long")
        self.backup = os.path.join(self.daemon.directory, "backup")

    def command(self, *arguments, status=0):
        done = subprocess.run([BESAD, *arguments], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, status, (arguments, done.stdout, done.stderr))
        return done.stderr if status else done.stdout

    def back_up(self, status=0):
        return self.command("backup", "--state-dir", self.daemon.state, self.backup, status=status)

    def check(self, directory=None, problems=()):
        """The report of a check, which finds these problems: texts that each is to have."""
        arguments = ("check", "--json", directory) if directory else ("check", "--json", "--state-dir", self.daemon.state)
        done = subprocess.run([BESAD, *arguments], capture_output=True, text=True, timeout=PATIENCE)
        report = json.loads(done.stdout)
        self.assertEqual((done.returncode, report["sound"]), (1, False) if problems else (0, True), report)
        self.assertEqual(len(report["problems"]), len(problems), report["problems"])
        for problem, text in zip(report["problems"], problems):
            self.assertIn(text, problem)
        return report

    def begun(self, output):
        """A job that has finished some blocks, and goes on."""
        job = self.daemon.submit(small_job(model="long", output=output, progress={"perplexity_every": 0}))
        wait_for("blocks", lambda: sum(e["type"] == "block.finished" for e in self.daemon.events(job)) > 2)
        return job

    def pause(self, job):
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/pause").status, 200)
        wait_for("its pause", lambda: self.daemon.job(job)["state"] == "paused")

    def lose_state(self):
        for name in os.listdir(self.daemon.state):
            path = os.path.join(self.daemon.state, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    def flip(self, path):
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))

    def test_a_running_job_goes_on_from_a_backup(self):
        daemon = self.daemon.start("--checkpoint-every", "0")
        done = daemon.submit(small_job(output="done", method="magnitude"))
        self.assertEqual(daemon.finish(done)["state"], "succeeded")
        plain = daemon.submit(small_job(model="long", output="plain", progress={"perplexity_every": 0}))
        self.assertEqual(daemon.finish(plain)["state"], "succeeded")
        job = self.begun("restored")
        self.assertRegex(self.back_up(), r": \d+ files, \d+ bytes, checkpoints of 1 jobs\n$")
        self.check()  # of what is in use
        blocks = [e["data"]["block"] for e in daemon.events(job) if e["type"] == "block.finished"]
        wait_for("more blocks", lambda: sum(e["type"] == "block.finished" for e in daemon.events(job)) > len(blocks))
        self.assertIn("exists already", self.back_up(status=1))
        self.assertIn("stop it first", self.command("restore", "--state-dir", daemon.state, self.backup, status=1))
        daemon.kill()
        report = self.check(self.backup)
        self.assertEqual((report["backup"], report["jobs"], report["checkpoints"]), (True, 3, 1))
        self.assertIn("replaces nothing", self.command("restore", "--state-dir", daemon.state, self.backup, status=1))

        self.lose_state()
        self.assertIn("files", self.command("restore", "--state-dir", daemon.state, self.backup))
        self.assertEqual(sorted(os.listdir(daemon.state)), ["besad.db", "jobs", "lock"])
        self.check()
        daemon.start()
        self.assertNotIn("did not end in order", daemon.log())
        self.assertEqual(daemon.job(done)["state"], "succeeded")
        self.assertEqual(daemon.finish(job)["state"], "succeeded")
        self.assertEqual([e["data"]["block"] for e in daemon.events(job) if e["type"] == "block.finished"], list(range(40)))
        self.assertEqual(digests(os.path.join(daemon.output, "restored")), digests(os.path.join(daemon.output, "plain")))

    def test_outputs_of_after_the_backup(self):
        """One that was published since then is taken as it is; without its unfinished output a job does not go on."""
        daemon = self.daemon.start("--checkpoint-every", "0")
        lost = self.begun("lost")
        self.pause(lost)
        published = self.begun("published")
        self.back_up()
        self.assertEqual(daemon.job(published)["state"], "running")
        self.assertEqual(daemon.finish(published)["state"], "succeeded")
        daemon.stop()
        output = os.path.join(daemon.output, "published")
        before = digests(output), os.stat(output).st_ino
        shutil.rmtree(os.path.join(daemon.output, f".besad-{lost}"))
        self.lose_state()
        self.command("restore", "--state-dir", daemon.state, self.backup)
        daemon.start()
        self.assertEqual(daemon.finish(published)["state"], "succeeded")
        self.assertEqual((digests(output), os.stat(output).st_ino), before)
        self.assertEqual(daemon.job(published)["attempt"], 2)
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{lost}/resume").status, 200)
        failed = daemon.finish(lost)
        self.assertEqual((failed["state"], failed["error"]["code"]), ("failed", "not_found"))
        self.assertIn("submit the job again", failed["error"]["message"])

    def test_what_is_damaged_is_found(self):
        daemon = self.daemon.start("--checkpoint-every", "0")
        job = self.begun("paused")
        self.pause(job)
        self.back_up()
        daemon.stop()
        names = os.listdir(os.path.join(self.backup, "jobs", job))
        [hidden] = [name for name in names if name.startswith("hidden-")]
        for name in (hidden, "savepoint.json"):
            with self.subTest(name):
                path = os.path.join("jobs", job, name)
                self.flip(os.path.join(daemon.state, path))
                self.check(problems=["is damaged: its checksum"])
                self.flip(os.path.join(daemon.state, path))
                self.flip(os.path.join(self.backup, path))
                self.check(self.backup, [f"{path}: is damaged: its SHA-256", "is damaged: its checksum"])
                self.lose_nothing_to(self.backup)
                self.flip(os.path.join(self.backup, path))
        os.rename(os.path.join(daemon.state, "jobs", job, hidden), os.path.join(daemon.directory, "hidden"))
        self.check(problems=[f"{hidden} is gone"])
        os.rename(os.path.join(daemon.directory, "hidden"), os.path.join(daemon.state, "jobs", job, hidden))
        os.rename(os.path.join(daemon.state, "jobs"), os.path.join(daemon.directory, "jobs"))
        self.check(problems=[f"job {job} has "])
        os.rename(os.path.join(daemon.directory, "jobs"), os.path.join(daemon.state, "jobs"))
        self.check()
        self.check(self.backup)
        with open(os.path.join(self.backup, "more"), "w"):
            pass
        self.check(self.backup, ["more: does not belong to the backup"])
        os.unlink(os.path.join(self.backup, "more"))

        database = os.path.join(daemon.state, "besad.db")
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("INSERT INTO notes VALUES ('nobody', 1, 0, 1, 'info', '')")
        connection.close()
        self.check(problems=["a row of notes belongs to no jobs"])
        with sqlite3.connect(database) as connection:
            connection.execute("DELETE FROM notes WHERE job_id = 'nobody'")
            connection.execute("DELETE FROM events WHERE id = 2")
        connection.close()
        self.check(problems=[f"job {job}: its events are not those up to"])

    def test_a_damaged_checkpoint_costs_its_job_alone(self):
        daemon = self.daemon.start("--checkpoint-every", "0")
        done = daemon.submit(small_job(output="done", method="magnitude"))
        self.assertEqual(daemon.finish(done)["state"], "succeeded")
        job = self.begun("paused")
        self.pause(job)
        checkpoint = os.path.join(daemon.state, "jobs", job)
        [hidden] = [name for name in os.listdir(checkpoint) if name.startswith("hidden-")]
        self.flip(os.path.join(checkpoint, hidden))
        done_so = subprocess.run([BESAD, "backup", "--state-dir", daemon.state, self.backup], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done_so.returncode, 0, done_so.stderr)
        self.assertIn("is damaged: its checksum", done_so.stderr)
        daemon.stop()
        self.check(self.backup, ["is damaged: its checksum"])
        self.lose_state()
        self.command("restore", "--state-dir", daemon.state, self.backup)
        daemon.start()
        self.assertEqual(daemon.job(done)["state"], "succeeded")
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/resume").status, 200)
        failed = daemon.finish(job)
        self.assertEqual((failed["state"], failed["error"]["code"]), ("failed", "invalid"))

    def test_what_a_check_says(self):
        """In words; and where a checkpoint is ahead of what the database has, or is not one, or the list of a backup is wrong."""
        daemon = self.daemon.start("--checkpoint-every", "0")
        job = self.begun("paused")
        self.pause(job)
        self.back_up()
        daemon.stop()
        said = self.command("check", "--state-dir", daemon.state)
        self.assertEqual(said, f"{os.path.realpath(daemon.state)}: sound; 1 job, 1 checkpoint\n")
        database = os.path.join(daemon.state, "besad.db")
        shutil.copy(database, database + "-kept")
        with sqlite3.connect(database) as connection:
            [done] = connection.execute("SELECT blocks_done FROM jobs").fetchone()
            connection.execute("DELETE FROM blocks WHERE block >= ?", (done - 2,))
            connection.execute("UPDATE jobs SET blocks_done = blocks_done - 2")
        connection.close()
        self.check(problems=[f"job {job} has {done - 2} finished blocks, and a checkpoint of {done}"])
        os.rename(database + "-kept", database)
        [hidden] = [n for n in os.listdir(os.path.join(daemon.state, "jobs", job)) if n.startswith("hidden-")]
        with open(os.path.join(daemon.state, "jobs", job, hidden), "r+b") as file:
            file.write(b"NOTBESA1")
        done = subprocess.run([BESAD, "check", "--state-dir", daemon.state], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is not a file of a checkpoint", done.stderr)
        self.assertIn(": damaged; 1 job, 1 checkpoint", done.stdout)

        path, empty = os.path.join(self.backup, "manifest.json"), os.path.join(daemon.directory, "empty")
        with open(path) as file:
            manifest = json.load(file)
        for change, why in (({"format": 2}, "written by a newer besad"), ({"format": None}, "is not the list"), ({"files": {}}, "is not the list"),
                            ({"files": [{"name": 1, "bytes": 1, "sha256": ""}]}, "is not the list"),
                            ({"files": [{"name": "a", "bytes": "1", "sha256": ""}]}, "is not the list"),
                            ({"files": [{"name": "a", "bytes": 1}]}, "is not the list"),
                            ({"files": [*manifest["files"], {"name": "../a", "bytes": 1, "sha256": ""}]}, "../a"),
                            ({"files": [{**f, "bytes": f["bytes"] + 1} for f in manifest["files"]]}, "has another size than")):
            with self.subTest(why):
                with open(path, "w") as file:
                    json.dump({**manifest, **change}, file)
                self.assertIn(why, self.command("check", self.backup, status=1))
                self.assertIn(why, self.command("restore", "--state-dir", empty, self.backup, status=1))
                self.assertEqual(os.listdir(empty), [])

    def test_a_restore_that_was_broken_off(self):
        """Behind its checkpoints and in front of its database: it is done again, and what is there of it is in nobody's way."""
        daemon = self.daemon.start("--checkpoint-every", "0")
        job = self.begun("paused")
        self.pause(job)
        self.back_up()
        daemon.stop()
        self.lose_state()
        self.command("restore", "--state-dir", daemon.state, self.backup)
        before = digests(os.path.join(daemon.state, "jobs", job))
        os.mkdir(os.path.join(daemon.state, "restore.besad-part"))
        os.rename(os.path.join(daemon.state, "besad.db"), os.path.join(daemon.state, "restore.besad-part", "besad.db"))
        self.command("restore", "--state-dir", daemon.state, self.backup)
        self.assertEqual((sorted(os.listdir(daemon.state)), digests(os.path.join(daemon.state, "jobs", job))), (["besad.db", "jobs", "lock"], before))
        self.check()

    def lose_nothing_to(self, backup):
        empty = os.path.join(self.daemon.directory, "empty")
        self.assertIn("is damaged", self.command("restore", "--state-dir", empty, backup, status=1))
        self.assertEqual(os.listdir(empty), [])

    def damage_database(self):
        """Its last page is no page any more."""
        path = os.path.join(self.daemon.state, "besad.db")
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            [size] = connection.execute("PRAGMA page_size").fetchone()
        connection.close()
        with open(path, "r+b") as file:
            file.seek(-size, os.SEEK_END)
            file.write(b"\xff" * size)
        with open(path, "rb") as file:
            return file.read()

    def test_behind_an_unclean_end_a_damaged_database_is_not_started_from(self):
        daemon = self.daemon.start()
        job = daemon.submit(small_job(output="done", method="magnitude"))
        self.assertEqual(daemon.finish(job)["state"], "succeeded")
        self.back_up()
        daemon.kill()
        bytes_then = self.damage_database()
        daemon.start(ready=False)
        self.assertEqual(daemon.process.wait(PATIENCE), 3)
        self.assertRegex(daemon.log(), r"cannot start: besad did not end in order.*restore a backup.*is damaged")
        self.assertIn("replaces nothing", self.command("restore", "--state-dir", daemon.state, self.backup, status=1))
        daemon.start(ready=False)  # and it stays so, whoever was refused meanwhile
        self.assertEqual(daemon.process.wait(PATIENCE), 3)
        with open(os.path.join(daemon.state, "besad.db"), "rb") as file:
            self.assertEqual(file.read(), bytes_then)
        report = subprocess.run([BESAD, "check", "--json", "--state-dir", daemon.state], capture_output=True, text=True,
                                timeout=PATIENCE)
        self.assertEqual((report.returncode, json.loads(report.stdout)["sound"]), (1, False))
        other = os.path.join(daemon.directory, "other")
        self.assertIn("is damaged, and not copied", self.command("backup", "--state-dir", daemon.state, other, status=1))
        self.assertFalse(os.path.exists(other))
        self.assertFalse(os.path.exists(other + ".besad-part"))

        self.lose_state()
        self.command("restore", "--state-dir", daemon.state, self.backup)
        daemon.start()
        self.assertEqual(daemon.job(job)["state"], "succeeded")

    def test_in_figures(self):
        """The same of a backup and of its restoring; slashes at the end of a name are no part of it, and one that is too long makes nothing."""
        self.daemon.start()
        self.assertEqual(self.daemon.finish(self.daemon.submit(small_job(method="magnitude")))["state"], "succeeded")
        self.daemon.stop()
        made = json.loads(self.command("backup", "--json", "--state-dir", self.daemon.state, self.backup + "//"))
        files = sum(len(files) for _, _, files in os.walk(self.backup)) - 1  # the manifest
        self.assertEqual((made["files"], made["checkpoints"]), (files, 0))
        empty = os.path.join(self.daemon.directory, "empty")
        self.assertEqual(json.loads(self.command("restore", "--json", "--state-dir", empty, self.backup)),
                         {key: made[key] for key in ("files", "bytes")})
        long = os.path.join(self.daemon.directory, "x" * 5000)
        self.assertIn("the name is too long", self.command("backup", "--state-dir", self.daemon.state, long, status=1))
        # No other file than a backup's comes to lie in a state directory.
        path = os.path.join(self.backup, "other")
        with open(path, "w") as file:
            file.write("x")
        manifest = os.path.join(self.backup, "manifest.json")
        with open(manifest) as file:
            listed = json.load(file)
        listed["files"].append({"name": "other", "bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()})
        with open(manifest, "w") as file:
            json.dump(listed, file)
        another = os.path.join(self.daemon.directory, "another")
        self.assertIn("other: is not a file of a backup", self.command("restore", "--state-dir", another, self.backup, status=1))
        self.assertNotIn("other", os.listdir(another))
        self.assertNotIn("besad.db", os.listdir(another))
        listed["format"] = "one"
        with open(manifest, "w") as file:
            json.dump(listed, file)
        self.assertIn("format", self.command("check", self.backup, status=1))

    def test_a_savepoint_that_cannot_be_read(self):
        """The rest is worth a backup all the same, which says so."""
        daemon = self.daemon.start("--checkpoint-every", "0")
        job = self.begun("paused")
        self.pause(job)
        daemon.stop()
        savepoint = os.path.join(daemon.state, "jobs", job, "savepoint.json")
        with open(savepoint, "w") as file:
            file.write("{")
        done = subprocess.run([BESAD, "backup", "--state-dir", daemon.state, self.backup], capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{job}/savepoint.json", done.stderr)
        with open(os.path.join(self.backup, "jobs", job, "savepoint.json")) as file:
            self.assertEqual(file.read(), "{")  # as damaged as it is
        self.check(self.backup, ["savepoint.json"])

    def test_what_is_not_to_be_restored(self):
        daemon = self.daemon.start()
        self.back_up()
        daemon.stop()
        with sqlite3.connect(os.path.join(self.backup, "besad.db")) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        empty = os.path.join(daemon.directory, "empty")
        self.assertIn("from a newer besad", self.command("restore", "--state-dir", empty, self.backup, status=1))
        self.assertIn("no backup", self.command("restore", "--state-dir", empty, daemon.state, status=1))
        self.assertIn("has no besad.db", self.command("check", daemon.models, status=1))
        self.assertEqual(os.listdir(empty), [])
        with open(os.path.join(daemon.state, "jobs", "x"), "w"):
            pass
        shutil.rmtree(self.backup)
        self.back_up()
        names = [name for name in os.listdir(daemon.state) if name.startswith("besad.db")]
        for name in names:
            os.unlink(os.path.join(daemon.state, name))
        for name in ("besad.db", "besad.db-wal"):  # a journal would be worked into what is restored
            with open(os.path.join(daemon.state, name), "w"):
                pass
            self.assertIn(f"{name} is there", self.command("restore", "--state-dir", daemon.state, self.backup, status=1))
            os.unlink(os.path.join(daemon.state, name))
        self.assertIn("jobs/x is there", self.command("restore", "--state-dir", daemon.state, self.backup, status=1))
        os.unlink(os.path.join(daemon.state, "jobs", "x"))
        self.command("restore", "--state-dir", daemon.state, self.backup)
        for wrong in (("backup",), ("restore",), ("check", "a", "b"), ("backup", "--state-dir", "/nowhere", "b")):
            self.command(*wrong, status=2)


if __name__ == "__main__":
    unittest.main()
