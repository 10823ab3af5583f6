#!/usr/bin/env bash
# selection.sh: whether the frames that `distill select` takes teach a student more than as many drawn at random. The pool is
# ../shared/data/highway/train, whose labels are used only once a frame is taken, as if somebody had labelled it then; the
# student begins from models/peregrine-lite, which was not trained on these roads, and is judged on highway/val. For each seed it is
# trained on the selection and on another random draw, with everything else equal. Started again, it goes on where it was
# interrupted. The figures are in docs/training.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
shared=${PEREGRINE_SHARED:-../shared}
out=${OUT:-target/selection}
distill=${DISTILL:-target/release/distill}
budget=${BUDGET:-150} steps=${STEPS:-150} seeds=${SEEDS:-1 2 3}
[[ -d $shared/data ]] || { echo "selection.sh: $shared is missing: the data and teachers are not part of the product" >&2; exit 1; }
mkdir -p "$out"

dataset='name = "highway"
classes = ["bus", "car", "motorbike", "person", "truck"]
[detection]
bus = "bus"
car = "car"
motorbike = "two-wheeler"
person = "person"
truck = "truck"'
echo "$dataset" > "$out/highway.toml"

teachers=()
for name in nanodet_416 centernet_mb3_512; do teachers+=(--teacher "models/teachers/$name.toml=$shared/teachers/$name.onnx"); done
[[ -f $out/selected/selected.json ]] ||
  "$distill" select $shared/data/highway/train --budget "$budget" --model models/peregrine-lite "${teachers[@]}" --out "$out/selected"
for seed in $seeds; do
  [[ -f $out/random-$seed/selected.json ]] ||
    "$distill" select $shared/data/highway/train --budget "$budget" --strategy random --seed "$seed" --out "$out/random-$seed"
done

judge() { # PACKAGE JSON
  [[ -f $2 ]] || "$distill" evaluate $shared/data/highway/val --config "$out/highway.toml" --model "$1" --input 160x128 --json "$2"
}
train() { # FRAMES RUN SEED
  mkdir -p "$1/labels"
  for image in "$1"/images/*; do
    name=$(basename "$image"); cp "$shared/data/highway/train/labels/${name%.*}.txt" "$1/labels/"
  done
  echo "$dataset" > "$1/dataset.toml"
  cat > "$2.toml" <<END
name = "selection"
seed = $3
input = [160, 128]
steps = $steps
batch = 16
learning_rate = 6e-4
warmup = 15
backbone_rate = 1.0
ema = 0.97
init = "models/peregrine-lite"
segmentation_weight = 0.0
checkpoint_every = 25
[augment]
scale = [0.6, 1.7]
[[data]]
folder = "$1"
share = 1.0
END
  [[ -d $2/student ]] || "$distill" student "$2.toml" --run "$2"
  judge "$2/student" "$2.json"
}
judge models/peregrine-lite "$out/before.json"
for seed in $seeds; do
  train "$out/selected" "$out/run-selected-$seed" "$seed"
  train "$out/random-$seed" "$out/run-random-$seed" "$seed"
done

python3 - "$out" $seeds <<'END'
import json, math, statistics, sys
out, seeds = sys.argv[1], sys.argv[2:]
ap = lambda name: 100 * json.load(open(f"{out}/{name}.json"))["AP50"]
T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}  # Student's t, 97.5 %
def interval(values):
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {T[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values)):.1f}"
selected, random = ([ap(f"run-{arm}-{seed}") for seed in seeds] for arm in ("selected", "random"))
print(f"before: {ap('before'):.1f}")
print("selected:", interval(selected), [round(v, 1) for v in selected])
print("random:  ", interval(random), [round(v, 1) for v in random])
print("difference:", interval([a - b for a, b in zip(selected, random)]))
END
