#!/usr/bin/env python3
"""SECURITY.md names tests: each is there, and so is every file."""
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Security(unittest.TestCase):
    def test_what_is_named_is_there(self):
        with open(os.path.join(ROOT, "SECURITY.md")) as file:
            rows = [line for line in file if line.count("|") == 4]
        named = 0
        for row in rows:
            text = None
            for name in re.findall(r"`([^`]*)`", row.split("|")[3]):
                if "/" in name:
                    with open(os.path.join(ROOT, "tests", name)) as file:
                        text = file.read()
                else:
                    self.assertRegex(text, rf"\b(def|static void) {name}\(", row)
                    named += 1
        self.assertGreater(named, 40)

    def test_every_threat_has_one(self):
        with open(os.path.join(ROOT, "SECURITY.md")) as file:
            threats = file.read().split("## Threats")[1].split("\n## ")[0]
        rows = [line.split("|")[1:4] for line in threats.splitlines() if line.startswith("| ")][2:]
        self.assertGreater(len(rows), 20)
        for threat, holds, shown in rows:
            if not threat.strip().startswith("**"):
                self.assertTrue(holds.strip() and "`" in shown, threat)


if __name__ == "__main__":
    unittest.main()
