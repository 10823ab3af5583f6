#!/usr/bin/env bash
# students.sh DATA [TEACHERS]: the shipped students from nothing, in target/students. DATA is laid out as in
# models/students/README.md; TEACHERS holds nanodet_416.onnx and centernet_mb3_512.onnx (DATA/../teachers by default).
# Started again, it goes on where it was interrupted.
set -euo pipefail
[[ $# -ge 1 ]] || { echo "students.sh: name the folder of the data: make students DATA=/path/to/data" >&2; exit 2; }
data=$(realpath "$1")
teachers=$(realpath "${2:-$data/../teachers}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=models/students
out=target/students
distill=${DISTILL:-target/release/distill}
for need in "$data"/{highway,vehicles,street,modes_of_transport,kitti,camvid,idd_lite}/train "$data"/{coco128,unlabelled} "$teachers"/{nanodet_416,centernet_mb3_512}.onnx; do
  [[ -e $need ]] || { echo "students.sh: $need is missing; $here/README.md tells what it is" >&2; exit 1; }
done
mkdir -p "$out" && ln -sfn "$data" "$out/data"

# step NAME COMMAND…: unless its output is there; what was cut short has no such name yet.
step() {
  local made=$out/$1
  shift
  [[ -e $made ]] || { echo "== $made" && "$@"; }
}

# Every second image of coco128 is trained on, so that the rest can judge.
halves() {
  local new=$out/coco64.new i=0
  rm -rf "$new" && mkdir -p "$new"/{train,val}/{images,labels}
  for image in "$data"/coco128/images/*.jpg; do
    local half=$new/train label
    ((i++ % 2)) && half=$new/val
    label=$data/coco128/labels/$(basename "$image" .jpg).txt
    cp "$image" "$half/images/"
    [[ ! -e $label ]] || cp "$label" "$half/labels/"
  done
  mv "$new" "$out/coco64"
}

sets=(
  "$out/data/highway/train=$here/highway.toml" "$out/data/vehicles/train=builtin:vehicles" "$out/data/street/train=builtin:street"
  "$out/data/modes_of_transport/train=$here/modes_of_transport.toml" "$out/data/kitti/train=$here/kitti.toml"
  "$out/data/camvid/train=builtin:camvid" "$out/data/idd_lite/train=$here/idd_lite.toml" "$out/data/unlabelled"
)
onnx() { echo "models/teachers/$1.toml=$teachers/$1.onnx"; }

step coco64 halves
step csp-tiny "$distill" import "$teachers/nanodet_416.onnx" --description $here/csp_tiny.toml --out $out/csp-tiny
"$distill" soften "${sets[@]}" --teacher "$(onnx nanodet_416)" --teacher "$(onnx centernet_mb3_512)" \
  --student $here/first.toml --skip-bad --out $out/soft-first
"$distill" student $here/first.toml --run $out/first
step first-averaged "$distill" average $out/csp-tiny $out/first/student --out $out/first-averaged
step first-416x320 "$distill" resize --model $out/first-averaged --input 416x320 --out $out/first-416x320
"$distill" soften "${sets[@]}" "$out/coco64/train=builtin:coco128" --teacher $out/first-416x320:boxes --teacher models/peregrine-lite:masks \
  --teacher "$(onnx centernet_mb3_512)" --student $here/second.toml --skip-bad --out $out/soft-second
"$distill" student $here/second.toml --run $out/second
step second-averaged "$distill" average $out/csp-tiny $out/second/student --shares 0.3,0.7 --out $out/second-averaged
for size in 320x256 416x320 544x416; do
  step second-$size "$distill" resize --model $out/second-averaged --input $size --out $out/second-$size
done
"$distill" soften "${sets[@]}" "$out/coco64/train=builtin:coco128" --flip --teacher "$(onnx centernet_mb3_512)" \
  --teacher $out/second-416x320 --teacher $out/second-544x416:boxes --student models/peregrine-m/train.toml --skip-bad --out $out/soft-third
"$distill" student models/peregrine-m/train.toml --run $out/third
"$distill" student models/peregrine-s/train.toml --run $out/fourth
"$distill" student models/peregrine-n/train.toml --run $out/fifth

# ship NAME RUN SHARES WIDTHxHEIGHT: the package and its 8-bit twin, judged on images that no training has seen.
val=("$out/data/highway/val=$here/highway.toml" "$out/data/vehicles/val=builtin:vehicles" "$out/data/street/val=builtin:street"
  "$out/data/camvid/val=builtin:camvid" "$out/coco64/val=builtin:coco128")
ship() {
  local package=$out/$1 judge=() data=()
  for set in "${val[@]}"; do judge+=(--judge "$set") data+=(--evaluate "$set"); done
  step "$1-averaged" "$distill" average $out/csp-tiny "$out/$2/student" --shares "$3" --out "$package-averaged"
  step "$1" "$distill" resize --model "$package-averaged" --input "$4" --name "$1" --out "$package" "${judge[@]}"
  for set in "${sets[@]:0:2}" "${sets[5]}"; do data+=(--data "$set"); done
  step "$1/int8" "$distill" quantize --model "$package" "${data[@]}" --max-drop 0.5 --out "$package/int8"
}
ship peregrine-m third 0.3,0.7 416x320
ship peregrine-s fourth 0.2,0.8 288x224
ship peregrine-n fifth 0.2,0.8 192x128
