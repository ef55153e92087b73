#!/bin/sh
# Runs every test that was built in BUILD, and the ones that drive the programs. Prints what failed and, last, 'N passed, N failed'.
# Usage: tests/run.sh [BUILD]; TESTS limits it to some parts: unit, backend, cuda, reference, api, ctl, systemd.
set -u
cd "$(dirname "$0")/.."
build=${1:-build}
parts=${TESTS:-unit backend cuda reference api ctl systemd}
log=$build/tests/log
passed=0
failed=0
mkdir -p $log

run() { # run NAME COMMAND...: one test program; its output is kept, and shown when it fails
	name=$1
	shift
	start=$(date +%s)
	if "$@" >$log/$name.log 2>&1; then
		passed=$((passed + 1))
		echo "ok      $name ($(($(date +%s) - start)) s)"
	else
		failed=$((failed + 1))
		echo "FAILED  $name ($(($(date +%s) - start)) s); the end of $log/$name.log:"
		tail -n 60 $log/$name.log
	fi
}

for part in $parts; do
	case $part in
	unit | backend)
		for source in tests/$part/test_*.c; do
			name=$(basename $source .c)
			run $name $build/tests/$name
		done
		;;
	cuda) # the CUDA backend's code on the host; tests/cuda/emulator
		for program in $build/tests/emulated/test_cuda_*; do
			[ -x $program ] && run $(basename $program) env BESAD_TEST_BACKEND=cuda $program
		done
		if [ -x $build/tests/emulated/besad ]; then
			run cuda-whole-blocks tests/cuda/compare.py $build/tests/emulated/besad --other $build/besad --precision f32 \
				--samples 1 --windows 1
			run cuda-durability env BESAD=$build/tests/emulated/besad CRASHES=3 BLOCKS=3 python3 tests/api/test_durability.py
			run cuda-device-memory env BESAD=$build/tests/emulated/besad python3 tests/cuda/test_device_memory.py
		fi
		;;
	reference | api | ctl | systemd)
		for source in tests/$part/test_*.py; do
			run $part-$(basename $source .py) env BESAD=$build/besad python3 $source
		done
		;;
	esac
done

echo "$passed passed, $failed failed"
[ $failed = 0 ]
