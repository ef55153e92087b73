#!/usr/bin/env python3
"""The dashboard in a real browser against a running besad: submit by the form, watch a job through a restart, cancel, compare, a wrong
token; its accessibility, and pictures of it. tests/dashboard/run.sh starts it."""
import base64
import os
import re
import shutil
import sys
import time
import unittest

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
import support  # noqa: E402
from support import PATIENCE, ROOT, Daemon, small_job, small_model  # noqa: E402
from random_models import read_safetensors, write_safetensors  # noqa: E402

AXE = os.environ.get("AXE", "")
SCREENSHOTS = os.environ.get("SCREENSHOTS")
BLOCKS = 6  # of the demo's model
TOKEN = "a-token-that-nobody-guesses"
# What Chromium itself says of requests that this test makes fail: no besad, a wrong token, a wrong spec.
EXPECTED_LOG = re.compile(r"net::ERR_CONNECTION_REFUSED|net::ERR_INCOMPLETE_CHUNKED|net::ERR_CONNECTION_RESET|net::ERR_EMPTY_RESPONSE|"
                          r"status of (401|422)|net::ERR_SOCKET_NOT_CONNECTED")


def wait_for(what, condition):
    """As support's. The page draws parts of itself anew at any time: what was found and then replaced is looked for again."""
    def fresh():
        try:
            return condition()
        except StaleElementReferenceException:
            return None
    return support.wait_for(what, fresh)


def browser(width, height, dark=False):
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", f"--window-size={width},{height}"):
        options.add_argument(argument)
    if dark:
        options.add_argument("--force-dark-mode")
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
    driver.set_script_timeout(PATIENCE)
    driver.set_page_load_timeout(PATIENCE)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1,
                                                                  "mobile": width < 600})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme",
                                                                        "value": "dark" if dark else "light"}]})
    return driver


class Dashboard(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.remove)
        shutil.copytree(os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(self.daemon.models, "tiny-llama"))
        for name in ("demo/calibration.safetensors", "tests/data/tasks/choices.jsonl"):
            shutil.copy(os.path.join(ROOT, name), self.daemon.data)
        self.write_first_tokens("tiny-llama.wikitext2-64k.safetensors", 8192)
        with open(os.path.join(self.daemon.data, "table.parquet"), "wb") as file:
            file.write(b"PAR1" + bytes(100) + b"PAR1")
        self.daemon.start()
        self.driver = self.open_browser(1280, 900)

    def write_first_tokens(self, name, count):
        [(tensor, (kind, _, data))] = read_safetensors(os.path.join(ROOT, "tests", "data", name))[1].items()
        write_safetensors(os.path.join(self.daemon.data, name), {tensor: (kind, [count], data[:4 * count])})

    def open_browser(self, *arguments):
        driver = browser(*arguments)
        self.addCleanup(driver.quit)
        return driver

    def go(self, fragment="", driver=None):
        (driver or self.driver).get(f"http://127.0.0.1:{self.daemon.port}/{fragment}")

    # ---- what a user sees

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def shown(self, selector):
        return [e for e in self.driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()]

    def text(self, selector="body"):
        try:
            return self.find(selector).text
        except StaleElementReferenceException:
            return ""

    def see(self, what, text, selector="body"):
        wait_for(what, lambda: re.search(text, self.text(selector)))

    def field(self, label):
        """A control by its label, as a screen reader finds it."""
        found = wait_for(f"a label {label!r}", lambda: [e.get_attribute("for") for e in self.driver.find_elements(By.CSS_SELECTOR, "label")
                                                        if e.text.strip() == label])
        return self.driver.find_element(By.ID, found[0])

    def fill(self, label, value):
        field = self.field(label)
        if field.tag_name == "select":
            Select(field).select_by_value(value)
        else:
            field.clear()
            field.send_keys(value)

    def click(self, text):
        def clicked():
            for button in self.shown("button, a, summary"):
                if button.text.strip() == text:
                    button.click()
                    return True
        wait_for(f"a button {text!r}", clicked)

    def heading(self, text):
        return self.find(f"section[aria-label='{text}']")

    # ---- checks

    def check_log(self, driver=None):
        log = [e for e in (driver or self.driver).get_log("browser") if e["level"] != "DEBUG"]
        self.assertEqual([e for e in log if not EXPECTED_LOG.search(e["message"])], [])

    def check_access(self, driver=None):
        """axe-core, and that whatever can be used has a name."""
        driver = driver or self.driver
        unnamed = driver.execute_script("""
            return [...document.querySelectorAll("a, button, input, select, textarea, progress, meter, summary")]
                .filter((e) => e.checkVisibility())
                .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length || e.getAttribute("aria-labelledby")))
                .map((e) => e.outerHTML);""")
        self.assertEqual(unnamed, [])
        overflow = driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        self.assertLessEqual(overflow, 0, "the page scrolls sideways")
        if not os.path.exists(AXE):
            print("NOT RUN: axe-core, which could not be fetched", file=sys.stderr)
            return
        with open(AXE) as file:
            driver.execute_script(file.read())
        found = driver.execute_async_script("""
            const done = arguments[arguments.length - 1];
            axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }).then((r) =>
                done(r.violations.map((v) => [v.id, v.help, v.nodes.map((n) => n.html + " " + n.failureSummary).slice(0, 3)])));""")
        self.assertEqual(found, [])

    def picture(self, name, driver=None):
        """The whole page, however long it is."""
        if not SCREENSHOTS:
            return
        image = (driver or self.driver).execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
        with open(os.path.join(SCREENSHOTS, name + ".png"), "wb") as file:
            file.write(base64.b64decode(image["data"]))

    # ---- jobs

    def spec(self, **spec):
        return {"model": "tiny-llama", "method": "besa", "sparsity": 0.5, "precision": "f32",
                "calibration": {"path": "calibration.safetensors", "samples": 64, "sequence_length": 256}, **spec}

    def finished_blocks(self):
        return len(self.driver.find_elements(By.CSS_SELECTOR, "section[aria-label='Learned sparsity, per cent'] tbody tr:first-child "
                                                              "td:not(.pending)"))

    def drawing(self, path):
        """What an element is made of, read at once: the page may put another in its place."""
        return self.driver.execute_script("return document.querySelector(arguments[0])?.outerHTML", path)

    # ---- the tests

    def test_submit_watch_restart(self):
        self.go()
        self.see("an empty queue", "Nothing is queued or running")
        self.check_access()
        self.find("nav a[href='#/new']").send_keys(Keys.ENTER)
        wait_for("the models", lambda: self.shown("select option[value='tiny-llama']"))
        self.fill("Sparsity", "1.2")
        wait_for("the data files", lambda: self.driver.find_elements(By.CSS_SELECTOR, "#data-files option[value='choices.jsonl']"))
        offered = {o.get_attribute("value") for o in self.driver.find_elements(By.CSS_SELECTOR, "#data-files option")}
        self.assertEqual(offered, {"calibration.safetensors", "choices.jsonl", "tiny-llama.wikitext2-64k.safetensors"})
        self.assertEqual(self.field("Calibration data").get_attribute("list"), "data-files")
        self.fill("Calibration data", "table.parquet")
        self.field("Samples").click()
        self.see("why the file cannot be read", "arquet")
        self.fill("Calibration data", "calibration.safetensors")
        self.fill("Samples", "64")
        self.fill("Sequence length", "256")
        self.click("Submit")
        self.see("the API's error at its field", r"must be a number from 0 to 0\.95")
        field = self.field("Sparsity")
        self.assertEqual(field.get_attribute("aria-invalid"), "true")
        described = [self.driver.find_element(By.ID, i).text for i in field.get_attribute("aria-describedby").split()]
        self.assertTrue(any("0.95" in text for text in described), described)
        self.check_access()
        self.picture("form")
        self.fill("Sparsity", "0.5")
        self.fill("Name", "by the form")
        self.fill("Method", "besa")
        self.click("BESA settings")
        self.fill("Epochs", "8")
        self.click("Add a data set")
        self.fill("File", "tiny-llama.wikitext2-64k.safetensors")
        sequence_length = [e for e in self.driver.find_elements(By.CSS_SELECTOR, ".dataset label") if e.text == "Sequence length"][0]
        self.driver.find_element(By.ID, sequence_length.get_attribute("for")).send_keys("256")
        self.click("Submit")

        self.see("the job's page", "by the form")
        self.see("the running block's loss", r"Block \d+, step \d+ of \d+: loss")
        path = "section[aria-label='Loss of the running block'] .plot svg"
        before = self.drawing(path)
        wait_for("the curve to grow", lambda: self.drawing(path) not in (None, before))
        wait_for("the first column of the heat map", lambda: self.finished_blocks() >= 1)
        self.see("a reconstruction loss", "Values, and each layer")
        self.assertEqual(self.text("#connection"), "Live")

        seen, port = self.finished_blocks(), self.daemon.port
        self.daemon.kill()
        self.see("that it is not live", "Not live")
        self.see("since when", r"data as of \d\d:\d\d:\d\d")
        self.picture("lost")
        self.daemon.start(port=port)
        self.see("that it is live again", "^Live$", "#connection")
        wait_for("more blocks", lambda: self.finished_blocks() > seen)
        self.check_access()
        self.picture("job-live")
        for width, height, dark, name in ((1280, 900, True, "job-dark"), (390, 844, False, "phone"), (390, 844, True, "phone-dark")):
            other = self.open_browser(width, height, dark)
            self.go(self.driver.current_url.split("/", 3)[3], other)
            wait_for("the heat map", lambda d=other: d.find_elements(By.CSS_SELECTOR, "section[aria-label='Learned sparsity, per cent'] td"))
            self.check_access(other)
            self.picture(name, other)
            self.check_log(other)
            other.quit()
        self.see("the end", "succeeded")
        wait_for("all columns", lambda: self.finished_blocks() == BLOCKS)
        self.see("the perplexity", r"tiny-llama\.wikitext2-64k|wikitext2", "section[aria-label='Perplexity']")
        self.see("the files", r"besad\.json \S+ kB [0-9a-f]{64}", "section[aria-label='Files of the output']")
        self.assertEqual(self.text("#connection"), "Live")
        self.check_access()
        self.picture("job-done")
        self.check_log()

    def test_notes_and_exports(self):
        """Fields that stand for an object and a list; they are filled again by the job that came of them."""
        self.go("#/new")
        wait_for("the models", lambda: self.shown("select option[value='tiny-llama']"))
        self.fill("Method", "magnitude")
        self.fill("Metadata", "team=prune\nrun=a=b, c\nnothing=")
        self.fill("Make GGUF files too", "gguf-f16, gguf-q9")
        self.click("Submit")
        self.see("the API's error at its field", "gguf-q9")
        self.assertEqual(self.field("Make GGUF files too").get_attribute("aria-invalid"), "true")
        self.check_access()
        self.fill("Make GGUF files too", "gguf-f16, gguf-q8_0")
        self.click("Submit")
        wait_for("the job's page", lambda: "#/job/" in self.driver.current_url)
        job = self.daemon.finish(self.driver.current_url.rsplit("/", 1)[1])
        self.assertEqual(job["state"], "succeeded", job["error"])
        self.assertEqual(job["spec"]["metadata"], {"team": "prune", "run": "a=b, c", "nothing": ""})
        self.assertEqual(job["spec"]["export"], ["gguf-f16", "gguf-q8_0"])
        self.go(f"#/new/{job['id']}")
        wait_for("the fields to be filled", lambda: self.field("Metadata").get_attribute("value"))
        self.assertEqual(self.field("Metadata").get_attribute("value"), "team=prune\nrun=a=b, c\nnothing=")
        self.assertEqual(self.field("Make GGUF files too").get_attribute("value"), "gguf-f16, gguf-q8_0")
        self.check_log()

    def test_cancel_and_retry(self):
        job = self.daemon.submit(self.spec(besa={"epochs": 60}))
        self.go(f"#/job/{job}")
        self.click("Pause")
        self.see("the pause", "paused")
        self.click("Resume")
        self.see("it running again", "running")
        self.click("Cancel")
        self.see("the cancellation", "cancelled")
        self.assertEqual(self.daemon.finish(job)["state"], "cancelled")
        self.click("Retry")
        self.see("it running again", "running")
        self.check_access()
        self.daemon.request("POST", f"/v1/jobs/{job}/cancel")
        self.daemon.finish(job)
        self.check_log()

    def test_drained(self):
        self.go()
        self.see("that it is live", "Live")
        self.assertEqual(self.shown("#drained"), [])
        self.daemon.request("POST", "/v1/drain")
        self.see("that no job is begun", r"Drained since \d\d:\d\d:\d\d: no job is begun")
        self.check_access()
        self.daemon.request("POST", "/v1/undrain")
        wait_for("its end", lambda: not self.shown("#drained"))
        self.check_log()

    def test_global_tune(self):
        """Its curve is the whole model's, behind those of the blocks."""
        job = self.daemon.submit(self.spec(method="wanda", refit={"method": "global", "epochs": 1, "global_epochs": 100},
                                           calibration={"path": "calibration.safetensors", "samples": 8, "sequence_length": 256}))
        self.go(f"#/job/{job}")
        self.see("the whole model's loss", r"Whole model, step \d+ of 200: loss 0\.\d+\n")
        card = "section[aria-label='Loss of the running block']"
        options = [o.get_attribute("textContent") for o in self.driver.find_elements(By.CSS_SELECTOR, card + " option")]
        self.assertEqual((options[0], options[-1]), ("the running one", "whole model"))
        self.find(card + " summary").click()
        self.see("its values", r"Step\s+Loss\n\d+ 0\.\d+", card)
        self.check_access()
        self.daemon.request("POST", f"/v1/jobs/{job}/cancel")
        self.daemon.finish(job)
        self.check_log()

    def test_simulated(self):
        """Bars for each kind of layers, once the job has succeeded."""
        job = self.daemon.submit(self.spec(method="magnitude", hardware={"simulate": True}))
        self.daemon.finish(job)
        self.go(f"#/job/{job}")
        card = "section[aria-label='On a simulated accelerator']"
        self.see("its figures", r"q\s+\d+\.\d %\s+\d\.\d\d ×", card)
        layers = self.daemon.job(job)["result"]["hardware"]["layers"]
        bars = self.driver.find_elements(By.CSS_SELECTOR, card + " tbody rect")
        self.assertEqual(len(bars), 3 * (len(layers) + 1))
        self.assertTrue(all(bar.size["width"] > 0 for bar in bars))
        self.check_access()
        self.picture("simulated")
        self.check_log()

    def test_measured(self):
        """A row for each kind of layers and one of all, once the job has succeeded; nothing of what was not asked for."""
        job = self.daemon.submit(self.spec(method="magnitude", hardware={"measure": True}))
        self.daemon.finish(job)
        self.go(f"#/job/{job}")
        card = "section[aria-label='Timed on the processor']"
        self.see("its figures", r"q\s+\d+\.\d %\s+\d+\.\d\s+\d+\.\d\s+\d+\.\d\d ×", card)
        layers = self.daemon.job(job)["result"]["hardware"]["layers"]
        self.assertEqual(len(self.driver.find_elements(By.CSS_SELECTOR, card + " tbody rect")), len(layers) + 1)
        self.assertFalse(self.driver.find_element(By.CSS_SELECTOR, "section[aria-label='On a simulated accelerator']").is_displayed())
        self.check_access()
        self.check_log()

    def test_many_blocks(self):
        """The heat map of 80 blocks fits the page, on a phone too; its values are there for those who cannot see colours."""
        small_model(self.daemon, 80)
        job = self.daemon.submit(small_job(method="wanda", output="many"))
        self.daemon.finish(job)
        card = "section[aria-label='Learned sparsity, per cent']"
        phone = self.open_browser(390, 844)
        for driver in (self.driver, phone):
            self.go(f"#/job/{job}", driver)
            wait_for("all columns", lambda: len(driver.find_elements(By.CSS_SELECTOR, f"{card} .heatmap thead th")) == 81)
            for element in ("document.documentElement", f'document.querySelector("{card} .scroll")'):
                wide, room = driver.execute_script(f"return [{element}.scrollWidth, {element}.clientWidth]")
                self.assertLessEqual(wide, room, element)
            self.check_log(driver)
        self.check_access()
        self.picture("many-blocks")

    def test_waits_and_warnings(self):
        """A job that waits for another names it, with a way there; what the diagnosis finds has its figure and what to change."""
        small_model(self.daemon, 2)
        first = self.daemon.submit(self.spec(besa={"epochs": 60}))
        job = self.daemon.submit(small_job(method="sparsegpt", output="waits", depends_on=[first], calibration={
            "path": "tokens.safetensors", "samples": 1, "sequence_length": 64}))
        self.go(f"#/job/{job}")
        self.see("what it waits for", f"Waits for\\s+{first}", "section[aria-label='State']")
        self.picture("waits")
        self.click(first)
        wait_for("the other job's page", lambda: self.driver.current_url.endswith(first))
        self.daemon.request("POST", f"/v1/jobs/{first}/cancel")
        self.daemon.finish(first)
        job = self.daemon.submit(small_job(method="sparsegpt", output="warned", calibration={
            "path": "tokens.safetensors", "samples": 1, "sequence_length": 64}))
        self.daemon.finish(job)
        self.go(f"#/job/{job}")
        warnings = "section[aria-label='Warnings']"
        self.see("the finding", r"64 tokens|few_tokens", warnings)
        self.see("what to change", "more calibration.samples", warnings)
        self.check_access()
        self.picture("warnings")
        self.check_log()

    def test_try_it(self):
        """The pruned model and the dense one continue a prompt, one after the other; where no models are served nothing offers it."""
        job = self.daemon.finish(self.daemon.submit(self.spec(method="magnitude")))
        card, prompt = "section[aria-label='Try it']", "The history of the river begins"
        self.go(f"#/job/{job['id']}")
        self.see("the files", r"besad\.json", "section[aria-label='Files of the output']")
        self.assertFalse(self.find(card).is_displayed())
        self.daemon.stop()
        self.daemon.start("--serve-models")
        self.go()
        self.go(f"#/job/{job['id']}")
        wait_for("the card", lambda: self.shown(card))
        self.fill("Prompt", prompt)
        self.click("Try it")
        wait_for("the texts", lambda: self.find(card + " button.primary").is_enabled())
        for title, model in (("Pruned", job["result"]["output"]), ("Dense", "tiny-llama")):
            done = self.daemon.request("POST", "/v1/completions", {"model": model, "prompt": prompt, "max_tokens": 64})
            self.assertEqual(done.status, 200, done.body)
            shown = self.find(f"{card} pre[aria-label='{title}: text']").get_attribute("textContent")
            self.assertEqual(shown, prompt + done.json["choices"][0]["text"])
        self.check_access()
        self.picture("try-it")
        self.check_log()

    def test_study(self):
        with open(os.path.join(ROOT, "demo", "wikitext2.test.txt"), encoding="utf-8") as text, \
                open(os.path.join(self.daemon.data, "part.txt"), "w", encoding="utf-8") as part:
            part.write(text.read(6000))
        spec = self.spec(archive=True, evaluation={"perplexity": [{"name": "part", "path": "part.txt", "sequence_length": 128}]})
        made = self.daemon.request("POST", "/v1/studies", {"name": "how far", "spec": spec, "grid": {
            "sparsity": [0.2, 0.4, 0.6], "method": ["magnitude", "wanda"]}}).json
        self.go("#/studies")
        self.click("how far")
        self.see("the end", "6 jobs: 6 succeeded")
        study = self.daemon.get(f"/v1/studies/{made['id']}").json
        plot = "section[aria-label='Perplexity against size, part']"
        wait_for("all points", lambda: len(self.driver.find_elements(By.CSS_SELECTOR, f"{plot} .plot circle")) == 6)
        points = [(row["archive_bytes"], row["perplexity"]["part"]["pruned"]) for row in study["rows"]]
        best = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
        label = self.find(f"{plot} svg[role='img']").get_attribute("aria-label")
        self.assertIn(f"{len(best)} of 6 jobs are on the Pareto front", label)
        table = self.text("section[aria-label='Jobs'] table")
        for row in study["rows"]:
            self.assertRegex(table, rf"succeeded {row['settings']['sparsity']} {row['settings']['method']} .* "
                                    rf"{row['perplexity']['part']['pruned']:.3f} ")
        self.check_access()
        self.picture("study")
        self.check_log()

    def test_compare(self):
        for method in ("besa", "wanda", "magnitude"):
            self.daemon.finish(self.daemon.submit(self.spec(method=method, name=f"by {method}", evaluation={"perplexity": [
                {"name": "wikitext2", "path": "tiny-llama.wikitext2-64k.safetensors", "sequence_length": 256}],
                "tasks": [{"name": "questions", "path": "choices.jsonl", "format": "choices", "limit": 20}]})))
        self.go()
        self.see("the history", "by besa")
        self.picture("jobs")
        self.check_access()
        for box in self.driver.find_elements(By.CSS_SELECTOR, ".row .check input"):
            box.send_keys(Keys.SPACE)
        self.click("Compare 3 jobs")
        self.see("the table", "wikitext2, pruned")
        values = self.text("table.compare")
        for method in ("besa", "wanda", "magnitude"):
            self.assertIn(f"by {method}", values)
        for row in ("questions acc, dense", "questions acc_norm, pruned"):
            self.assertIn(row, values)
        self.assertRegex(values, r"questions acc, dense( \d+\.\d % ± \d+\.\d %){3}")
        best = len(self.driver.find_elements(By.CSS_SELECTOR, "table.compare td.best"))
        self.assertIn(best, (2, 3, 4))  # perplexity, time, and the scores where they differ
        self.check_access()
        self.picture("compare")
        self.click("by besa")
        self.see("the scores of the job's tasks", r"questions, acc_norm \d+\.\d % ± ", "section[aria-label='Zero-shot tasks']")
        self.check_access()
        self.check_log()

    def test_token(self):
        self.daemon.stop()
        path = os.path.join(self.daemon.directory, "token")
        with open(path, "w") as file:
            file.write(TOKEN + "\n")
        os.chmod(path, 0o600)
        self.daemon.token = TOKEN
        self.daemon.start("--token-file", path)
        self.go()
        self.see("the question", "This besad asks for a token")
        self.check_access()
        self.field("Token").send_keys("a-wrong-one-of-some-length", Keys.ENTER)
        self.see("the refusal", "besad does not take this token")
        self.picture("token")
        self.field("Token").send_keys(TOKEN, Keys.ENTER)
        self.see("the jobs", "Nothing is queued or running")
        self.assertEqual(self.driver.execute_script("return localStorage.length + document.cookie.length"), 0)
        self.driver.refresh()
        self.see("the jobs again", "Nothing is queued or running")
        self.click("Forget the token")
        self.see("the question again", "This besad asks for a token")
        self.check_log()

    def test_looking_on(self):
        """A token of the role read shows all there is, and what it may not do is said where it is tried."""
        self.daemon.stop()
        path = os.path.join(self.daemon.directory, "token")
        with open(path, "w") as file:
            file.write(f"board read {TOKEN}\nalice admin {TOKEN}-2\n")
        os.chmod(path, 0o600)
        self.daemon.token = TOKEN + "-2"
        self.daemon.start("--token-file", path)
        job = self.daemon.submit(self.spec(besa={"epochs": 100}))
        self.go()
        self.see("the question", "This besad asks for a token")
        self.field("Token").send_keys(TOKEN, Keys.ENTER)
        self.go(f"#/job/{job}")
        self.click("Cancel")
        self.see("the refusal", "takes a token of the role submit; that of 'board' has the role read")
        self.assertNotEqual(self.daemon.job(job)["state"], "cancelled")


if __name__ == "__main__":
    if SCREENSHOTS:
        os.makedirs(SCREENSHOTS, exist_ok=True)
    unittest.main()
