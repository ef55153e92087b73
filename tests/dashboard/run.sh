#!/bin/sh
# The dashboard in a real Chromium against the besad in BUILD. Usage: tests/dashboard/run.sh [BUILD]
# Needs Debian's chromium, chromium-driver and python3-selenium. axe-core comes from PyPI, into BUILD; where PyPI cannot be reached the
# test says so and does its own checks alone. SCREENSHOTS=DIR keeps the pictures.
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build}
axe=$build/tests/axe
if [ ! -f $axe/axe.min.js ]; then
	mkdir -p $axe
	if python3 -m pip download -q --disable-pip-version-check --no-deps -d $axe axe-playwright-python==0.1.8; then
		python3 -m zipfile -e $axe/axe_playwright_python-*.whl $axe/wheel
		cp $axe/wheel/axe_playwright_python/axe.min.js $axe/
	fi
fi
AXE=$PWD/$axe/axe.min.js BESAD=$build/besad exec /usr/bin/python3 tests/dashboard/test_dashboard.py
