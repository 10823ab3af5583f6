#!/usr/bin/env bash
# nvrtc.sh DIR: puts NVRTC, the compiler of CUDA kernels, into DIR. It needs no GPU, and only the tests of the CUDA
# engine need it here. Two files of the wheel are kept; the rest is for other uses.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
dir=$1

download=$dir/download
mkdir -p "$download"
python=$python_dir/bin/python3
[[ -x $python ]] || python=python3
logged pip-nvrtc "downloading NVRTC failed; check that this machine reaches PyPI (or that pip is set to a mirror)." \
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  --dest "$download" -r "$setup_dir/requirements-nvrtc.txt"
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
rm -rf "$download"
