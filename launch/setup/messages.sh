#!/usr/bin/env bash
# messages.sh DIR: builds and installs the message packages into DIR, with plain CMake (no colcon).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$setup_dir/python.sh"
dir=$1

export AMENT_PREFIX_PATH=$dir:${ros_prefixes:-$python_dir}
export CMAKE_PREFIX_PATH=$AMENT_PREFIX_PATH
if [[ -n $ros_prefixes ]]; then # as in env.sh
  export PATH=$python_dir/bin:$PATH:$tools_dir/$cmake_bin
else
  export PATH=$python_dir/bin:$tools_dir/$cmake_bin:$PATH
fi
python_include=$(python_headers "$python_dir/bin/python3")
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1 # see env.sh
build=$dir.build
rm -rf "$build"

build_package() {
  local name=$1
  logged "messages-$name" "building $name failed; if its text in msg/$name is sound, remove $cache_dir and run this again." \
    cmake_build "$name"
}

cmake_build() {
  cmake -S "$repo_dir/msg/$1" -B "$build/$1" -DCMAKE_INSTALL_PREFIX="$dir" -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="$python_dir/bin/python3" -DPython3_INCLUDE_DIR="$python_include" &&
    cmake --build "$build/$1" --parallel "$(nproc)" &&
    cmake --install "$build/$1"
}

if [[ -z $(messages_prefix vision_msgs) ]]; then
  build_package vision_msgs
  # Humble has no type hashes; where there are some, peers with the real package match only the same ones.
  while read -r name hash; do
    json=$dir/share/vision_msgs/msg/$name.json
    [[ ! -f $json ]] || grep -q "RIHS01_$hash" "$json" ||
      fail "vision_msgs/$name differs from the real one on the wire; restore msg/vision_msgs/msg/$name.msg."
  done < <(grep -v '^#' "$repo_dir/msg/vision_msgs/EXPECTED_HASHES")
fi
[[ -n $(messages_prefix foxglove_msgs) ]] || build_package foxglove_msgs
build_package peregrine_msgs
rm -rf "$build"
