#!/bin/sh
# Boots a root with systemd as its first process, in namespaces of its own, until it powers off:
# boot.sh ROOT. systemd-nspawn would ask the systemd of this machine, which need not run.
set -eu
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -euc '
    cd "$0"
    mount --make-rprivate /
    mount --bind . .
    cd "$0"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 none run
    mount -t tmpfs -o mode=1777 none tmp
    mount -t tmpfs -o mode=755 none dev
    for device in null zero full random urandom tty; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/shm dev/pts
    mount -t tmpfs -o mode=1777 none dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mkdir -p old
    pivot_root . old
    umount -l /old
    # systemd asks by this variable whether it is in a container.
    exec env -i container=trial PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd </dev/null
' "$1"
