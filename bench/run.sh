#!/bin/sh
# Runs benchmarks one after the other, each to BUILD/bench/NAME.json: run.sh BUILD [NAME...]. `make bench` builds what they need first;
# BENCH names some of them. Take a calm machine: they measure time.
#   tiny block    besad's speed on the bundled model, and on a block of a size in use; BESA=DIR PYTHON=PROGRAM: the published code's too
#   growth        what a FLOP of BESA costs as blocks, samples and their length grow; only where it is named
#   memory        peak memory of 4 and of 16 blocks
#   estimate      what POST /v1/estimate says of memory against what jobs take; MODEL=DIR CALIBRATION=FILE: of that model too
#   ops           each operation of the CPU backend
#   solver        what solves for the weights that stay, against a large product
#   matvec        products with one vector and some, dense and sparse, in bf16 and codes, by one thread (build/bench/matvec 4096 4096 16 0: by all)
#   progress      what the perplexity after each block costs
#   watchers      what 500 event streams cost
#   archive       besad pack, unpack and verify against a copy and zstd; only where it is named: MODEL=DIR, a pruned one
#   generate      tokens a second with zeros multiplied and left out, of a random model of 1.1 billion weights; only where it is named; MODEL=DIR: of that
#   save          hidden states of 4 GiB to the disk of BUILD, by 1 to 8 threads; only where it is named
#   model         any model: MODEL=DIR CALIBRATION=FILE EVALUATION='FILE...', of text or tokens (bench/smollm2.py makes one)
set -u
cd "$(dirname "$0")/.."
build=$1
shift
names=${*:-tiny block memory estimate ops solver matvec progress watchers${MODEL:+ model}}
failed=
mkdir -p "$build/bench"

for name in $names; do
	case $name in
	tiny | block)
		set -- bench/compare.py --besad "$build/besad" --rate "$build/bench/matmul_rate" $name --precision f32 bf16 \
			${BESA:+--besa "$BESA"} ${PYTHON:+--python "$PYTHON"}
		;;
	growth) set -- bench/compare.py --besad "$build/besad" growth --runs 2 --precision f32 bf16 ;;
	memory) set -- bench/compare.py --besad "$build/besad" memory ;;
	estimate)
		set -- bench/compare.py --besad "$build/besad" estimate --precision f32 bf16 --method wanda besa \
			${MODEL:+--model "$MODEL" --calibration "$CALIBRATION"}
		;;
	ops) set -- "$build/bench/cpu_ops" ;;
	solver) set -- "$build/bench/solver" ;;
	matvec) set -- "$build/bench/matvec" ;;
	progress) set -- bench/progress.py --besad "$build/besad" ;;
	archive) set -- bench/archive.py --besad "$build/besad" ${MODEL:+--model "$MODEL"} ;;
	generate) set -- bench/generate.py "$build/besad" ${MODEL:+"$MODEL"} ;;
	save) set -- "$build/bench/stream_save" "$build/bench" ;;
	watchers) set -- env BESAD="$build/besad" bench/watchers.py ;;
	model)
		set -- bench/compare.py --besad "$build/besad" model --runs 1 ${MODEL:+--model "$MODEL"} \
			${CALIBRATION:+--calibration "$CALIBRATION"} ${EVALUATION:+--evaluation $EVALUATION}
		;;
	*)
		echo "there is no benchmark $name; see bench/run.sh" >&2
		exit 2
		;;
	esac
	echo "==== $name"
	if "$@" >"$build/bench/$name.json"; then
		echo "     $build/bench/$name.json"
	else
		echo "     FAILED: $*" >&2
		failed="$failed $name"
	fi
done
[ -z "$failed" ] || {
	echo "failed:$failed" >&2
	exit 1
}
