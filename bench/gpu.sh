#!/usr/bin/env bash
# The CUDA engine's tests and figures, and trainings, on a machine with a GPU and no toolchain.
#
#   bench/gpu.sh pack [FILE]   builds here, and packs what must travel (default target/gpu/peregrine-gpu.tar.gz)
#   bench/gpu.sh test          where there is a GPU: agreement, memory, errors; with compute-sanitizer also races, for at most
#                              RACECHECK_S seconds (240)
#   bench/gpu.sh bench         where there is a GPU: our times, then those of PyTorch, ONNX Runtime and TensorRT where Python
#                              has torch, onnxruntime-gpu and tensorrt
#
# The package holds this script; on the other machine: tar xf peregrine-gpu.tar.gz && peregrine-gpu/gpu.sh test.
#
#   bench/gpu.sh train-pack CONFIG [FOLDER]
#       builds distill here, and packs it with CONFIG (of distill student) and all that it names into FOLDER
#       (default target/gpu/train), in pieces below 60 MiB. Paths in CONFIG are from the folder where this is started;
#       what lies elsewhere is named through a link. DISTILL=PROGRAM takes one that is built already.
#   gpu.sh train MINUTES [OPTION...]
#       where there is a GPU: trains for so long, or goes on, and then PyTorch with the same network and batch, where
#       Python has torch. Checkpoint, package, logs and images a second are in FOLDER/result, or $OUT/result.
#         --device cuda        in single precision; cuda-half is the default, cpu for a rehearsal
#         --from RESULT        goes on from the result of another machine
#         --peer-seconds N     for PyTorch, 0 for none (default 180); PYTHON=PROGRAM runs it (default python3)
#         --pieces FOLDER      that of train-pack (default: where this script lies, else target/gpu/train)
#
# FOLDER holds this script; it is carried as a whole or piece by piece, and on the other machine: train/gpu.sh train 8.
# All need the NVIDIA driver and NVRTC there; NVRTC in a Python's nvidia/cu13 folder is found. Without a GPU that can be
# used this ends with 3 (from the repository, make test-gpu and bench-gpu only say so).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
limit_mib=40
piece_mib=59
racecheck_s=${RACECHECK_S:-240}
# Of Ubuntu 22.04 and JetPack 6. Programs built on a later system still run there if they call nothing newer.
newest_glibc=2.35

fail() { printf 'gpu.sh: %s\n' "$*" >&2; exit 1; }

# The executable of target $1 by cargo's messages, which name those of other targets as well.
built() { python3 -c 'import json, sys
made = {m["target"]["name"]: m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")}
print(made[sys.argv[1]])' "$1"; }

# Refuses program $1 if it asks for a newer glibc than the machines have.
check_glibc() {
  local newest
  newest=$(objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
  [[ $(printf '%s\n' "GLIBC_$newest_glibc" "$newest" | sort -V | tail -n 1) == "GLIBC_$newest_glibc" ]] ||
    fail "${1##*/} asks for $newest, and the machines it is for have glibc $newest_glibc; build it on an older system"
}

pack() {
  local repo=$here/.. to=${1:-}
  cd "$repo"
  to=${to:-target/gpu/peregrine-gpu.tar.gz}
  local folder=target/gpu/peregrine-gpu
  rm -rf "$folder"
  mkdir -p "$folder"
  local test bench
  test=$(cargo test --release --features cuda --test cuda_gpu --no-run --message-format json | built cuda_gpu)
  bench=$(cargo bench --features cuda --bench gpu --no-run --message-format json | built gpu)
  strip -o "$folder/cuda_gpu" "$test"
  strip -o "$folder/gpu" "$bench"
  check_glibc "$folder/cuda_gpu"
  check_glibc "$folder/gpu"
  # The frames and the student are in the programs.
  cp bench/gpu.sh bench/peers/pytorch_gpu.py bench/peers/onnx_gpu.py "$folder"
  "$folder/gpu" --export "$folder/network"
  tar -C target/gpu -czf "$to" peregrine-gpu
  local mib=$(($(stat -c %s "$to") / 1048576))
  ((mib < limit_mib)) || fail "$to takes $mib MiB; it must stay below $limit_mib"
  echo "$to: $mib MiB"
}

# NVRTC from the wheels of a Python's PyTorch, where the system has none.
find_nvrtc() {
  local found
  ldconfig -p 2>/dev/null | grep -q 'libnvrtc\.so' && return
  found=$(python3 -c 'import glob, os, sys
for path in sys.path:
    for lib in glob.glob(os.path.join(path, "nvidia", "*", "lib")):
        if glob.glob(os.path.join(lib, "libnvrtc.so*")):
            print(lib); sys.exit()' 2>/dev/null) || true
  [[ -z $found ]] || export LD_LIBRARY_PATH=$found${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

run_test() {
  find_nvrtc
  local program=$here/cuda_gpu
  [[ -x $program ]] || { cd "$here/.." && cargo test --release --features cuda --test cuda_gpu -- --nocapture; return; }
  "$here/gpu" --find
  "$program" --nocapture --test-threads 1
  if command -v compute-sanitizer >/dev/null; then
    compute-sanitizer --error-exitcode 9 "$program" --test-threads 1 boxes_are_the_cpus the_student
    # By far slower: one frame from image to boxes, and one run of a network in integers.
    local status=0
    timeout --kill-after 10 "$racecheck_s" compute-sanitizer --tool racecheck --error-exitcode 9 "$program" --test-threads 1 \
      boxes_are_the_cpus a_quantized_student_is_the_cpus_integers || status=$?
    ((status != 124 && status != 137)) || fail "racecheck did not end within $racecheck_s s"
    ((status == 0)) || fail "racecheck ended with $status"
  else
    echo "compute-sanitizer is not installed: skipped"
  fi
}

show_gpu() {
  command -v nvidia-smi >/dev/null || return 0
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,temperature.gpu --format=csv || true
}

run_bench() {
  find_nvrtc
  show_gpu
  local network=$here/network peer=$here/pytorch_gpu.py
  if [[ -x $here/gpu ]]; then
    "$here/gpu" "$@"
  else
    cd "$here/.."
    network=target/gpu/network peer=bench/peers/pytorch_gpu.py
    cargo bench --features cuda --bench gpu -- --export "$network"
    cargo bench --features cuda --bench gpu -- "$@"
  fi
  if python3 -c 'import torch' 2>/dev/null; then
    python3 "$peer" "$network"
  else
    echo "this Python has no torch: PyTorch's times are skipped"
  fi
}

# Where, within a package, distill is started. So deep, since paths in a configuration may begin with ../ up to thrice.
start=files/1/2/3

# Puts a link to $1, a path that the configuration names, at the same place within the staged package $2.
stage_input() {
  local path=$1 stage=$2 within
  case $path in
    *://*) fail "$path is in an object store, which the other machine may not reach: copy it here, and name the copy" ;;
    /*) fail "$path is not below the folder where this is started: name it from here, through a link if it lies elsewhere" ;;
  esac
  within=$(realpath -ms --relative-to=. -- "$path")
  case $within/ in
    ./ | ../ | ../../ | ../../../) fail "$path is the folder where this is started, or above it: put what it holds into a folder of its own" ;;
    ../../../../*) fail "$path is more than three folders above the one where this is started: start it nearer" ;;
  esac
  local at
  at=$(realpath -ms -- "$stage/$start/$within")
  # There already, as part of a folder.
  [[ -e $at ]] && return
  mkdir -p "$(dirname "$at")"
  ln -s "$(realpath -- "$path")" "$at"
}

pack_training() {
  local config=${1:-} to=${2:-$here/../target/gpu/train} program=${DISTILL:-}
  [[ -n $config ]] || fail "train-pack: name the configuration of a distill student, such as train.toml"
  [[ -f $config ]] || fail "$config: there is no such file"
  mkdir -p "$to"
  to=$(cd "$to" && pwd)
  [[ -n $program ]] || program=$(cd "$here/.." &&
    cargo build --release --no-default-features --features distill,cuda --bin distill --message-format json | built distill)
  program=$(realpath -- "$program")
  made=$(mktemp -d "$to/made.XXXXXX")
  trap 'rm -rf "$made"' EXIT
  local inputs path stage=$made/package
  inputs=$("$program" student "$config" --list-inputs)
  mkdir -p "$made/pieces" "$stage/$start" "$stage/peers"
  # In this order a folder comes before what it holds.
  while read -r path; do stage_input "$path" "$stage"; done < <(LC_ALL=C sort -u <<<"$inputs")
  cp "$config" "$stage/student.toml"
  strip -o "$stage/distill" "$program"
  check_glibc "$stage/distill"
  cp "$here"/peers/{train_gpu,torch_step,pytorch_gpu,onnx_gpu}.py "$stage/peers"
  # What is packed is read as it will be there.
  (cd "$stage/$start" && "$stage/distill" student "$stage/student.toml" --list-inputs >/dev/null)
  tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner -chf - . | gzip -1 |
    split -b "${piece_mib}M" -d -a 3 - "$made/pieces/piece-"
  (cd "$made/pieces" && sha256sum piece-*) >"$made/manifest.sha256"
  # The manifest comes last: without it nothing here counts as a package.
  rm -f "$to/manifest.sha256" "$to"/piece-[0-9]*
  mv "$made"/pieces/piece-* "$to"
  cp "$here/gpu.sh" "$to"
  mv "$made/manifest.sha256" "$to"
  echo "$to: $(wc -l <"$to/manifest.sha256") pieces, $(du -cm "$to"/piece-* | tail -n 1 | cut -f 1) MiB in all"
  echo "on the machine with the GPU: ${to##*/}/gpu.sh train MINUTES"
}

# Joins the pieces in folder $1, and unpacks them into its folder unpacked, unless they lie there.
unpack() {
  local pieces=$1 hash name missing=()
  cmp -s "$pieces/manifest.sha256" "$pieces/unpacked/manifest.sha256" && return
  local names=()
  while read -r hash name; do
    names+=("$pieces/$name")
    [[ -f $pieces/$name && $(sha256sum <"$pieces/$name") == "$hash "* ]] || missing+=("$name")
  done <"$pieces/manifest.sha256"
  ((${#missing[@]} == 0)) || fail "missing or damaged in $pieces: ${missing[*]}; carry them again"
  rm -rf "$pieces/unpacked.new" "$pieces/unpacked"
  mkdir "$pieces/unpacked.new"
  cat "${names[@]}" | tar -C "$pieces/unpacked.new" -xzf -
  cp "$pieces/manifest.sha256" "$pieces/unpacked.new"
  mv "$pieces/unpacked.new" "$pieces/unpacked"
}

# Copies folder $1 to $2, which is there as a whole or not at all.
copy_whole() {
  rm -rf "$2.new"
  mkdir -p "$(dirname "$2")"
  cp -r "$1" "$2.new"
  rm -rf "$2"
  mv "$2.new" "$2"
}

train() {
  local minutes=${1:-} device=cuda-half earlier='' peer_seconds=180 pieces=$here
  [[ $minutes =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "train: say for how many minutes, such as train 8"
  shift
  [[ -f $here/manifest.sha256 ]] || pieces=$here/../target/gpu/train
  while (($# > 0)); do
    [[ $# -ge 2 ]] || fail "train: $1 needs a value"
    case $1 in
      --device) device=$2 ;;
      --from) earlier=$2 ;;
      --peer-seconds) peer_seconds=$2 ;;
      --pieces) pieces=$2 ;;
      *) fail "train: there is no option $1; without arguments this tells all" ;;
    esac
    shift 2
  done
  [[ $device =~ ^(cuda-half|cuda|cpu)$ ]] || fail "--device $device: write cuda-half, cuda or cpu"
  [[ $peer_seconds =~ ^[0-9]+$ ]] || fail "--peer-seconds $peer_seconds: write a number of seconds, 0 for none"
  [[ -f $pieces/manifest.sha256 ]] || fail "there is no manifest.sha256 in $pieces: name the folder that train-pack made by --pieces"
  pieces=$(cd "$pieces" && pwd)
  find_nvrtc
  unpack "$pieces"
  local unpacked=$pieces/unpacked run=$pieces/run result=${OUT:-$pieces}/result
  if [[ -n $earlier && -e $run/checkpoint.safetensors ]]; then
    echo "a checkpoint is here already; it goes on from that one, not from $earlier"
  elif [[ -n $earlier ]]; then
    [[ -f $earlier/run/checkpoint.safetensors ]] || fail "--from $earlier: it holds no run/checkpoint.safetensors"
    copy_whole "$earlier/run" "$run"
  fi
  local status=0
  {
    [[ $device == cpu ]] || show_gpu
    cd "$unpacked/$start" &&
      "$unpacked/distill" student "$unpacked/student.toml" --run "$run" --minutes "$minutes" --device "$device"
  } 2>&1 | tee "$pieces/train.log" || status=$?
  # It has said why.
  ((status != 3)) || exit 3
  [[ -e $run/checkpoint.safetensors ]] || exit "$status"
  # At once, so that whatever becomes of the rest nothing is lost.
  copy_whole "$run" "$result/run"
  rm -f "$result/figures.json" "$result/peer.log"
  cp "$pieces/train.log" "$result"
  ((status == 0)) || { echo "gpu.sh: the training has failed; its last checkpoint is in $result" >&2; exit "$status"; }
  compare_training "$unpacked" "$run" "$device" "$peer_seconds" "$result" 2>&1 | tee "$result/peer.log"
  [[ -s $result/figures.json ]] ||
    printf '{ "ours": %s, "pytorch": null }\n' "$(cat "$run/speed.json" 2>/dev/null || echo null)" >"$result/figures.json"
  echo "$result: checkpoint and package in run, images a second in figures.json"
}

# PyTorch on the network, the batch and the kind of device of the training that was run.
compare_training() {
  local unpacked=$1 run=$2 device=${3%-half} seconds=$4 result=$5 python=${PYTHON:-python3}
  [[ -f $run/speed.json ]] || { echo "no step was timed: PyTorch is skipped"; return; }
  ((seconds > 0)) || { echo "PyTorch is left out"; return; }
  "$python" -c 'import torch' 2>/dev/null || { echo "this Python has no torch: PyTorch is skipped"; return; }
  local batch
  batch=$(sed -n 's/^ *"batch": \([0-9]*\).*/\1/p' "$run/speed.json")
  {
    "$unpacked/distill" export --model "$run/student" --no-check --out "$unpacked/network.onnx" \
      --graph "$unpacked/network.json" &&
      "$python" "$unpacked/peers/train_gpu.py" "$unpacked/network.json" "$run/checkpoint.safetensors" --batch "$batch" \
        --seconds "$seconds" --device "$device" --ours "$run/speed.json" --json "$result/figures.json"
  } || echo "PyTorch has failed; the training is whole"
}

case ${1:-} in
  pack) shift; pack "$@" ;;
  test) run_test ;;
  bench) shift; run_bench "$@" ;;
  train-pack) shift; pack_training "$@" ;;
  train) shift; train "$@" ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
