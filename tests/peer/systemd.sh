#!/usr/bin/env bash
# systemd.sh UNIT NODE ANSWER: under a systemd of its own, which is process 1 of a new namespace, starts the node by the unit
# that is shipped, stops its process as a hang would, waits until systemd has killed and restarted it, and ends it.
# Writes one JSON object to ANSWER. The environment is handed to the node. Needs root, and a machine without systemd.
set -euo pipefail
unit=$1 node=$2 answer=$3

if [[ ${4:-} != inside ]]; then
  exec timeout --signal KILL 120 unshare --pid --fork --mount --mount-proc --kill-child=KILL bash "$0" "$@" inside
fi
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
units=/run/systemd/system
mkdir -p "$units/peregrine.service.d"
cp "$unit" "$units/peregrine.service"

# What is of the machine: paths, the user, the processors, and a shorter limit.
{
  printf '[Unit]\nAfter=\nWants=\nDefaultDependencies=no\n[Service]\n'
  printf 'ExecStart=\nExecStart=%s --ros-args -p device:=cpu\n' "$node"
  printf 'User=root\nSupplementaryGroups=\nAllowedCPUs=\nProtectHome=no\nProtectSystem=no\nPrivateTmp=no\nTimeoutStartSec=60\nWatchdogSec=3\n'
  printf 'StandardOutput=null\nStandardError=null\n'
  env | grep -E '^(ROS_|RMW_|AMENT_|LD_LIBRARY_PATH|PYTHONPATH|FAST|PEREGRINE_|_ROS|HOME|PATH)' |
    sed 's/%/%%/g; s/.*/Environment="&"/'
} >"$units/peregrine.service.d/machine.conf"

cat >"$units/asked.service" <<UNIT
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/bash $units/ask.sh
UNIT
cat >"$units/asked.target" <<UNIT
[Unit]
DefaultDependencies=no
AllowIsolate=yes
Wants=asked.service
UNIT
cat >"$units/ask.sh" <<'SCRIPT'
of() { systemctl show --value -p "$1" peregrine; }
until_true() { for _ in {1..300}; do "$@" && return; sleep 0.1; done; return 1; }
systemctl start peregrine && started=true || started=false
first=$(of MainPID) type=$(of Type)
kill -STOP "$first"
was_restarted() { [[ $(of NRestarts) == 1 && $(of ActiveState) == active ]]; }
until_true was_restarted && restarted=true || restarted=false
second=$(of MainPID) restarts=$(of NRestarts) # which a stop sets to 0
systemctl stop peregrine
printf '{"type": "%s", "started": %s, "restarted": %s, "restarts": %s, "another": %s, "result": "%s", "code": %s}\n' \
  "$type" "$started" "$restarted" "$restarts" "$([[ $first != "$second" ]] && echo true || echo false)" \
  "$(of Result)" "$(of ExecMainStatus)" >ANSWER.part
mv ANSWER.part ANSWER
systemctl exit
SCRIPT
sed -i "s|ANSWER|$answer|g" "$units/ask.sh"
container=peregrine exec /lib/systemd/systemd --system --unit=asked.target --log-target=null
