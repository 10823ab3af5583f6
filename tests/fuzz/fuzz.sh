#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET...]: fuzzes each target for its share of the time, at low priority, and says how many inputs were
# tried. Corpora are kept in target/fuzz/corpus; what was found lies in target/fuzz/found and ends it with code 1.
# Needs nothing but a C++ compiler: libFuzzer is compiled from its crate, and rustc has the instrumentation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=$1
shift

# What is counted is each edge of the control flow, and what is compared.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares" \
  cargo build --profile fuzz --target x86_64-unknown-linux-gnu -p peregrine-fuzz --features libfuzzer
fuzz=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/fuzz/fuzz
out=target/fuzz
mkdir -p "$out/found"
readarray -t targets < <(FUZZ_SEEDS=$out/seeds "$fuzz")
(($# == 0)) || targets=("$@")

total=0 failed=0
for target in "${targets[@]}"; do
  corpus=$out/corpus/$target
  mkdir -p "$corpus"
  log=$out/$target.log
  # An input of a few kilobytes may take neither seconds nor a gigabyte, nor ask for half of one at once (main.rs).
  if ! FUZZ_TARGET=$target nice -n 19 "$fuzz" "$corpus" "$out/seeds/$target" -max_total_time=$((seconds / ${#targets[@]} + 1)) \
    -timeout=5 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1 -verbosity=1 \
    -artifact_prefix="$out/found/$target-" >"$log" 2>&1; then
    failed=1
    echo "$target: FOUND something, see $log"
    grep -E 'panicked|ERROR: libFuzzer|Test unit written' "$log" | head -4 || true
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
  coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -1 || true)
  printf '%-20s %12d inputs, %s\n' "$target" "${runs:-0}" "$coverage"
  total=$((total + ${runs:-0}))
done
echo "$total inputs in all"
exit $failed
