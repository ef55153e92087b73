#!/bin/sh
# Runs a study of the bundled model: starts besad, submits demo/studies/NAME.json, follows it to its end, and leaves the table as CSV.
# Usage: demo/study.sh NAME [BESAD]; besactl lies beside besad. Everything it writes lies in build/demo/study. Run by `make study STUDY=NAME`.
set -eu
cd "$(dirname "$0")/.."
name=${1:-}
besad=${2:-build/besad}
dir=build/demo/study
if [ ! -e "demo/studies/$name.json" ]; then
	echo "which study? One of: $(basename -s .json demo/studies/*.json | tr '\n' ' ')" >&2
	exit 1
fi
. demo/start.sh
code=0
BESAD_URL=$url $(dirname $besad)/besactl study submit --watch "demo/studies/$name.json" || code=$?
BESAD_URL=$url $(dirname $besad)/besactl study show --csv >$dir/table.csv
echo "The table as CSV: $dir/table.csv; the pruned models: $(echo $dir/output/*)"
exit $code
