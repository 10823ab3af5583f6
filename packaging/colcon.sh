#!/usr/bin/env bash
# colcon.sh [--with-messages] [CMAKE ARGUMENTS]: builds the node with colcon, as in any ROS workspace, and shows that what it
# installed is found as `ros2 run peregrine perception_node` finds it, and starts. In an environment made by
# launch/setup/env.sh. Cargo builds in target/ unless -DCARGO_TARGET_DIR says otherwise.
#
# With --with-messages peregrine_msgs is built by colcon too; the node is then generated and compiled for that copy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
workspace=$PWD/target/colcon

# A package in a package is not looked for. Those of which colcon knows it wants to build itself.
paths=(.)
[[ ${1:-} == --with-messages ]] && { paths+=(msg/peregrine_msgs); shift; }

# colcon, where it is not installed, from PyPI.
if ! command -v colcon >/dev/null; then
  if [[ ! -x $workspace/python/bin/colcon ]]; then
    (
      # shellcheck source=../launch/setup/common.sh
      . launch/setup/common.sh
      # shellcheck source=../launch/setup/python.sh
      . "$setup_dir/python.sh"
      make_environment "${PEREGRINE_PYTHON:-python3}" "$workspace/python"
      "$workspace/python/bin/python" "${pip_install[@]}" -r "$setup_dir/requirements-base.txt"
      "$workspace/python/bin/python" "${pip_install[@]}" --no-build-isolation --no-binary empy \
        -r packaging/requirements-colcon.txt
    )
  fi
  # Not the ROS environment's modules, whose versions are others.
  colcon() { PYTHONPATH='' "$workspace/python/bin/colcon" "$@"; }
fi

colcon --log-base "$workspace/log" build --build-base "$workspace/build" --install-base "$workspace/install" \
  --base-paths "${paths[@]}" --event-handlers console_direct+ --cmake-args "-DCARGO_TARGET_DIR=$PWD/target" "$@"

set +u
# shellcheck disable=SC1091 # made by colcon
. "$workspace/install/local_setup.bash"
set -u

# How ros2 run finds a program: the package's prefix by the resource index, then lib/<package>/<program>.
program=$(python3 -c 'if True:
    import os, sys
    from ament_index_python.packages import get_package_prefix
    print(os.path.join(get_package_prefix("peregrine"), "lib", "peregrine", "perception_node"))')
[[ $program == "$workspace"/install/* && -x $program ]] || { echo "colcon.sh: $program is not what was installed" >&2; exit 1; }
share=$(python3 -c 'from ament_index_python.packages import get_package_share_directory as f; print(f("peregrine"))')
[[ -f $share/launch/perception.launch.py && -f $share/package.xml ]] || { echo "colcon.sh: $share lacks the launch files" >&2; exit 1; }

# It starts from there, with the installed parameter file, and ends well when it is asked to.
printed=$(timeout --signal INT --kill-after 20 10 "$program" --ros-args --params-file "$share/launch/perception.yaml") || true
echo "$printed"
[[ $printed == *"images arrived"* ]] || { echo "colcon.sh: $program did not start and end as it should" >&2; exit 1; }
command -v ros2 >/dev/null && ros2 pkg executables peregrine
echo "ros2 run peregrine perception_node  is  $program"
