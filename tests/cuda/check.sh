#!/bin/sh
# What needs a GPU: the conformance suite on it, whole-block BESA on the bundled model against the CPU backend, and, where it is installed,
# compute-sanitizer over a short job. `make check-cuda` runs it. Usage: tests/cuda/check.sh [BUILD]. Prints 'N passed, N failed' last.
set -u
cd "$(dirname "$0")/../.."
build=${1:-build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

run() { # run NAME COMMAND...
	name=$1
	shift
	if "$@" >"$work/log" 2>&1; then
		passed=$((passed + 1))
		echo "ok      $name"
	else
		failed=$((failed + 1))
		echo "FAILED  $name"
		tail -n 60 "$work/log"
	fi
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
for test in tests/backend/test_*.c; do
	name=$(basename "$test" .c)
	[ "$name" = test_block ] || run "$name" env BESAD_TEST_BACKEND=cuda "$build/tests/$name"
done

for precision in f32 bf16; do
	run "whole blocks, $precision" python3 tests/cuda/compare.py "$build/besad" --precision $precision
done

sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2>/dev/null)
if [ -n "$sanitizer" ]; then
	for tool in memcheck racecheck initcheck; do
		run "$tool" python3 tests/cuda/compare.py "$build/besad" --precision bf16 --samples 2 --windows 2 \
			--prefix "$sanitizer --tool $tool --error-exitcode 9"
	done
else
	echo "skipped compute-sanitizer: not installed"
fi

echo "$passed passed, $failed failed"
[ $failed = 0 ]
