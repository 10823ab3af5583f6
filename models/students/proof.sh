#!/usr/bin/env bash
# proof.sh DATA [TEACHERS] [ARGUMENTS]: makes what proof.toml names, then runs `distill ablate` with ARGUMENTS in target/proof.
# DATA holds highway, vehicles, street, camvid (train and val) and coco128, TEACHERS nanodet_416.onnx and
# centernet_mb3_512.onnx (DATA/../teachers by default). Started again, it goes on where it was interrupted.
set -euo pipefail
[[ $# -ge 1 ]] || { echo "proof.sh: name the folder of the data: models/students/proof.sh /path/to/data" >&2; exit 2; }
data=$(realpath "$1")
teachers=$(realpath "${2:-$data/../teachers}")
shift $(($# > 1 ? 2 : 1))
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=models/students
out=target/proof
distill=${DISTILL:-target/release/distill}
for need in "$data"/{highway,vehicles,street,camvid}/{train,val} "$data/coco128" "$teachers"/{nanodet_416,centernet_mb3_512}.onnx; do
  [[ -e $need ]] || { echo "proof.sh: $need is missing; $here/README.md tells what it is" >&2; exit 1; }
done
mkdir -p "$out" && ln -sfn "$data" "$out/data"

[[ -e $out/csp-tiny ]] || "$distill" import "$teachers/nanodet_416.onnx" --description $here/csp_tiny.toml --out $out/csp-tiny
[[ -e $out/peregrine-m-544x416 ]] || "$distill" resize --model models/peregrine-m --input 544x416 --out $out/peregrine-m-544x416
sets=(
  "$out/data/highway/train=$here/highway.toml" "$out/data/vehicles/train=builtin:vehicles" "$out/data/street/train=builtin:street"
  "$out/data/camvid/train=builtin:camvid"
)
"$distill" soften "${sets[@]}" --flip --teacher "models/teachers/centernet_mb3_512.toml=$teachers/centernet_mb3_512.onnx" \
  --teacher models/peregrine-m --teacher $out/peregrine-m-544x416:boxes --student models/peregrine-m/train.toml --skip-bad --out $out/soft

exec "$distill" ablate $here/proof.toml --out $out "$@"
