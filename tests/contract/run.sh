#!/bin/sh
# Installs schemathesis below BUILD, from PyPI, and holds a live besad to openapi.yaml with it. Usage: tests/contract/run.sh [BUILD]
# Where PyPI cannot be reached it says so and succeeds.
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build}
venv=$build/tests/schemathesis
if [ ! -x $venv/bin/schemathesis ]; then
	python3 -m venv $venv
	$venv/bin/pip install -q --disable-pip-version-check schemathesis==4.32.5 || {
		echo "NOT RUN: schemathesis could not be installed" >&2
		exit 0
	}
fi
BESAD=$build/besad tests/contract/run.py $PWD/$venv/bin/schemathesis 100
