#!/usr/bin/env python3
"""make sbom: an SPDX document of the programs and of the packages that their libraries are from."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BESAD = os.path.abspath(os.environ.get("BESAD", os.path.join(ROOT, "build", "besad")))
PROGRAMS = [BESAD, os.path.join(os.path.dirname(BESAD), "besactl")]


@unittest.skipUnless(shutil.which("dpkg-query"), "libraries are those of Debian packages")
class Sbom(unittest.TestCase):
    def made(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "sbom.json")
            subprocess.run([os.path.join(ROOT, "debian", "sbom.py"), path, *PROGRAMS], check=True,
                           env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
            with open(path) as file:
                return file.read()

    def test_document(self):
        text = self.made()
        self.assertEqual(text, self.made())
        document = json.loads(text)
        self.assertEqual((document["spdxVersion"], document["dataLicense"], document["SPDXID"]),
                         ("SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT"))
        self.assertEqual(document["creationInfo"]["created"], "2023-11-14T22:13:20Z")
        self.assertTrue(document["creationInfo"]["creators"] and document["name"] and document["documentNamespace"])
        ids = [package["SPDXID"] for package in document["packages"]]
        self.assertEqual(len(set(ids)), len(ids))
        for package in document["packages"]:
            self.assertRegex(package["SPDXID"], r"^SPDXRef-[A-Za-z0-9.-]+$")
            self.assertTrue(package["name"] and package["versionInfo"] and package["downloadLocation"] and package["supplier"])
        for relation in document["relationships"]:
            self.assertIn(relation["spdxElementId"], ["SPDXRef-DOCUMENT", *ids])
            self.assertIn(relation["relatedSpdxElement"], ids)
        related = {relation["relatedSpdxElement"] for relation in document["relationships"]}
        self.assertEqual(related, set(ids))

    def test_every_library_is_in_it(self):
        document = json.loads(self.made())
        versions = {package["name"]: package["versionInfo"] for package in document["packages"]}
        direct = {r["relatedSpdxElement"] for r in document["relationships"] if r["relationshipType"] == "DYNAMIC_LINK"}
        self.assertLessEqual({"SPDXRef-Package-libsqlite3-0", "SPDXRef-Package-libmicrohttpd12", "SPDXRef-Package-libc6"}, direct)
        linked = {os.path.realpath(path) for program in PROGRAMS for path in
                  re.findall(r"=> (/\S+) \(0x", subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout)}
        found = subprocess.run(["dpkg-query", "-S", *linked], capture_output=True, text=True).stdout
        owners = {line.split(":")[0] for line in found.splitlines()}  # of a file that dpkg has by another name there is none here
        self.assertGreater(len(owners), 10)
        for line in subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *owners], check=True, capture_output=True,
                                   text=True).stdout.splitlines():
            name, version = line.split()
            self.assertEqual(versions[name], version)


if __name__ == "__main__":
    unittest.main()
