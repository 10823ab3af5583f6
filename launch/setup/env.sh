#!/usr/bin/env bash
# The environment for building and running: `. launch/setup/env.sh` in bash, or `eval "$(launch/setup/env.sh)"`
# in any shell. Run, it prints the exports; what it needs must have been made by setup.sh.
if [[ ${BASH_SOURCE[0]} != "$0" ]]; then
  # In a process of its own, so that nothing but the exports reaches the caller's shell.
  _peregrine_env=$(bash "${BASH_SOURCE[0]}") || { unset _peregrine_env; return 1; }
  eval "$_peregrine_env"
  unset _peregrine_env
  return 0
fi
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for dir in "$python_dir" "$tools_dir" "$messages_dir"; do
  is_done "$dir" || fail "the set-up is not complete ($dir is missing); run launch/setup/setup.sh."
done

put() { printf 'export %s=%q\n' "$1" "$2"; }

# in_front VARIABLE FOLDERS [MORE]: the folders, then what the variable held, less what an earlier env.sh put there, then
# more folders.
in_front() {
  local part result=$2
  local IFS=:
  for part in ${!1:-}; do
    [[ -z $part || $part == "$cache_dir"/* ]] || result+=:$part
  done
  put "$1" "$result${3:+:$3}"
}

if [[ -n $ros_prefixes ]]; then
  prefix=$messages_dir
  libraries=$messages_dir/lib
  # The machine's own CMake is taken where it has one, and its own linters anywhere.
  in_front PATH "$python_dir/bin" "$tools_dir/$cmake_bin:$linters_dir/bin"
  # r2r 0.9.7 does not know Kilted by name. What it asks the name for (the QoS settings) is as in Jazzy.
  put ROS_DISTRO "${ROS_DISTRO/kilted/jazzy}"
else
  prefix=$messages_dir:$python_dir
  libraries=$messages_dir/lib:$python_dir/lib
  in_front PATH "$python_dir/bin:$tools_dir/$cmake_bin" "$linters_dir/bin"
  put ROS_DISTRO jazzy
  # The only one in the wheels; another name left in the user's shell would stop every node.
  put RMW_IMPLEMENTATION rmw_fastrtps_cpp
  # The wheels start each Python twice, to shuffle LD_LIBRARY_PATH. This says that it was done.
  put _ROS_WHEELS_BOOTSTRAP_COMPLETE 1
fi
if is_done "$nvrtc_dir"; then
  libraries=$libraries:$nvrtc_dir
  # build.rs lets the programs find it without this file.
  put PEREGRINE_NVRTC "$nvrtc_dir"
fi
if is_done "$readers_dir"; then
  # Only for the test that reads a recording.
  put PEREGRINE_READERS "$readers_dir"
fi
in_front AMENT_PREFIX_PATH "$prefix"
in_front CMAKE_PREFIX_PATH "$prefix"
in_front LD_LIBRARY_PATH "$libraries"
# site-packages with plain CMake, local/…/dist-packages on Ubuntu's Python.
in_front PYTHONPATH "$(find "$messages_dir" -maxdepth 5 -type d -name peregrine_msgs -path '*-packages/*' -printf '%h')"
put PEREGRINE_PYTHON "$python_dir/bin/python3"

# r2r reads ROS's C headers with libclang, and takes the C compiler's own headers from the clang beside it. Where clang is
# not installed, libclang is PyPI's and the headers are those of the compiler that is there. A libclang that the user
# chose stays.
has_clang() {
  command -v clang >/dev/null &&
    { compgen -G '/usr/lib/llvm-*/lib/libclang[.-][0-9s]*' || compgen -G '/usr/lib*/libclang[.-][0-9s]*' ||
      compgen -G '/usr/lib/*-linux-gnu/libclang[.-][0-9s]*'; } >/dev/null
}
compiler_headers() {
  LC_ALL=C cc -E -x c - -v </dev/null 2>&1 >/dev/null |
    sed -n '/^#include <\.\.\.>/,/^End of/s/^ \(.*\)/-isystem "\1"/p' | tr '\n' ' '
}
case ${LIBCLANG_PATH:-} in
  '')
    if ! has_clang; then
      put LIBCLANG_PATH "$tools_dir/clang/native"
      put BINDGEN_EXTRA_CLANG_ARGS "${BINDGEN_EXTRA_CLANG_ARGS:+$BINDGEN_EXTRA_CLANG_ARGS }$(compiler_headers)"
    fi
    ;;
  # From an earlier env.sh, with the headers.
  "$cache_dir"/*) put LIBCLANG_PATH "$tools_dir/clang/native" ;;
esac

# The library that `distill` opens at run time; one that the user chose stays.
ort=${ORT_DYLIB_PATH:-}
[[ -n $ort && $ort != "$cache_dir"/* ]] ||
  ort=$(find "$python_dir/lib" -path '*/onnxruntime/capi/libonnxruntime.so.*' -print -quit)
put ORT_DYLIB_PATH "$ort"
put ORT_DISABLE_TELEMETRY 1

# Nodes would log to ~/.ros otherwise.
put ROS_LOG_DIR "${ROS_LOG_DIR:-$cache_dir/log/ros}"

# r2r generates Rust for every message package that it finds, unless told which ones (separated by ';',
# with all that they depend on; rosgraph_msgs is for simulated time, the last four r2r itself needs).
filter='std_msgs;geometry_msgs;sensor_msgs;nav_msgs;visualization_msgs;diagnostic_msgs;vision_msgs;foxglove_msgs'
filter+=';peregrine_msgs;lifecycle_msgs;rosgraph_msgs;rcl_interfaces;builtin_interfaces;action_msgs;unique_identifier_msgs'
put IDL_PACKAGE_FILTER "$filter"
