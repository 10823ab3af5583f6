#!/usr/bin/env bash
# ablation.sh [ARGUMENTS]: makes what models/ablation.toml names (soft targets, unlabelled frames) from ../shared, then runs
# `distill ablate` with ARGUMENTS in target/ablation. Started again, it goes on where it was interrupted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
shared=../shared
out=target/ablation
distill=${DISTILL:-target/release/distill}
[[ -d $shared/data ]] || { echo "ablation.sh: $shared is missing: the data and teachers are not part of the product" >&2; exit 1; }

frames=$out/clips
if [[ ! -d $frames ]]; then
  rm -rf "$frames.new" && mkdir -p "$frames.new/images"
  ffmpeg -loglevel error -i $shared/data/clips/car-detection.mp4 -vf "select='not(mod(n,4))'" -vsync vfr -q:v 2 "$frames.new/images/car-%03d.jpg"
  ffmpeg -loglevel error -i $shared/data/clips/highway.mp4 -q:v 2 "$frames.new/images/highway-%03d.jpg"
  echo 'name = "clips"' > "$frames.new/dataset.toml"
  mv "$frames.new" "$frames"
fi

data=()
for set in vehicles/train street/train coco128 camvid/train; do data+=("$shared/data/$set=builtin:${set%%/*}"); done
teachers=()
for name in nanodet_416 centernet_mb3_512; do teachers+=(--teacher "models/teachers/$name.toml=$shared/teachers/$name.onnx"); done
"$distill" soften "${data[@]}" "${teachers[@]}" --out $out/soft

exec "$distill" ablate models/ablation.toml --out $out "$@"
