#!/bin/sh
# Makes cuda-kit/ of the programs in DIR (make cuda-kit builds them): one archive, and first-hour.sh that unpacks and runs it.
# Usage: bench/cuda_kit.sh DIR emulated|device
set -eu
cd "$(dirname "$0")/.."
programs=$1
kind=$2
most_mb=35    # of the archive; with the tracked tree it must stay below 60 MB
glibc=2.39    # of the machines it is for
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/kit/bin"
for program in "$programs"/*; do
	case $program in *.d | *.o) continue ;; esac
	cp "$program" "$work/kit/bin/"
done
# Everything but glibc itself, which belongs to the machine.
ldd "$work"/kit/bin/* | sed -n 's/.* => \(\/[^ ]*\).*/\1/p' | sort -u | while read -r library; do
	case $(basename "$library") in
	libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | libresolv.so.* | ld-linux*) ;;
	*) cp -L "$library" "$work/kit/bin/" ;;
	esac
done
needed=$(for file in "$work"/kit/bin/*; do objdump -T "$file"; done 2>/dev/null | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -1 | sed 's/GLIBC_//')
[ "$(printf '%s\n%s\n' "$needed" $glibc | sort -V | tail -1)" = $glibc ] ||
	{ echo "the kit needs glibc $needed; the machine has $glibc" >&2; exit 1; }
mkdir -p "$work/kit/tests/cuda" "$work/kit/tests/data" "$work/kit/bench"
cp tests/cuda/compare.py "$work/kit/tests/cuda/"
cp tests/data/tiny-llama.wikitext2-64k.safetensors "$work/kit/tests/data/"
cp bench/first_hour.py bench/first_hour_page.py bench/cuda_block.py bench/cuda_torch.py bench/random_models.py "$work/kit/bench/"
cp -r demo "$work/kit/"
printf '{"kind": "%s", "commit": "%s", "glibc_needed": "%s"}\n' "$kind" "$(git describe --always --dirty 2>/dev/null || echo unknown)" "$needed" >"$work/kit/kit.json"
rm -rf cuda-kit
mkdir cuda-kit
# Programs share most of their bytes: a window as large as all of them finds that.
tar -C "$work" --sort=name --owner=0 --group=0 -cf - kit | xz -T1 --lzma2=preset=6,dict=256MiB >cuda-kit/kit.tar.xz
cp bench/first-hour.sh cuda-kit/
size=$(stat -c %s cuda-kit/kit.tar.xz)
tree=$(git ls-files -z | xargs -0 cat 2>/dev/null | wc -c)
echo "cuda-kit: $kind, $((size / 1000000)) MB, glibc $needed or later; with the tracked tree $(((size + tree) / 1000000)) MB"
[ "$size" -le $((most_mb * 1000000)) ] || { echo "the archive may have $most_mb MB" >&2; exit 1; }
