#!/usr/bin/env bash
# nvcc.sh: puts nvcc and the libraries of CUDA into the project's cache, from PyPI and without root (1.2 GB), and prints
# the exports to build and run with. Only training on a GPU needs it:
#
#   exports=$(launch/setup/nvcc.sh) && eval "$exports"
#   cargo build --release --features train-cuda --bin distill
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dir=$cache_dir/nvcc-$(cat "$setup_dir"/{requirements-nvcc.txt,nvcc.sh} | digest)
home=$dir/nvidia/cu13
if ! is_done "$dir"; then
  step "downloading nvcc" >&2
  rm -rf "$dir"
  python=$python_dir/bin/python3
  [[ -x $python ]] || python=python3
  logged pip-nvcc "downloading nvcc failed$pip_remedy" \
    "$python" "${pip_install[@]}" --no-cache-dir --target "$dir" -r "$setup_dir/requirements-nvcc.txt"
  # Wheels keep neither modes nor links.
  chmod +x "$home"/bin/* "$home"/nvvm/bin/*
  ln -s lib "$home/lib64"
  for library in "$home"/lib/*.so.*; do
    ln -sf "$(basename "$library")" "${library%%.so.*}.so"
  done
  "$home/bin/nvcc" --version >/dev/null || fail "the nvcc from PyPI does not run on this machine."
  touch "$dir/$done_mark"
fi

# The driver's library by the name that linkers ask for, which only its development package has.
driver=$(ldconfig -p | awk '/libcuda\.so\.1 .*x86-64/ && !found {print $NF; found = 1}')
if [[ -n $driver ]]; then
  ln -sf "$driver" "$home/lib/libcuda.so"
else
  step "note: there is no NVIDIA driver here (libcuda.so.1), so programs can be checked, but not linked" >&2
fi
capability=${CUDA_COMPUTE_CAP:-}
if [[ -z $capability ]] && command -v nvidia-smi >/dev/null; then
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | sed -n '1s/\.//p')
fi

put() { printf 'export %s=%q\n' "$1" "$2"; }
put CUDA_HOME "$home"
put CUDA_COMPUTE_CAP "${capability:-80}"
put PATH "$home/bin:$PATH"
put LD_LIBRARY_PATH "$home/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
