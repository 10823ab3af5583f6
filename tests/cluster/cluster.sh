#!/usr/bin/env bash
# make test-cluster: training by several processes under mpirun and under a Slurm of its own, and the array job of
# `soften`, with the job files of docs/cluster.md. Usage: cluster.sh DISTILL (built with the feature mpi).
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
distill=$(realpath "$1")

packages='openmpi-bin libopenmpi-dev slurm-wlm munge'
for program in mpirun srun sbatch sinfo slurmctld slurmd munged; do
  PATH=$PATH:/usr/sbin command -v $program >/dev/null ||
    { echo "$program is missing: apt-get install $packages" >&2; exit 1; }
done

folder=$(mktemp -d)
# shellcheck source=tests/cluster/slurm.sh
. "$repository/tests/cluster/slurm.sh"
trap 'stop_slurm "$folder/daemons"; rm -rf "$folder"' EXIT
cd "$folder"
# The job files call it by its name.
mkdir bin && ln -s "$distill" bin/distill
export PATH=$folder/bin:$PATH

# A container's user is often root, and two processes may have to share one core.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1

failed() { echo "FAILED: $*" >&2; exit 1; }
passed() { echo "passed: $*"; }

# has FILE TEXT…: every text is in the file.
has() {
  local file=$1 text
  shift
  for text; do
    grep -qF -- "$text" "$file" || { cat "$file" >&2; failed "$file lacks: $text"; }
  done
}

# tells_once FILE: it has one line of an error, and no panic.
tells_once() {
  if [[ $(grep -c '^error: ' "$1") != 1 ]] || grep -q panicked "$1"; then
    cat "$1" >&2
    failed "$1: not one error"
  fi
}

# same_losses RUN OTHER: the logged losses of the runs differ by no more than a thousandth.
same_losses() {
  local run
  for run; do
    sed -n 's/.*"step":\([0-9]*\),.*"loss":\([0-9.e-]*\),.*/\1 \2/p' "$run/log.jsonl" >"$run.losses"
  done
  paste "$1.losses" "$2.losses" | awk '
    { gap = ($2 - $4) / $2; if (gap < 0) gap = -gap; if (gap > worst) worst = gap }
    NF != 4 || $1 != $3 || gap > 1e-3 { bad = 1 }
    END { printf "  losses of %d steps differ by %.1e at most\n", NR, worst; exit bad || NR < 3 }' ||
    { paste "$1.losses" "$2.losses" >&2; failed "the losses of $1 and $2 differ"; }
}

# wait_for FILE
wait_for() {
  local tries
  for ((tries = 0; tries < 1200; tries++)); do
    [[ ! -e $1 ]] || return 0
    sleep 0.1
  done
  failed "$1 has not come"
}

# kill_second RUN: kills rank 1 of the training in that folder.
kill_second() {
  local process
  for process in $(pgrep -f "distill student .*--run $1\$"); do
    if tr '\0' '\n' <"/proc/$process/environ" 2>/dev/null | grep -qxE '(OMPI_COMM_WORLD_RANK|PMIX_RANK)=1'; then
      kill -9 "$process"
      return 0
    fi
  done
  failed "rank 1 of $1 was not found"
}

# resumes RUN WITH: what was said of the start is not of its beginning, and the run has all steps.
resumes() {
  has "$1.said" "$2"
  ! grep -q 'steps 0 to' "$1.said" || failed "$1 began anew"
  same_losses "$1" one
}

echo '== the data, and one process'
mkdir -p data/images data/labels
for stem in highway-00 highway-12 street-20 yard-82; do
  cp "$repository/models/frames/$stem.jpg" data/images
  echo '0 0.5 0.5 0.4 0.4' >"data/labels/$stem.txt"
done
printf 'name = "tiny"\nclasses = ["car"]\n[detection]\ncar = "car"\n' >data/dataset.toml
# Small steps by plain gradients: what rounding makes different grows from step to step, and AdamW begins with the
# gradients' signs.
cat >train.toml <<'END'
steps = 30
batch = 4
optimizer = "sgd"
learning_rate = 0.0005
input = [128, 96]
warmup = 10
checkpoint_every = 10
[[data]]
folder = "data"
share = 1.0
END
student=(distill student train.toml --threads 1 --loader-threads 1)
"${student[@]}" --run one 2>one.said

echo '== mpirun'
mpirun -n 2 "${student[@]}" --run two 2>two.said
has two.said '2 ranks, threads of each: 1' 'steps 0 to 30'
[[ $(grep -c 'steps 0 to 30' two.said) == 1 ]] || failed 'more than one rank tells of the training'
same_losses two one
passed 'two ranks have the losses of one process'

sed 's/^batch.*/batch = 3/' train.toml >uneven.toml
! mpirun -n 2 distill student uneven.toml --run uneven 2>uneven.said || failed 'three images among two ranks'
has uneven.said 'uneven.toml' 'batch = 3 cannot be divided equally among 2 ranks'
tells_once uneven.said
! mpirun -n 2 distill student train.toml --device cuda --run cuda 2>cuda.said || failed 'two ranks on CUDA'
has cuda.said '2 ranks train on CPUs only'
tells_once cuda.said
! OMPI_COMM_WORLD_SIZE=2 distill student train.toml --run announced 2>announced.said || failed 'a rank is alone'
has announced.said '2 ranks were announced (OMPI_COMM_WORLD_SIZE), but MPI connects 1'
passed 'an uneven batch, a GPU and a rank that is alone are refused in one sentence'

mpirun -n 2 "${student[@]}" --run killed 2>killed.said &
wait_for killed/checkpoint.safetensors
kill_second killed
! wait $! || failed 'a training without its rank 1 has ended well'
has killed.said 'exited on signal 9'
! grep -qE 'panicked|^error: ' killed.said || { cat killed.said >&2; failed 'the survivor complains'; }
cp -r killed killed-1
"${student[@]}" --run killed-1 2>killed-1.said
resumes killed-1 'on the CPU'
mpirun -n 2 "${student[@]}" --run killed 2>killed.said
resumes killed '2 ranks'
passed 'a killed rank ends all, and one process or two go on from the checkpoint'

echo '== Slurm'
start_slurm "$folder/daemons"
# job NAME: writes that job file of docs/cluster.md, at the size of this machine.
job() {
  sed -n "/^cat > $1 <<'END'\$/,/^END\$/p" "$repository/docs/cluster.md" | bash
  sed -i -e 's/--array=0-7/--array=0-1/' -e 's/--nodes=4/--nodes=1/' -e 's/--ntasks-per-node=1/--ntasks-per-node=2/' \
    -e 's/^#SBATCH --cpus-per-task=.*/#SBATCH --cpus-per-task=1/' -e 's/--time=.*/--time=30/' \
    -e 's,my/train my/unlabelled,data,' -e "s,models/peregrine-s,$repository/models/peregrine-s," "$1"
}
job train.sbatch
sbatch --wait --output=slurm.said train.sbatch
[[ -e runs/first/student/manifest.json ]] || { cat slurm.said >&2; failed 'no package'; }
has slurm.said '2 ranks'
mv runs/first slurm && same_losses slurm one
passed 'two ranks of srun have the losses of one process'

! srun -n 2 distill student train.toml --run alone 2>alone.said || failed 'srun without MPI'
has alone.said '2 ranks were started by srun without MPI' '--mpi=pmix'
srun --mpi=pmix --kill-on-bad-exit=1 -n 2 "${student[@]}" --run srun 2>srun.said &
wait_for srun/checkpoint.safetensors
kill_second srun
! wait $! || failed 'a training without its rank 1 has ended well'
has srun.said 'Killed'
srun --mpi=pmix -n 2 "${student[@]}" --run srun 2>srun.said
resumes srun '2 ranks'
passed 'a killed rank of srun ends all, and the run is resumed'

job soften.sbatch
sbatch --wait --output=soften-%a.said soften.sbatch
distill merge parts/0 parts/1 --out soft
distill soften data --teacher "$repository/models/peregrine-s" --out whole
diff -r soft whole || failed 'the merged soft targets are not those of one process'
passed 'an array job softens what one process does, byte for byte'
