#!/bin/sh
# The image's root, read-only, as its user: rootless.sh ROOT
set -eu
root=$1
mkdir -p "$root/proc" "$root/dev" "$root/sys" "$root/tmp"
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# What an engine gives: volumes, and a /tmp.
for folder in tmp var/lib/ocelli var/log/ocelli; do
    mount -t tmpfs -o mode=0700,uid=65532,gid=65532 none "$root/$folder"
done
as_user() {
    chroot --userspec=65532:65532 "$root" "$@"
}
export HOME=/var/lib/ocelli TMPDIR=/tmp PATH=/usr/bin:/bin:/usr/sbin:/sbin
said=$(mktemp)
began=$(date +%s.%N)
as_user /usr/bin/ocelli demo --seconds 3 >"$said" &
demo=$!
while ! grep -q 'results/s' "$said"; do
    kill -0 "$demo" || { echo 'the demo ended without a result'; exit 1; }
    sleep 0.05
done
awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN { printf "seconds %.1f\n", b - a }'
wait "$demo"
rm "$said"
echo 'image: the demo ran with a read-only root'
# Not through the function: its process is to be the host's.
chroot --userspec=65532:65532 "$root" /usr/bin/ocelli serve --config /etc/ocelli/ocelli.toml >/dev/null 2>&1 &
host=$!
tries=0
while ! as_user /usr/bin/ocelli sessions --json >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { echo 'the health check does not succeed'; exit 1; }
    sleep 0.1
done
echo 'image: the health check succeeds'
kill "$host"
wait "$host"
