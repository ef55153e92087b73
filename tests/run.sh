#!/bin/sh
# Runs every test that was built in BUILD, and the ones that drive the programs. Prints what failed, what was skipped and why, and,
# last, 'N passed, N failed, N skipped': programs that passed and failed; tests, or programs, that were skipped.
# Usage: tests/run.sh [BUILD]; TESTS limits it to some parts: make, unit, backend, cuda, reference, api, ctl, systemd.
# No test waits for less than it takes on a busy machine; one that takes longer than PATIENCE seconds (15 minutes) times SLOWNESS is
# killed with everything that it started, as is the running one when this is interrupted.
set -u
cd "$(dirname "$0")/.."
build=${1:-build}
parts=${TESTS:-make unit backend cuda reference api ctl systemd}
log=$build/tests/log
limit=$((${PATIENCE:-900} * ${SLOWNESS:-1}))
passed=0
failed=0
skipped=0
child=
mkdir -p $log

trap 'interrupted INT 130' INT
trap 'interrupted TERM 143' TERM
trap 'interrupted HUP 129' HUP
interrupted() { # interrupted SIGNAL STATUS: the running test ends first
	trap '' INT TERM HUP
	[ -z "$child" ] || { kill -TERM $child 2>/dev/null && wait $child; }
	echo "interrupted by SIG$1: $passed passed, $failed failed, $skipped skipped"
	exit $2
}

skip() { # skip NAME REASON
	skipped=$((skipped + 1))
	echo "skipped $1: $2"
}

fail() { # fail NAME REASON
	failed=$((failed + 1))
	echo "FAILED  $1: $2"
}

run() { # run NAME COMMAND...: one test program; its output is kept, and shown when it fails
	name=$1
	shift
	start=$(date +%s)
	tests/watch.py $limit $log/$name.log "$@" &
	child=$!
	wait $child
	status=$?
	child=
	took="$(($(date +%s) - start)) s"
	if [ $status = 0 ]; then
		passed=$((passed + 1))
		echo "ok      $name ($took)"
		# unittest with -v and cmocka name what they skip.
		sed -n "s/^\(.*\) \.\.\. skipped [\"']\(.*\)[\"']$/skipped $name: \1: \2/p; s/^\[  SKIPPED \] \([a-z].*\)$/skipped $name: \1/p" \
			$log/$name.log | sort -u >$log/skipped
		cat $log/skipped
		skipped=$((skipped + $(wc -l <$log/skipped)))
	else
		case $status in
		124) fail $name "killed after $took; the end of $log/$name.log:" ;;
		125) fail $name "it left processes behind ($took); the end of $log/$name.log:" ;;
		*) fail $name "status $status ($took); the end of $log/$name.log:" ;;
		esac
		tail -n 60 $log/$name.log
	fi
}

# Tests of the CUDA backend's code on the host (tests/cuda/emulator): they need no toolkit, and every build but a sanitizer's has them.
run_emulated() {
	emulated=$build/tests/emulated
	if grep -q -- -fsanitize= $build/flags/compile 2>/dev/null; then
		skip cuda "a sanitizer does not follow the emulator's coroutines"
		return
	fi
	[ -x $emulated/besad ] || {
		fail cuda "$emulated/besad is not there; was it built (make tests)?"
		return
	}
	for source in tests/backend/test_*.c tests/cuda/test_*.c; do
		name=$(basename $source .c)
		grep -qx "${name#test_}" tests/cuda/without-cuda && continue
		run test_cuda_${name#test_} env BESAD_TEST_BACKEND=cuda $emulated/test_cuda_${name#test_}
	done
	run test_cuda_fault_drill env BESAD_TEST_BACKEND=cuda $emulated/test_cuda_fault_drill
	run cuda-whole-blocks tests/cuda/compare.py $emulated/besad --other $build/besad --precision f32 --samples 1 --windows 1
	run cuda-durability env BESAD=$emulated/besad CRASHES=3 BLOCKS=3 SAMPLES=6 python3 tests/api/test_durability.py -v
	run cuda-crash-points env BESAD=$emulated/besad CRASH_POINTS=2 python3 tests/api/test_crash_points.py -v Run
	run cuda-first-hour python3 tests/cuda/test_first_hour.py -v
	run cuda-lost-device env BESAD=$emulated/besad python3 tests/cuda/test_lost_device.py -v
	run cuda-device-memory env BESAD=$emulated/besad python3 tests/cuda/test_device_memory.py -v
}

for part in $parts; do
	case $part in
	unit | backend)
		for source in tests/$part/test_*.c; do
			name=$(basename $source .c)
			run $name $build/tests/$name
		done
		;;
	cuda) run_emulated ;;
	make | reference | api | ctl | systemd)
		for source in tests/$part/test_*.py; do
			run $part-$(basename $source .py) env BESAD=$build/besad python3 $source -v
		done
		;;
	*) fail $part "there is no such part" ;;
	esac
done

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
