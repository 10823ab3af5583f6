#!/usr/bin/env bash
# nvrtc.sh DIR [12|13]: puts NVRTC, the compiler of CUDA kernels, into DIR: that of the named CUDA, or the one that fits
# the driver here. It needs no GPU. Two files of the wheel are kept; the rest is for other uses.
# nvrtc.sh --which: prints 12 or 13, the CUDA whose NVRTC fits the driver.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# A driver runs what the NVRTC of its own major version or of an older one compiled. Without a driver there are only
# tests, which compile for all architectures.
which_fits() {
  local driver
  driver=$("$setup_dir/driver.sh")
  case $driver in
    12.*) echo 12 ;;
    [0-9].* | 1[01].*)
      step "note: the NVIDIA driver here is for CUDA $driver, and the GPU is used with 12 or later; update the driver" >&2
      echo 13
      ;;
    *) echo 13 ;;
  esac
}

if [[ $1 == --which ]]; then
  which_fits
  exit
fi
dir=$1 major=${2:-$(which_fits)}

download=$dir/download
mkdir -p "$download"
python=$python_dir/bin/python3
[[ -x $python ]] || python=python3
logged pip-nvrtc "downloading NVRTC failed$pip_remedy" \
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
  --dest "$download" -r "$setup_dir/requirements-nvrtc-$major.txt"
logged unzip-nvrtc "unpacking NVRTC failed; remove $dir and run this again." \
  "$python" - "$download" "$dir" <<'PYTHON'
import pathlib, sys, zipfile
download, to = map(pathlib.Path, sys.argv[1:])
for wheel in download.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            file = pathlib.PurePosixPath(name).name
            if file.startswith(("libnvrtc.so", "libnvrtc-builtins.so")):
                (to / file).write_bytes(archive.read(name))
if not list(to.glob("libnvrtc.so.*")):
    sys.exit("the wheel holds no libnvrtc.so")
PYTHON
# By this name it is looked for first: that of a toolkit which does not fit the driver would be found otherwise.
ln -sf "libnvrtc.so.$major" "$dir/libnvrtc.so"
rm -rf "$download"
