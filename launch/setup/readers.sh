#!/usr/bin/env bash
# readers.sh DIR: packages of Python that read recordings, for the tests: a folder for PYTHONPATH.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

logged pip-readers "installing the readers of recordings failed$pip_remedy" \
  "$python_dir/bin/python3" "${pip_install[@]}" --target "$1" -r "$setup_dir/requirements-readers.txt"
