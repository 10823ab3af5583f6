#!/bin/bash
# The container's first process: ROS's environment, then the node with the arguments given to `docker run`.
set -e
for setup in /opt/ros/jazzy/setup.bash /opt/ros/jazzy/install/setup.bash; do
  # shellcheck disable=SC1090
  if [ -f "$setup" ]; then source "$setup"; fi
done
# shellcheck disable=SC1091
source /opt/peregrine/setup.bash
exec /opt/peregrine/lib/peregrine/perception_node "$@"
