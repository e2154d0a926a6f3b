#!/bin/sh
# In a bare system with systemd as its first process: the service of the package is started when it
# is installed, restarted once by an upgrade, stopped when it is removed. Writes OK to /trial/result.
set -eu
exec >/trial/log 2>&1

fail() {
    echo "FAILED: $*"
    journalctl -u ocelli --no-pager | tail -n 40
    exit 1
}
running() {
    tries=0
    while ! ocelli sessions --json 2>/dev/null | grep -q '"state":"running"'; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "$1: the camera does not run"
        sleep 0.2
    done
}
answers() {
    tries=0
    while ! ocelli sessions --json >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail 'the host does not answer'
        sleep 0.2
    done
}
pid() { systemctl show --property=MainPID --value ocelli; }

# What keeps services from being started in the other trials.
rm -f /usr/sbin/policy-rc.d
dpkg -i /trial/old.deb
systemctl is-active ocelli || fail 'installing did not start the service'
systemctl is-enabled ocelli || fail 'installing did not enable the service'
# Until it listens, it does not know the signal of a reload.
answers
cat /trial/cameras.toml >>/etc/ocelli/ocelli.toml
systemctl reload ocelli
running 'after the first install'
before=$(pid)
dpkg -i /trial/new.deb
running 'after the upgrade'
after=$(pid)
[ "$before" != "$after" ] || fail 'the upgrade did not restart the service'
[ "$(systemctl show --property=NRestarts --value ocelli)" = 0 ] || fail 'the service fell over'
dpkg -r ocelli
! systemctl is-active ocelli || fail 'removing did not stop the service'
dpkg -P ocelli
! systemctl list-unit-files --no-pager | grep ocelli || fail 'purging left the unit'
! getent passwd ocelli || fail 'purging left the user'
echo OK >/trial/result
