#!/usr/bin/env bash
# open.sh DATA [TEACHERS]: peregrine-s-open, trained on nothing but what may be shipped, in target/open. DATA holds highway,
# street, modes_of_transport, lums_campus and unlabelled as models/students/README.md has them (of unlabelled, drive_ai
# alone is taken), TEACHERS nanodet_416.onnx and centernet_mb3_512.onnx (DATA/../teachers by default). Started again, it
# goes on where it was interrupted.
set -euo pipefail
[[ $# -ge 1 ]] || { echo "open.sh: name the folder of the data: make student-open DATA=/path/to/data" >&2; exit 2; }
data=$(realpath "$1")
teachers=$(realpath "${2:-$data/../teachers}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=models/students
out=target/open
distill=${DISTILL:-target/release/distill}
for need in "$data"/{highway,street,modes_of_transport,lums_campus}/train "$data/unlabelled" "$teachers"/{nanodet_416,centernet_mb3_512}.onnx; do
  [[ -e $need ]] || { echo "open.sh: $need is missing; $here/README.md tells what it is" >&2; exit 1; }
done
mkdir -p "$out" && ln -sfn "$data" "$out/data"

if [[ ! -e $out/drive_ai ]]; then
  rm -rf "$out/drive_ai.new" && mkdir -p "$out/drive_ai.new/images"
  cp "$data"/unlabelled/images/drive_ai* "$out/drive_ai.new/images/"
  mv "$out/drive_ai.new" "$out/drive_ai"
fi
sets=(
  "$out/data/highway/train=$here/highway.toml" "$out/data/street/train=builtin:street"
  "$out/data/modes_of_transport/train=$here/modes_of_transport.toml"
  "$out/data/lums_campus/train=$here/open/lums_campus.toml" "$out/drive_ai"
)
onnx() { echo "models/teachers/$1.toml=$teachers/$1.onnx"; }

[[ -e $out/csp-tiny ]] || "$distill" import "$teachers/nanodet_416.onnx" --description $here/csp_tiny.toml --out $out/csp-tiny
"$distill" soften "${sets[@]}" --teacher "$(onnx nanodet_416)" --teacher "$(onnx centernet_mb3_512)" \
  --student models/peregrine-s-open/train.toml --skip-bad --out $out/soft
"$distill" student models/peregrine-s-open/train.toml --run $out/run

# The same share of the start as peregrine-s has, and an 8-bit twin that loses at most half a point.
val=("$out/data/highway/val=$here/highway.toml" "$out/data/street/val=builtin:street")
package=$out/peregrine-s-open
[[ -e $package-averaged ]] || "$distill" average $out/csp-tiny $out/run/student --shares 0.2,0.8 --out $package-averaged
[[ -e $package ]] || "$distill" resize --model $package-averaged --input 288x224 --name peregrine-s-open --out $package \
  --judge "${val[0]}" --judge "${val[1]}"
[[ -e $package/int8 ]] || "$distill" quantize --model $package --data "${sets[0]}" --data "${sets[3]}" \
  --evaluate "${val[0]}" --evaluate "${val[1]}" --max-drop 0.5 --out $package/int8
