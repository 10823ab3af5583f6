#!/usr/bin/env python3
"""What a classifier as teacher is worth to a student of a fifth of its size that names scenes.

    measure.py DISTILL DATA LITE0.onnx FOLDER [SEEDS]

DISTILL is the program, DATA the folder that make_set.py reads, LITE0.onnx ImageNet's EfficientNet-Lite0; FOLDER gets
set and models, and what is in it is not made again. Prints a table with mean and standard deviation over the seeds (3).
"""
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).resolve().parent
GROUPS = ("light", "view")
COMMON = """
steps = {steps}
batch = 32
warmup = 50
weight_decay = 0.05
scene_balance = true

[student]
{size}input = [160, 128]

[student.scene]
light = ["day", "night"]
view = ["vehicle", "fixed", "photo"]

[[data]]
folder = "{train}"
share = 1.0
"""
DISTILLED = """
[teacher]
package = "{teacher}"

[[method]]
kind = "kd"
on = "{on}"
temperature = 2.0
weight = 1.0
"""
FOREIGN = """
[[data]]
folder = "{unlabelled}"
share = 1.0
"""


def main():
    if not 5 <= len(sys.argv) <= 6:
        sys.exit(__doc__)
    distill, data, lite0, folder = sys.argv[1], *map(Path, sys.argv[2:5])
    seeds = range(1, 1 + int(sys.argv[5] if len(sys.argv) > 5 else 3))
    folder = folder.resolve()
    sets = folder / "set"
    if not sets.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-B", HERE / "make_set.py", data, folder / "set.part"], check=True)
        (folder / "set.part").rename(sets)

    def figures(name, kind, text):
        file = folder / f"{name}.json"
        if not file.exists():
            (folder / f"{name}.toml").write_text(f'name = "{name}"\n{text}')
            run = folder / name
            subprocess.run([distill, kind, folder / f"{name}.toml", "--run", run], check=True)
            subprocess.run([distill, "evaluate", sets / "val", "--model", run / kind, "--json", file], check=True)
        return json.loads(file.read_text())

    common = dict(train=sets / "train")
    teacher = f'backbone = "lite0"\ninit = "{lite0.resolve()}"\nseed = 1\n'
    teacher = figures("teacher", "teacher", teacher + COMMON.format(steps=400, size="", **common))
    student = COMMON.format(steps=400, size='size = "n"\n', **common)
    def distilled(on):
        return student + DISTILLED.format(teacher=folder / "teacher/teacher", on=on)

    rows = [
        ("student, labels alone", "alone", student),
        ("student, distilled", "distilled", distilled("scene")),
        ("student, distilled by view alone", "view", distilled("scene.view")),
        ("student, distilled, also on pictures without labels", "foreign",
         distilled("scene") + FOREIGN.format(unlabelled=sets / "unlabelled")),
    ]
    of_rows = [(label, [figures(f"{name}-{seed}", "student", f"seed = {seed}\n{text}") for seed in seeds])
               for label, name, text in rows]
    columns = [f"{group}: {name}" for group in GROUPS for name in ("balanced accuracy", "ECE")]
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for label, found in [("teacher", [teacher]), *of_rows]:
        cells = []
        for group in GROUPS:
            for key in ("balanced_accuracy", "ECE"):
                values = [100 * f["scene"][group][key] for f in found]
                spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{mean(values):.1f}{spread}")
        print(f"| {label} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
