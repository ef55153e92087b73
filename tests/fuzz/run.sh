#!/bin/bash
# run.sh BUILD SECONDS: every fuzz target of `make fuzz` for so long, two at a time, from a copy of its corpus: what was written for it, in
# corpus/, and what long runs found that reaches more of the code, in found/. A crash leaves its input in BUILD/fuzz and fails.
#
# To keep what a long run found: BUILD/fuzz/NAME -merge=1 -use_counters=0 NEW BUILD/fuzz/found-NAME, and NEW's files into found/NAME.zip.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "$1")
export build seconds=$2

run_target() {
	local name=$1 source=$PWD/tests/fuzz
	local found=$build/fuzz/found-$name dictionary=()
	mkdir -p "$found"
	[ ! -f "$source/found/$name.zip" ] || python3 -m zipfile -e "$source/found/$name.zip" "$found"
	[ ! -f "$source/$name.dict" ] || dictionary=(-dict="$source/$name.dict")
	if BESAD_FUZZ_MODELS=$PWD/demo "$build/fuzz/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
		-artifact_prefix="$build/fuzz/$name-" "${dictionary[@]}" "$found" "$source/corpus/$name" >"$build/fuzz/$name.log" 2>&1; then
		echo "ok      $name ($(sed -n 's/stat::number_of_executed_units: //p' "$build/fuzz/$name.log") inputs)"
	else
		echo "FAILED  $name"
		tail -40 "$build/fuzz/$name.log"
		return 1
	fi
}
export -f run_target
printf '%s\n' tests/fuzz/fuzz_*.c | sed 's|.*/||; s|\.c$||' | xargs -P 2 -I{} bash -c 'run_target {}'
