#!/bin/sh
# Tries the packages of a folder as a user would, each in a bare Debian: installs, runs `ocelli demo`
# to its first result, upgrades under a running host, removes, purges. Prints what each took.
#
#   trial.sh PACKAGES WORK [deb|systemd|tar|ubuntu|wheel|image|podman]...
#
# Root, debootstrap and Debian's archive are needed; what else a machine lacks is skipped and said.
# Lines that begin with `first result:` have the seconds from the packages at hand to the first
# result of the demo, all that is installed with it included. WORK keeps the bare systems for the next time.
set -eu

packages=$(cd "$1" && pwd)
mkdir -p "$2"
work=$(cd "$2" && pwd)
shift 2
[ $# -gt 0 ] || set -- deb systemd tar ubuntu wheel image podman

say() { printf '%s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# A bare system, unpacked anew from what was made once; fails where it cannot be had: bare SUITE FOLDER
bare() {
    if [ ! -f "$work/$1.tar" ]; then
        script=
        case $1 in
        # An older debootstrap does not know the release, and has Ubuntu's script under another name.
        noble)
            script=/usr/share/debootstrap/scripts/gutsy
            set -- "$1" "$2" http://archive.ubuntu.com/ubuntu --no-check-gpg --components=main,universe
            ;;
        *) set -- "$1" "$2" http://deb.debian.org/debian ;;
        esac
        suite=$1 folder=$2 archive=$3
        shift 3
        rm -rf "$work/make"
        # shellcheck disable=SC2086
        debootstrap --variant=minbase "$@" "$suite" "$work/make" "$archive" $script >"$work/$suite.log" 2>&1 ||
            return 1
        tar -C "$work/make" -cf "$work/$suite.tar" .
        rm -rf "$work/make"
        set -- "$suite" "$folder"
    fi
    rm -rf "$2"
    mkdir -p "$2"
    tar -C "$2" -xf "$work/$1.tar" || return 1
    # Nothing starts services in it.
    printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d"
    chmod +x "$2/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$2/etc/resolv.conf"
}

# Runs a command in a root of its own, with its own mounts and processes: all end with it.
inside() {
    folder=$1
    shift
    unshare --mount --pid --fork --kill-child sh -c '
        mkdir -p "$0/proc" "$0/sys" "$0/dev" "$0/tmp"
        mount -t proc proc "$0/proc"
        mount --rbind /sys "$0/sys"
        mount --rbind /dev "$0/dev"
        folder=$0
        exec chroot "$folder" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive ORT_DISABLE_TELEMETRY=1 "$@"' "$folder" "$@"
}

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

# Runs the demo until its first result: demo FOLDER WHAT COMMAND...
demo() {
    folder=$1 what=$2
    shift 2
    : >"$work/demo.out"
    began=$(now)
    # Its first line with a rate is its first result; the demo then ends by itself.
    inside "$folder" "$@" demo --seconds 3 >"$work/demo.out" 2>"$work/demo.err" &
    pid=$!
    while ! grep -q 'results/s' "$work/demo.out" 2>/dev/null; do
        kill -0 $pid 2>/dev/null || {
            cat "$work/demo.out" "$work/demo.err" >&2
            fail "$what: the demo ended without a result"
        }
        sleep 0.05
    done
    seconds=$(since "$began")
    wait $pid || fail "$what: the demo failed: $(cat "$work/demo.err")"
    [ -z "$(find "$folder/tmp" -name 'ocelli-demo-*')" ] || fail "$what: the demo left files"
    say "$what: $seconds s from the command to the first result"
}

# first_result WHAT SECONDS-TO-INSTALL, after its demo
first_result() {
    say "first result: $1: $(awk -v a="$2" -v b="$seconds" 'BEGIN { printf "%.1f", a + b }') s ($2 + $seconds)"
}

# All files that are not the system's own notes of what is installed.
listed() {
    (cd "$1" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./tmp -o -path ./var/lib/dpkg \
        -o -path ./var/cache -o -path ./var/log -o -path ./var/lib/apt -o -path ./run -o -path ./root \) -prune -o -print | sort)
}

# A package, and one of an older version: the same files under a lower number.
two_versions() {
    cp "$1" "$2/new.deb"
    rm -rf "$work/old"
    dpkg-deb -R "$1" "$work/old"
    sed -i 's/^Version: .*/Version: 0.0.1/' "$work/old/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone -b "$work/old" "$2/old.deb" >/dev/null
    rm -rf "$work/old"
}

# A camera on the clip that the package brings.
camera() {
    cat <<'CONFIG'
[[cameras]]
id = "kept"
source = "file:/usr/lib/ocelli/demo/bikes.mp4"
pace = "realtime"
repeat = true
pipeline = "object-detect"
CONFIG
}

try_deb() {
    root=$work/deb
    bare bookworm "$root" || fail "debootstrap: see $work/bookworm.log"
    deb=$(ls "$packages"/ocelli_*_amd64.deb)
    two_versions "$deb" "$root/tmp"
    inside "$root" apt-get -q update >"$work/apt.log" 2>&1 || fail "apt-get update: see $work/apt.log"
    # What it depends on stays when it is removed; only what is its own is to go.
    inside "$root" apt-get -qy install --no-install-recommends adduser >>"$work/apt.log" 2>&1
    began=$(now)
    inside "$root" apt-get -qy install --no-install-recommends /tmp/old.deb >>"$work/apt.log" 2>&1 ||
        fail "install: see $work/apt.log"
    took=$(since "$began")
    say "deb: $took s to install with its $(grep -c '^Setting up' "$work/apt.log") packages"
    demo "$root" deb ocelli
    first_result deb "$took"
    # Its config and the folders are the service's, and nobody else reads them.
    inside "$root" stat -c '%n %U:%G %a' /etc/ocelli/ocelli.toml /var/lib/ocelli /var/log/ocelli >"$work/stat"
    for line in '/etc/ocelli/ocelli.toml root:ocelli 640' '/var/lib/ocelli ocelli:ocelli 700' \
        '/var/log/ocelli ocelli:ocelli 700'; do
        grep -qxF "$line" "$work/stat" || fail "deb: not '$line': $(cat "$work/stat")"
    done
    camera >>"$root/etc/ocelli/ocelli.toml"
    inside "$root" setpriv --reuid ocelli --regid ocelli --clear-groups ocelli check --config /etc/ocelli/ocelli.toml ||
        fail "deb: the config is not good"
    # A host with a camera runs on while its files are replaced, and the new one takes over its data.
    cp "$(dirname "$0")/upgrade.sh" "$root/tmp/upgrade.sh"
    inside "$root" sh /tmp/upgrade.sh || fail "deb: the upgrade"
    grep -q 'id = "kept"' "$root/etc/ocelli/ocelli.toml" || fail "deb: the upgrade lost the config"
    inside "$root" dpkg -V ocelli >"$work/verify" 2>&1 || true
    grep -v ' c /etc/ocelli/ocelli.toml' "$work/verify" && fail "deb: files differ from the package's"
    inside "$root" apt-get -qy remove ocelli >>"$work/apt.log" 2>&1 || fail "remove: see $work/apt.log"
    [ -f "$root/etc/ocelli/ocelli.toml" ] && [ -d "$root/var/lib/ocelli" ] ||
        fail "deb: removing took the config or the data"
    [ ! -e "$root/usr/lib/ocelli" ] || fail "deb: removing left programs"
    inside "$root" apt-get -qy purge ocelli >>"$work/apt.log" 2>&1 || fail "purge: see $work/apt.log"
    left=$(listed "$root" | grep -i ocelli || true)
    [ -z "$left" ] || fail "deb: purging left: $left"
    ! grep -q ocelli "$root/etc/passwd" "$root/etc/group" || fail "deb: purging left the user"
    ! [ -e "$root/var/log/ocelli" ] || fail "deb: purging left logs"
    say "deb: installed, upgraded under a running host, removed, purged: nothing is left"
}

# The service under systemd, where a system in namespaces can be booted.
try_systemd() {
    root=$work/systemd
    bare bookworm "$root" || fail "debootstrap: see $work/bookworm.log"
    mkdir -p "$root/trial"
    two_versions "$(ls "$packages"/ocelli_*_amd64.deb)" "$root/trial"
    camera >"$root/trial/cameras.toml"
    cp "$(dirname "$0")/systemd.sh" "$root/trial/inside.sh"
    inside "$root" apt-get -q update >"$work/apt.log" 2>&1 || fail "apt-get update: see $work/apt.log"
    depends=$(dpkg-deb -f "$root/trial/new.deb" Depends | sed 's/([^)]*)//g; s/,/ /g')
    # Names alone, each a word.
    # shellcheck disable=SC2086
    inside "$root" apt-get -qy install --no-install-recommends systemd-sysv dbus $depends >>"$work/apt.log" 2>&1 ||
        fail "systemd: see $work/apt.log"
    cat >"$root/etc/systemd/system/trial.service" <<'UNIT'
[Service]
Type=oneshot
Environment=DEBIAN_FRONTEND=noninteractive
ExecStart=/bin/sh /trial/inside.sh
ExecStopPost=/bin/systemctl --no-block poweroff
UNIT
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -sf ../trial.service "$root/etc/systemd/system/multi-user.target.wants/trial.service"
    timeout 300 sh "$(dirname "$0")/boot.sh" "$root" >"$work/systemd.log" 2>&1 || true
    if [ ! -f "$root/trial/log" ]; then
        say "SKIPPED: the service under systemd: it does not boot here: $(tail -n 1 "$work/systemd.log")"
        return 0
    fi
    [ -f "$root/trial/result" ] || fail "systemd: $(tail -n 60 "$root/trial/log")"
    say 'systemd: started by the install, restarted once by the upgrade, stopped by the removal'
}

# The archive, by tar and zstd, which a bare system lacks: try_tar SUITE
try_tar() {
    root=$work/tar
    bare "$1" "$root" || {
        say "SKIPPED: the archive on $1: no bare system of it can be had here: $(tail -n 1 "$work/$1.log")"
        return 0
    }
    archive=$(ls "$packages"/ocelli-*-x86_64.tar.zst)
    cp "$archive" "$root/tmp/"
    inside "$root" apt-get -q update >"$work/apt.log" 2>&1 || fail "apt-get update: see $work/apt.log"
    began=$(now)
    inside "$root" apt-get -qy install --no-install-recommends zstd >>"$work/apt.log" 2>&1 ||
        fail "zstd: see $work/apt.log"
    inside "$root" tar -C /opt -xf "/tmp/$(basename "$archive")" || fail 'tar does not unpack the archive'
    took=$(since "$began")
    say "tar: $took s to install zstd and unpack"
    rm "$root/tmp/$(basename "$archive")"
    folder=$(basename "$archive" .tar.zst)
    # A place that is none of its own, with a blank: it is relocatable.
    mkdir -p "$root/srv/a place"
    mv "$root/opt/$folder" "$root/srv/a place/ocelli"
    demo "$root" "tar on $1" "/srv/a place/ocelli/bin/ocelli"
    first_result "tar on $1" "$took"
}

try_wheel() {
    root=$work/wheel
    bare bookworm "$root" || fail "debootstrap: see $work/bookworm.log"
    cp "$packages"/ocelli-*.whl "$root/tmp/"
    inside "$root" apt-get -q update >"$work/apt.log" 2>&1
    inside "$root" apt-get -qy install --no-install-recommends python3-venv >>"$work/apt.log" 2>&1 ||
        fail "python3-venv: see $work/apt.log"
    began=$(now)
    inside "$root" sh -c 'python3 -m venv /srv/venv && /srv/venv/bin/pip install -q --no-index /tmp/ocelli-*.whl' ||
        fail "pip install"
    took=$(since "$began")
    say "wheel: $took s to install"
    demo "$root" wheel /srv/venv/bin/ocelli
    first_result wheel "$took"
    inside "$root" /srv/venv/bin/python -m ocelli --version
    inside "$root" /srv/venv/bin/pip uninstall -qy ocelli
    [ -z "$(find "$root/srv/venv" -path '*ocelli*' -print -quit)" ] || fail "wheel: uninstalling left files"
}

# The image: its layers in one folder, its user, and a root that cannot be written to.
try_image() {
    layout=$(ls -d "$packages"/ocelli-*-image)
    root=$work/image
    rm -rf "$root"
    mkdir -p "$root"
    blob() { printf '%s/blobs/sha256/%s' "$layout" "${1#sha256:}"; }
    field() { python3 -c 'import json, sys; print(eval("json.load(open(sys.argv[1]))" + sys.argv[2]))' "$@"; }
    manifest=$(blob "$(field "$layout/index.json" '["manifests"][0]["digest"]')")
    for file in "$layout"/blobs/sha256/*; do
        [ "$(sha256sum "$file" | cut -d' ' -f1)" = "$(basename "$file")" ] || fail "image: $file is another"
    done
    count=$(field "$manifest" '["layers"].__len__()')
    began=$(now)
    for number in $(seq 0 $((count - 1))); do
        tar -C "$root" -xzf "$(blob "$(field "$manifest" "[\"layers\"][$number][\"digest\"]")")"
    done
    took=$(since "$began")
    [ ! -e "$root/bin/sh" ] || fail "image: there is a shell in it"
    cp "$(dirname "$0")/rootless.sh" "$work/rootless.sh"
    unshare --mount --pid --fork --kill-child sh "$work/rootless.sh" "$root" >"$work/image.log" 2>&1 ||
        fail "image: $(tail -n 20 "$work/image.log")"
    grep -E 'image:' "$work/image.log"
    seconds=$(sed -n 's/^seconds //p' "$work/image.log")
    first_result 'image, unpacked' "$took"
    if command -v skopeo >/dev/null; then
        skopeo inspect "oci:$layout" >/dev/null || fail "image: skopeo does not read it"
        say 'image: skopeo reads it'
    fi
}

# The image by an engine, as root and with a root that cannot be written to, in a store of its own.
try_podman() {
    layout=$(ls -d "$packages"/ocelli-*-image)
    command -v podman >/dev/null || {
        say 'SKIPPED: the image under podman: there is none here'
        return 0
    }
    store=$work/podman
    engine() {
        podman --root "$store/root" --runroot "$store/run" --storage-driver vfs --cgroup-manager cgroupfs "$@"
    }
    engine rm --all --force >/dev/null 2>&1 || true
    rm -rf "$store"
    mkdir -p "$store"
    began=$(now)
    image=$(engine pull -q "oci:$layout") || fail 'podman does not take the image'
    took=$(since "$began")
    # Each runtime takes what the other does not: crun no limits above this machine's and no mixed
    # control groups, runc no limits that are not given.
    # shellcheck disable=SC2086
    run() {
        engine $runtime run --read-only --tmpfs /tmp --network host $limits "$@"
    }
    for choice in '' '--runtime runc'; do
        runtime=$choice
        limits="--ulimit nofile=$(ulimit -Hn):$(ulimit -Hn) --ulimit nproc=4096:4096"
        ! run --rm "$image" --version >"$work/podman.log" 2>&1 || break
        runtime=none
    done
    if [ "$runtime" = none ]; then
        say "SKIPPED: the image under podman: it starts no container here: $(tail -n 1 "$work/podman.log")"
        return 0
    fi
    : >"$work/demo.out"
    began=$(now)
    run --rm "$image" demo --seconds 3 >"$work/demo.out" 2>"$work/demo.err" &
    pid=$!
    while ! grep -q 'results/s' "$work/demo.out" 2>/dev/null; do
        kill -0 $pid 2>/dev/null || fail "podman: the demo ended without a result: $(cat "$work/demo.out" "$work/demo.err")"
        sleep 0.05
    done
    seconds=$(since "$began")
    wait $pid || fail "podman: the demo failed: $(cat "$work/demo.err")"
    first_result 'image under podman' "$took"
    # As a service, with the command of its health check.
    name=ocelli-trial-$$
    run -d --name "$name" "$image" >/dev/null
    tries=0
    while ! engine $runtime exec "$name" /usr/bin/ocelli sessions --json >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "podman: it does not become healthy: $(engine logs "$name" 2>&1 | tail -n 20)"
        sleep 0.1
    done
    engine $runtime stop -t 40 "$name" >/dev/null
    [ "$(engine inspect -f '{{.State.ExitCode}}' "$name")" = 0 ] || fail 'podman: it did not end by itself'
    engine $runtime rm --volumes "$name" >/dev/null
    rm -rf "$store"
    say 'image: podman ran the demo and the service, healthy, with a read-only root'
}

for what in "$@"; do
    case $what in
    deb) try_deb ;;
    systemd) try_systemd ;;
    tar) try_tar bookworm ;;
    ubuntu) try_tar noble ;;
    wheel) try_wheel ;;
    image) try_image ;;
    podman) try_podman ;;
    *) fail "there is no package $what" ;;
    esac
done
