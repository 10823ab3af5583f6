#!/usr/bin/env bash
# linters.sh DIR: shellcheck and hadolint, for `make lint` and the tests: programs in DIR/bin.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

logged pip-linters "installing shellcheck and hadolint failed$pip_remedy" \
  "$python_dir/bin/python3" "${pip_install[@]}" --target "$1" -r "$setup_dir/requirements-linters.txt"
