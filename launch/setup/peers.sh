#!/usr/bin/env bash
# peers.sh DIR: a Python environment for the tests and the replay camera beside the machine's own ROS.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
dir=$1

# The Python that this ROS was built for, which need not be the first on PATH.
for python in python3 /usr/bin/python3; do
  "$python" -c 'import rclpy, numpy' 2>/dev/null && break
  python=
done
[[ -n $python ]] || fail "no Python here can import rclpy and numpy; install them (Ubuntu: apt-get install ros-${ROS_DISTRO:-<distro>}-rclpy python3-numpy)."

# With the system's packages: rclpy's compiled parts and its numpy belong together. What is installed goes into
# this environment even where the system has it, because env.sh points at onnxruntime's library here.
logged venv "making a Python environment failed; install its parts (Debian, Ubuntu: apt-get install python3-venv)." \
  "$python" -m venv --system-site-packages "$dir"
logged pip-peers "installing Pillow and onnxruntime failed; check that this machine reaches PyPI (or that pip is set to a mirror), then run this again." \
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --ignore-installed \
  -r "$setup_dir/requirements-peers.txt"
