# Sourced: starts $besad over the bundled model in $dir, which it empties, sets $url once it is ready, and ends it with the script.
rm -rf $dir
mkdir -p $dir/output

$besad --listen 127.0.0.1:0 --port-file $dir/port --state-dir $dir/state --model-root demo --data-root demo --data-root tests/data \
	--output-root $dir/output --calibration demo/calibration.safetensors 2>$dir/besad.log &
daemon=$!
trap 'kill $daemon 2>/dev/null; wait $daemon 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

tries=0
until [ -s $dir/port ] && curl -fs "http://127.0.0.1:$(cat $dir/port)/readyz" >/dev/null; do
	tries=$((tries + 1))
	if [ $tries -gt 100 ] || ! kill -0 $daemon 2>/dev/null; then
		echo "besad did not start; its log:" >&2
		cat $dir/besad.log >&2
		exit 1
	fi
	sleep 0.1
done
url=http://127.0.0.1:$(cat $dir/port)
