# shellcheck shell=bash
# shellcheck disable=SC2034
# What the other scripts here share. Sourced, never run.

setup_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo_dir=$(cd "$setup_dir/../.." && pwd)
cache_dir=$(realpath -m "${PEREGRINE_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set: set PEREGRINE_CACHE to a folder for the set-up}/.cache}/peregrine}")
export PIP_CACHE_DIR=${PIP_CACHE_DIR:-$cache_dir/pip}

step() { printf '[setup] %s\n' "$*"; }

# One sentence that says what failed and what to do about it.
fail() {
  printf '[setup] FAILED: %s\n' "$*" >&2
  exit 1
}

# logged NAME SENTENCE COMMAND...: keeps a long command's output out of sight, and shows its end when it fails.
logged() {
  local log=$cache_dir/log/$1.log sentence=$2
  shift 2
  mkdir -p "$cache_dir/log"
  "$@" >"$log" 2>&1 || {
    tail -n 25 "$log" >&2
    fail "$sentence (whole log: $log)"
  }
}

# The folders of a ROS that the user sourced, joined by colons; ours do not count, so that a shell
# that has env.sh in it already gives the same answer as a fresh one.
foreign_prefixes() {
  local part found=()
  local IFS=:
  for part in ${AMENT_PREFIX_PATH:-}; do
    [[ -z $part || $part == "$cache_dir"/* ]] || found+=("$part")
  done
  printf '%s' "${found[*]-}"
}

# A ROS that is installed but not sourced is sourced here: nobody wants 500 MB of wheels beside it.
if [[ -z $(foreign_prefixes) && ${PEREGRINE_ROS:-} != wheels ]]; then
  for distro in jazzy kilted humble; do
    if [[ -f /opt/ros/$distro/setup.bash ]]; then
      set +u # ROS's own scripts read unset variables
      # shellcheck disable=SC1090
      . "/opt/ros/$distro/setup.bash"
      set -u
      break
    fi
  done
fi

# PEREGRINE_ROS=wheels passes over the machine's ROS.
ros_prefixes=
[[ ${PEREGRINE_ROS:-} == wheels ]] || ros_prefixes=$(foreign_prefixes)

digest() { sha256sum | cut -c1-12; }

# Nothing but what a requirements file names, by the digests in it.
pip_install=(-m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes)
pip_remedy="; check that this machine reaches PyPI (or that pip is set to a mirror), then run this again."

# Every folder is named by what went into it, so that a change makes a new one.
# messages_dir is also how Cargo learns of changed messages: r2r generates anew when a prefix is renamed.
if [[ -n $ros_prefixes ]]; then
  python_dir=$cache_dir/peers-$(cat "$setup_dir"/{requirements-peers.txt,peers.sh} <(printf '%s' "$ros_prefixes") | digest)
  ros_key=$ros_prefixes
else
  python_dir=$cache_dir/ros-$(cat "$setup_dir"/{requirements-base.txt,requirements.txt,requirements-peers.txt,ros_from_wheels.sh} | digest)
  ros_key=$python_dir
fi

# Where the machine's own message package $1 lies; empty when it has none.
messages_prefix() {
  local part
  local IFS=:
  for part in $ros_prefixes; do
    [[ -f $part/share/$1/package.xml ]] && printf '%s' "$part" && return
  done
  return 0
}

messages_dir=$cache_dir/messages-$({
  (cd "$repo_dir/msg" && find . -type f -size +0 -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
  cat "$setup_dir/messages.sh"
  printf '%s' "$ros_key" "$(messages_prefix vision_msgs)" "$(messages_prefix foxglove_msgs)"
} | digest)

tools_dir=$cache_dir/tools-$(cat "$setup_dir"/{requirements-build.txt,build_tools.sh} | digest)
cmake_bin=cmake/data/bin # in tools_dir

# Only the GPU and its tests need it: a set-up without network goes on without.
nvrtc_dir=$cache_dir/nvrtc-$(cat "$setup_dir"/{requirements-nvrtc-12.txt,requirements-nvrtc-13.txt,nvrtc.sh} | digest)

readers_dir=$cache_dir/readers-$(cat "$setup_dir"/{requirements-readers.txt,readers.sh} <(printf '%s' "$python_dir") | digest)

linters_dir=$cache_dir/linters-$(cat "$setup_dir"/{requirements-linters.txt,linters.sh} <(printf '%s' "$python_dir") | digest)

done_mark=.complete
is_done() { [[ -f $1/$done_mark ]]; }
