#!/bin/sh
# In the bare system: a host with a camera, an upgrade of the package under it, and the new version on
# the same data. There is no systemd here, so this is what the unit does.
set -eu

serve() {
    setpriv --reuid ocelli --regid ocelli --clear-groups \
        /usr/bin/ocelli serve --config /etc/ocelli/ocelli.toml >"/tmp/$1.log" 2>&1 &
    host=$!
}

sessions() { ocelli sessions --json 2>/dev/null || true; }

# Until the camera runs.
running() {
    tries=0
    while ! sessions | grep -q '"state":"running"'; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || { cat /tmp/*.log; exit 1; }
        kill -0 "$host" || { cat /tmp/*.log; exit 1; }
        sleep 0.1
    done
}

serve old
running
before=$(sessions)
dpkg -i /tmp/new.deb >/dev/null
sessions | grep -q '"state":"running"' || { echo 'the camera stopped while files were replaced'; exit 1; }
restarts=$(sessions | grep -o '"restarts":[0-9]*')
[ "$restarts" = '"restarts":0' ] || { echo "the upgrade lost a worker: $restarts"; exit 1; }
kill -TERM "$host"
wait "$host" || { cat /tmp/old.log; exit 1; }
serve new
running
[ "$(dpkg-query -W -f '${Version}' ocelli)" != 0.0.1 ]
kill -TERM "$host"
wait "$host" || { cat /tmp/new.log; exit 1; }
