# shellcheck shell=bash
# shellcheck disable=SC2154 # variables of common.sh
# The parts of Python that Debian and Ubuntu keep in packages of their own, python3-venv and python3-dev, are got without
# root where they are not installed. Sourced after common.sh.

# make_environment PYTHON DIR [OPTIONS OF venv]: a Python environment that has pip.
make_environment() {
  local python=$1 dir=$2 wheel
  shift 2
  if "$python" -c 'import ensurepip' 2>/dev/null; then
    logged venv "making a Python environment with $python failed." "$python" -m venv "$@" "$dir"
    return
  fi
  logged venv "making a Python environment with $python failed." "$python" -m venv --without-pip "$@" "$dir"
  wheel=$("$python" "$setup_dir/fetch_pip.py" "$dir") ||
    fail "$python has no ensurepip, and pip can't be downloaded; install it (Debian, Ubuntu: apt-get install python3-venv)."
  # A wheel of pip is a program that can install itself.
  logged pip "installing pip into $dir failed; install Python's own (Debian, Ubuntu: apt-get install python3-venv)." \
    "$dir/bin/python" "$wheel/pip" install --quiet --no-index --no-deps --ignore-installed "$wheel"
  rm "$wheel"
}

# borrowed PACKAGE: prints the folder into which that Debian package was unpacked; fails where it can't be had.
borrowed() {
  local dir=$cache_dir/debian/$1
  if ! is_done "$dir"; then
    rm -rf "$dir"
    mkdir -p "$dir" "$cache_dir/log"
    step "$1 is not installed: unpacking it into $dir" >&2
    download_package "$dir" "$1" >"$cache_dir/log/apt-$1.log" 2>&1 || return 1
    dpkg-deb -x "$dir"/*.deb "$dir" || return 1
    rm -f "$dir"/*.deb
    touch "$dir/$done_mark"
  fi
  printf '%s' "$dir"
}

# With the machine's lists of packages, or, where they are absent or out of date, with lists of our own.
download_package() (
  cd "$1" || exit
  apt-get download "$2" && exit
  mkdir -p "$cache_dir/debian/lists/partial" "$cache_dir/debian/archives/partial" || exit
  own=(-o "Dir::State::Lists=$cache_dir/debian/lists" -o "Dir::Cache=$cache_dir/debian")
  apt-get "${own[@]}" update && apt-get "${own[@]}" download "$2"
)

# python_headers PYTHON: prints the folder that has its Python.h.
python_headers() {
  local include version dir
  include=$("$1" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
  if [[ ! -f $include/Python.h ]]; then
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    dir=$(borrowed "libpython$version-dev") ||
      fail "Python's headers are not in $include, and libpython$version-dev can't be downloaded; install it (Debian, Ubuntu: apt-get install libpython$version-dev)."
    include=$dir/usr/include/python$version
    # The one there only includes that of the architecture, by a path from /usr/include.
    cp "$dir/usr/include/"*-linux-gnu*"/python$version/pyconfig.h" "$include/"
  fi
  printf '%s' "$include"
}
