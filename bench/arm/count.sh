#!/usr/bin/env bash
# Instructions of one frame on aarch64, by qemu, of the NEON kernels beside portable Rust: count.sh COUNT_FRAMES [PACKAGE …]
# COUNT_FRAMES is the example of that name of the crate student, built for aarch64 (Debian: qemu-user, g++-aarch64-linux-gnu):
#   rustup target add aarch64-unknown-linux-gnu
#   CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc cargo build --release \
#     --target aarch64-unknown-linux-gnu -p peregrine-student --example count_frames
# A count does not depend on the machine, and says nothing of the time that a processor takes for them.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=$1
shift
packages=("$@")
((${#packages[@]})) || packages=(models/peregrine-n models/peregrine-s models/peregrine-m)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cc -shared -fPIC -O2 -o "$folder/count.so" bench/arm/count.c

# Of a run of $3 frames; the name of the instruction set goes to the file `name`.
run() {
  qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu -plugin "$folder/count.so" "$program" "$1" "$2" "$3" \
    >"$folder/name" 2>"$folder/counted"
  awk '$1 == "instructions" { print $2 }' "$folder/counted"
}

# The difference of two runs leaves out loading.
of_a_frame() {
  local one three
  one=$(run "$1" "$2" 1)
  three=$(run "$1" "$2" 3)
  echo $(((three - one) / 2))
}

printf '| network | portable | vectors | | portable / vectors |\n|---|---|---|---|---|\n'
for package in "${packages[@]}"; do
  for precision in f32 int8; do
    path=$package
    [[ $precision == f32 ]] || path=$package/int8
    portable=$(of_a_frame "$path" portable)
    best=$(of_a_frame "$path" best)
    awk -v name="$(basename "$package"), $precision" -v isa="$(cut -d' ' -f2 "$folder/name")" -v p="$portable" -v b="$best" \
      'BEGIN { printf "| %s | %.1f M | %.1f M | %s | %.2f |\n", name, p / 1e6, b / 1e6, isa, p / b }'
  done
done
