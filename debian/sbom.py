#!/usr/bin/env python3
"""What the built programs are made of, as an SPDX 2.3 document: sbom.py FILE PROGRAM...

Each program, and each Debian package that has a shared library of it, found by the dynamic linker and dpkg. SOURCE_DATE_EPOCH, where it is
set, is when it was made: then the same programs on the same system give the same bytes."""
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.parse

# Looked for when besad runs, by a build with CUDA, and not linked.
OPTIONAL = "cuBLASLt of the CUDA toolkit and NVML of the driver, where they are there, are opened at run time and are not listed"


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout


def libraries(program):
    """The paths of all shared libraries, and the names of those that the program itself asks for."""
    linked = re.findall(r"(?m)^\s*(?:(\S+) => )?(/\S+) \(0x", output("ldd", program))
    direct = set(re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", program)))
    return {path: (name or os.path.basename(path)) in direct for name, path in linked}


def names(path):
    """Of one file, by which dpkg may know it."""
    real = os.path.realpath(path)
    return list(dict.fromkeys((path, real, re.sub(r"^/lib", "/usr/lib", path), re.sub(r"^/usr/lib", "/lib", real))))


def owners(paths):
    """The Debian package that has each file. dpkg reads all its lists for one question, so there is one."""
    found = subprocess.run(["dpkg-query", "-S", *(name for path in paths for name in names(path))], capture_output=True, text=True).stdout
    packages = {path: package.split(",")[0] for package, path in (line.split(": ", 1) for line in found.splitlines())}
    lacking = [path for path in paths if not any(name in packages for name in names(path))]
    if lacking:
        raise SystemExit(f"sbom.py: no Debian package has {', '.join(lacking)}")
    return {path: next(packages[name] for name in names(path) if name in packages) for path in paths}


def descriptions(packages):
    fields = ("binary:Package", "Package", "Version", "Architecture", "source:Package", "Maintainer", "Homepage")
    text = output("dpkg-query", "-W", "-f", "\\t".join(f"${{{field}}}" for field in fields) + "\\n", *packages)
    rows = [dict(zip(fields, line.split("\t"))) for line in text.splitlines()]
    return {package: row for package in packages for row in rows if package in (row["binary:Package"], row["Package"])}


def identifier(*parts):
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", "-".join(parts))


def package_entry(fields):
    version = urllib.parse.quote(fields["Version"], safe="")
    purl = f"pkg:deb/debian/{fields['Package']}@{version}?arch={fields['Architecture']}"
    return {"SPDXID": identifier("Package", fields["Package"]), "name": fields["Package"], "versionInfo": fields["Version"],
            "supplier": "Organization: " + fields["Maintainer"].split(" <")[0], "downloadLocation": "NOASSERTION",
            "homepage": fields["Homepage"] or "NOASSERTION", "sourceInfo": "built from the source package " + fields["source:Package"],
            "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
            "primaryPackagePurpose": "LIBRARY",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}]}


def program_entry(program):
    with open(program, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    version = output(program, "--version").split()[1]
    return {"SPDXID": identifier("Program", os.path.basename(program)), "name": os.path.basename(program), "versionInfo": version,
            "supplier": "NOASSERTION", "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": "Apache-2.0",
            "licenseDeclared": "Apache-2.0", "copyrightText": "NOASSERTION", "primaryPackagePurpose": "APPLICATION",
            "checksums": [{"algorithm": "SHA256", "checksumValue": digest}], "comment": OPTIONAL}


def document(programs):
    entries = {program: program_entry(program) for program in programs}
    linked = {program: libraries(program) for program in programs}
    owner = owners(sorted({path for paths in linked.values() for path in paths}))
    described = {package: package_entry(fields) for package, fields in descriptions(sorted(set(owner.values()))).items()}
    packages = {entry["SPDXID"]: entry for entry in [*entries.values(), *described.values()]}
    relations = set()
    for program, entry in entries.items():
        relations.add(("SPDXRef-DOCUMENT", "DESCRIBES", entry["SPDXID"]))
        kinds = {}
        for path, direct in linked[program].items():
            kinds[owner[path]] = kinds.get(owner[path], False) or direct
        for package, direct in kinds.items():
            relations.add((entry["SPDXID"], "DYNAMIC_LINK" if direct else "DEPENDS_ON", described[package]["SPDXID"]))
    created = int(os.environ.get("SOURCE_DATE_EPOCH") or datetime.datetime.now().timestamp())
    listed = [packages[key] for key in sorted(packages)]
    name = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "besad",
            "documentNamespace": f"https://spdx.org/spdxdocs/besad-{name}",
            "creationInfo": {"created": datetime.datetime.fromtimestamp(created, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                             "creators": ["Tool: besad-sbom"]},
            "packages": listed,
            "relationships": [{"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b} for a, kind, b in sorted(relations)]}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.splitlines()[0])
    text = json.dumps(document(sys.argv[2:]), indent=1) + "\n"
    with open(sys.argv[1], "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
