#!/bin/sh
# Installs what a fresh Debian 12 lacks to build and run besad: packages.sh BUILD PACKAGE... Says what it does in a line, and when it
# cannot, what to do; apt's own words are kept in BUILD/packages.log.
set -u
build=$1
shift
log=$build/packages.log

missing=
for package in "$@"; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

give_up() { # give_up REASON
	echo "besad needs these Debian packages:$missing" >&2
	echo "They could not be installed: $1. Install them as root, then run make again:" >&2
	echo "    apt-get update && apt-get install --no-install-recommends$missing" >&2
	exit 1
}

command -v apt-get >/dev/null || give_up "there is no apt-get here (elsewhere the packages have other names)"
root=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || give_up "you are not root, and there is no sudo"
	root=sudo
fi
mkdir -p "$build"
echo "installing (some minutes; $log):$missing"
$root env DEBIAN_FRONTEND=noninteractive sh -c '
	apt-get update -q && apt-get install -q -y --no-install-recommends "$@"' sh $missing >"$log" 2>&1 || {
	grep -E '^(E|Err|W):' "$log" | tail -n 5 >&2
	give_up "apt-get failed"
}
