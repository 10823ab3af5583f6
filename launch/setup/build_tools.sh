#!/usr/bin/env bash
# build_tools.sh DIR: puts CMake and libclang into DIR, from PyPI: CMake for the message packages, libclang for bindgen,
# with which r2r reads ROS's C headers.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
dir=$1

logged pip-build-tools "installing CMake and libclang failed$pip_remedy" \
  "$python_dir/bin/python3" "${pip_install[@]}" --target "$dir" -r "$setup_dir/requirements-build.txt"
"$dir/$cmake_bin/cmake" --version >/dev/null || fail "the CMake from PyPI does not run on this machine."
