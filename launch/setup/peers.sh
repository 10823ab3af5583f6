#!/usr/bin/env bash
# peers.sh DIR: a Python environment for the tests and the replay camera beside the machine's own ROS.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$setup_dir/python.sh"
dir=$1

# The Python that this ROS was built for, which need not be the first on PATH.
for python in python3 /usr/bin/python3; do
  "$python" -c 'import rclpy, numpy' 2>/dev/null && break
  python=
done
[[ -n $python ]] || fail "no Python here can import rclpy and numpy; install them (Ubuntu: apt-get install ros-${ROS_DISTRO:-<distro>}-rclpy python3-numpy)."

# With the system's packages: rclpy's compiled parts and its numpy belong together. What is installed goes into
# this environment even where the system has it, because env.sh points at onnxruntime's library here.
make_environment "$python" "$dir" --system-site-packages
logged pip-peers "installing Pillow and onnxruntime failed$pip_remedy" \
  "$dir/bin/python" "${pip_install[@]}" --ignore-installed -r "$setup_dir/requirements-peers.txt"
