#!/usr/bin/env bash
# The CUDA engine's tests and figures on a machine with a GPU and no toolchain.
#
#   bench/gpu.sh pack [FILE]   builds here, and packs what must travel (default target/gpu/peregrine-gpu.tar.gz)
#   bench/gpu.sh test          where there is a GPU: agreement, memory, errors; with compute-sanitizer also races, for at most
#                              RACECHECK_S seconds (240)
#   bench/gpu.sh bench         where there is a GPU: our times, then those of PyTorch, ONNX Runtime and TensorRT where Python
#                              has torch, onnxruntime-gpu and tensorrt
#
# The package holds this script; on the other machine: tar xf peregrine-gpu.tar.gz && peregrine-gpu/gpu.sh test.
# It needs the NVIDIA driver and NVRTC there; NVRTC in a Python's nvidia/cu13 folder is found. Without a GPU that can be
# used it ends with 3 (from the repository, make test-gpu and bench-gpu only say so).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
limit_mib=40
newest_glibc=2.34
racecheck_s=${RACECHECK_S:-240}

fail() { printf 'gpu.sh: %s\n' "$*" >&2; exit 1; }

# The executable of target $1 by cargo's messages, which name those of other targets as well.
built() { python3 -c 'import json, sys
made = {m["target"]["name"]: m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")}
print(made[sys.argv[1]])' "$1"; }

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
  local name newest
  for name in cuda_gpu gpu; do
    newest=$(objdump -T "$folder/$name" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
    [[ $(printf '%s\n' "GLIBC_$newest_glibc" "$newest" | sort -V | tail -n 1) == "GLIBC_$newest_glibc" ]] ||
      fail "$name asks for $newest, and the machines it is for have glibc $newest_glibc; build it on an older system"
  done
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

run_bench() {
  find_nvrtc
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,temperature.gpu --format=csv || true
  fi
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

case ${1:-} in
  pack) shift; pack "$@" ;;
  test) run_test ;;
  bench) shift; run_bench "$@" ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
