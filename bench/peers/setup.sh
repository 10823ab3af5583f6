#!/usr/bin/env bash
# setup.sh DIR: makes the peers of bench/engines ready in DIR: a Python environment and the tract runner.
# What is there already is left as it is.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${1:?usage: setup.sh DIR}
python=${PEREGRINE_PYTHON:-python3}
# shellcheck source=../../launch/setup/common.sh
. "$here/../../launch/setup/common.sh"
# shellcheck source=../../launch/setup/python.sh
. "$setup_dir/python.sh"

if ! cmp -s "$here/requirements.txt" "$dir/requirements.txt"; then
  echo "[peers] a Python environment in $dir (about 600 MB from PyPI)"
  (unset PYTHONPATH; make_environment "$python" "$dir" --clear)
  "$dir/bin/python" "${pip_install[@]}" -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$dir/requirements.txt"
fi
if ! cmp -s "$here/requirements-torch.txt" "$dir/requirements-torch.txt"; then
  echo "[peers] PyTorch, which PyPI has with all of CUDA alone (5 GB on the disk)"
  if "$dir/bin/python" "${pip_install[@]}" --no-cache-dir -r "$here/requirements-torch.txt"; then
    cp "$here/requirements-torch.txt" "$dir/requirements-torch.txt"
  else
    echo "[peers] PyTorch could not be installed, so it is left out" >&2
  fi
fi
# The project's own settings for cargo are of no use to it. One peer fewer is no reason to measure none.
env -u RUSTFLAGS cargo build --release --quiet --locked --manifest-path "$here/tract/Cargo.toml" --target-dir "$dir/tract" ||
  echo "[peers] tract could not be built, so it is left out" >&2
