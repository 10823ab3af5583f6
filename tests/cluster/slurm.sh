#!/usr/bin/env bash
# Sourced by cluster.sh: a Slurm of one machine, beside any that the machine has.

# start_slurm FOLDER: all its files are there.
start_slurm() {
  local slurm=$1 host user tries port=$((20000 + $$ % 20000))
  host=$(hostname -s)
  user=$(id -un)
  mkdir -p "$slurm/state" "$slurm/spool"
  # munge refuses a key, and a socket, that others may write to.
  chmod 700 "$slurm"
  (umask 077 && head -c 1024 /dev/urandom >"$slurm/munge.key")
  /usr/sbin/munged --force --key-file="$slurm/munge.key" --socket="$slurm/munge.sock" --pid-file="$slurm/munged.pid" \
    --log-file="$slurm/munged.log" --seed-file="$slurm/munge.seed"
  cat >"$slurm/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$slurm/munge.sock
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/spool
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/slurmd.pid
SlurmctldLogFile=$slurm/slurmctld.log
SlurmdLogFile=$slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
# As many as the jobs ask for, whatever the machine has.
SlurmdParameters=config_overrides
END
  export SLURM_CONF=$slurm/slurm.conf
  /usr/sbin/slurmctld
  /usr/sbin/slurmd -N "$host"
  for ((tries = 0; tries < 300; tries++)); do
    [[ $(sinfo --noheader --format=%T 2>/dev/null) != idle ]] || return 0
    sleep 0.1
  done
  cat "$slurm"/*.log >&2
  echo 'Slurm does not start' >&2
  return 1
}

# stop_slurm FOLDER: ends what start_slurm started.
stop_slurm() {
  local name file tries
  for name in slurmd slurmctld munged; do
    file=$1/$name.pid
    [[ ! -e $file ]] || kill "$(<"$file")" || true
  done
  # slurmctld writes its state at its end.
  for ((tries = 0; tries < 100; tries++)); do
    compgen -G "$1/*.pid" >/dev/null || return 0
    sleep 0.1
  done
}
