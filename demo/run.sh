#!/bin/sh
# Starts besad, prunes the bundled model four ways over HTTP, shows the live progress of each job and a table at the end.
# Usage: demo/run.sh [BESAD]; everything it writes lies in build/demo. Run by `make demo`.
set -eu
cd "$(dirname "$0")/.."
besad=${1:-build/besad}
dir=build/demo
. demo/start.sh
curl -fs $url/v1/info | jq -r '"besad \(.version) at '$url' on \(.backend): \(.device)"'

# One line per event worth seeing, from a server-sent event stream's data lines.
live='def pct: (. * 1000 | round) / 10 | tostring + " %"; def ms: (. * 1000 | round) / 1000;
  if .type == "eval.finished" then "  \(.data.model) perplexity on \(.data.dataset): \(.data.perplexity | ms)"
  elif .type == "block.finished" then "  block \(.data.block + 1)/\(.data.blocks)  reconstruction loss \(.data.reconstruction | if . then . * 10000 | round / 10000 else "-" end)  sparsity \(.data.sparsity | pct)  \(.data.seconds | ms) s"
  elif .type == "job.succeeded" or .type == "job.started" then "  " + .type
  elif .type == "job.failed" then "  job.failed: \(.data.code): \(.data.message)"
  elif .type == "warning" then "  warning: \(.data.message)"
  else empty end'

prune() { # prune method|preset NAME: submits a job, follows it to its end, leaves it in $dir/NAME.json
	kind=$1
	shift
	echo
	echo "POST /v1/jobs: tiny-llama, $1, 50 %"
	id=$(curl -fsS $url/v1/jobs -H 'Content-Type: application/json' -d '{
		"name": "demo '"$1"'", "model": "tiny-llama", "output": "tiny-llama-'"$1"'", "'"$kind"'": "'"$1"'", "sparsity": 0.5,
		"calibration": {"samples": 128, "sequence_length": 256},
		"evaluation": {"perplexity": [{"name": "wikitext2", "path": "tiny-llama.wikitext2-64k.safetensors", "sequence_length": 256}]}}' | jq -r .id)
	curl -fsSN $url/v1/jobs/$id/events -H 'Accept: text/event-stream' | sed -un 's/^data: //p' |
		jq --unbuffered -r "select(.type) | $live"
	curl -fs $url/v1/jobs/$id >$dir/$1.json
	curl -fs $url/v1/jobs/$id/report >$dir/$1.report.json
	jq -e '.state == "succeeded"' $dir/$1.json >/dev/null || {
		jq .error $dir/$1.json >&2
		exit 1
	}
}

for method in magnitude wanda besa; do prune method $method; done
prune preset balanced # what a job gets that asks for nothing else

echo
echo "The first 65,536 tokens of WikiText-2's test text, windows of 256, 50 % of the blocks' linear weights are zero"
jq -n -r --slurpfile m $dir/magnitude.json --slurpfile w $dir/wanda.json --slurpfile b $dir/besa.json \
	--slurpfile p $dir/balanced.json '
  def cell(n): tostring | . + " " * (n - length);
  def num(d): . * pow(10; d) | round / pow(10; d);
  (["", "perplexity", "sparsity", "pruning s", "total s"] | map(cell(12)) | join("")),
  (["dense", ($b[0].result.perplexity.wikitext2.dense | num(3)), "0", "", ""] | map(cell(12)) | join("")),
  ([["magnitude", $m[0]], ["wanda", $w[0]], ["besa", $b[0]], ["balanced", $p[0]]][] |
    [.[0], (.[1].result.perplexity.wikitext2.pruned | num(3)), (.[1].result.sparsity | num(5)), (.[1].result.pruning_seconds | num(2)), (.[1].result.seconds | num(2))] |
    map(cell(12)) | join(""))'
echo
echo "Sparsity that BESA chose, per layer"
jq -r 'def cell(n): tostring | . + " " * (n - length);
  (["block"] + (.blocks[0].layers | keys_unsorted) | map(cell(10)) | join("")),
  (.blocks[] | [.block + 1] + [.layers[] | .zeros / .params * 1000 | round / 10] | map(cell(10)) | join(""))' $dir/besa.report.json
echo
echo "The pruned models: $(echo $dir/output/*)"
