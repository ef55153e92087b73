#!/bin/sh
# All that is to be learned on a machine with a GPU, in order: bench/first_hour.py says what. Unpacks the kit beside this script first.
# Usage: first-hour.sh [--small] [--out DIR] PART…   PART: 1, 2 or 3, or the name of a step
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -e "$here/kit/unpacked" ] || [ "$here/kit.tar.xz" -nt "$here/kit/unpacked" ]; then
	rm -rf "$here/kit"
	python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/kit.tar.xz" "$here"
	touch "$here/kit/unpacked"
fi
exec python3 "$here/kit/bench/first_hour.py" --results "$here/results" "$@"
