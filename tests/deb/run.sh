#!/bin/bash
# Builds the Debian packages from the committed tree, installs them in a clean root, prunes the demo's model there through besactl, and purges.
# Needs root, dpkg-dev, debhelper and debootstrap; where no clean root can be made it says so, and has tried the build alone. MIRROR is Debian's archive (default: that of this machine's sources).
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d /var/tmp/besad-deb.XXXXXX)
root=$work/root
daemon=
cleanup() {
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
	umount -q "$root/proc" 2>/dev/null || true
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT
say() { echo "==== $*"; }

say "dpkg-buildpackage"
mkdir "$work/besad"
git archive HEAD | tar -x -C "$work/besad"
(cd "$work/besad" && dpkg-buildpackage -us -uc -b >"$work/build.log" 2>&1) || { tail -40 "$work/build.log" && exit 1; }
dpkg-deb -c "$work"/besad_*.deb >"$work/files"
for part in besad.spdx.json SECURITY.md; do
	grep -q "usr/share/doc/besad/$part" "$work/files" || { echo "the package lacks $part" && exit 1; }
done
for deb in "$work"/besad_*.deb "$work"/besactl_*.deb; do dpkg-deb --info "$deb" | grep -E '^ (Package|Version|Depends)'; done

say "a clean root"
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 /debian/ || echo http://deb.debian.org/debian)}
debootstrap --variant=minbase bookworm "$root" "$mirror" >"$work/debootstrap.log" 2>&1 || { tail -5 "$work/debootstrap.log"; say "NOT RUN: no clean root could be made"; exit 0; }
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc" || { say "NOT RUN: nothing may be mounted here"; exit 0; }
cp "$work"/besad_*.deb "$work"/besactl_*.deb "$root/tmp/"
cp /etc/resolv.conf "$root/etc/" 2>/dev/null || true
cp /etc/apt/apt.conf.d/*prox* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
in_root() { DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }
# What the root has now, for the comparison after the purge. apt's own files and logs are not besad's.
list() { in_root find / -xdev \( -path /proc -o -path /run -o -path /tmp -o -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /var/lib/dpkg \) -prune -o -print | sort; }
in_root sh -c 'apt-get update -q && apt-get install -q -y --no-install-recommends adduser systemd $(dpkg-deb -f /tmp/besad_*.deb Depends | tr -d " " |
	tr , "\n" | sed "s/[(|].*//" | grep -v besactl) $(dpkg-deb -f /tmp/besactl_*.deb Depends | tr -d " " | tr , "\n" | sed "s/[(|].*//")' >"$work/apt.log" 2>&1 ||
	{ tail -20 "$work/apt.log" && exit 1; }
list >"$work/before"

say "install"
in_root sh -c 'apt-get install -q -y --no-install-recommends /tmp/besad_*.deb /tmp/besactl_*.deb' >"$work/apt.log" 2>&1 || { tail -20 "$work/apt.log" && exit 1; }
in_root id besad
in_root besad --version
install -d -o "$(in_root id -u besad)" -g "$(in_root id -g besad)" "$root"/var/lib/besad "$root"/var/lib/besad/{models,data,output}
cp -r demo/tiny-llama "$root/var/lib/besad/models/"
cp demo/calibration.safetensors "$root/var/lib/besad/data/"

say "prune the demo's model through besactl"
chroot --userspec=besad:besad "$root" env STATE_DIRECTORY=/var/lib/besad besad serve --listen 127.0.0.1:0 --port-file /tmp/port \
	--model-root /var/lib/besad/models --data-root /var/lib/besad/data --output-root /var/lib/besad/output >"$work/besad.log" 2>&1 &
daemon=$!
for _ in $(seq 100); do [ -s "$root/tmp/port" ] && break || sleep 0.1; done
in_root env BESAD_URL="http://127.0.0.1:$(cat "$root/tmp/port")" besactl submit --model tiny-llama --sparsity 50% --calibration calibration.safetensors \
	--samples 32 --sequence-length 256 --output pruned --watch
test -s "$root/var/lib/besad/output/pruned/model.safetensors"
kill "$daemon"
wait "$daemon"
daemon=

say "purge, with the state kept"
rm "$root/tmp/port"
in_root sh -c 'BESAD_KEEP_STATE=yes dpkg --purge besad' >"$work/apt.log" 2>&1
test -s "$root/var/lib/besad/output/pruned/model.safetensors"

say "install again, and purge without a trace"
in_root sh -c 'apt-get install -q -y --no-install-recommends /tmp/besad_*.deb && dpkg --purge besad besactl' >"$work/apt.log" 2>&1 || { tail -20 "$work/apt.log" && exit 1; }
list >"$work/after"
if ! diff <(grep -v -E '/(passwd|group|shadow|gshadow|subuid|subgid)-?$' "$work/before") <(grep -v -E '/(passwd|group|shadow|gshadow|subuid|subgid)-?$' "$work/after"); then
	echo "the purge left something behind" >&2
	exit 1
fi
! grep -q besad "$root/etc/passwd" "$root/etc/group"
say "the packages install, work and purge"
