#!/usr/bin/env python3
"""ResNet-18 and EfficientNet-Lite2 as teachers: their figures beside each other, and what each is worth to a student.

    compare.py DISTILL DATA LITE2.onnx FOLDER [SEEDS]

DISTILL is the program, run from the top of the checkout; DATA the folder of models/students/README.md; LITE2.onnx what
lite_to_onnx.py makes. FOLDER gets the models, and what is in it is not trained again. Both teachers have the student's
heads and input, all boxes and masks, and equal steps; ResNet-18 begins at random, since no package has its weights of
ImageNet. Prints a table with mean and standard deviation over the seeds (3).
"""
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

STEPS = {"teacher": 400, "student": 250}
COMMON = """
steps = {steps}
batch = 16
warmup = 50
learning_rate = {rate}
weight_decay = 0.02
clip = 10.0
ema = 0.99
segmentation_weight = 1.0
checkpoint_every = 25
skip_bad = true

[student]
{size}classes = ["person", "two-wheeler", "car", "bus", "truck"]
segmentation = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
input = [192, 128]
"""
SETS = [
    ("highway", "models/students/highway.toml", 0.26),
    ("vehicles", "builtin:vehicles", 0.18),
    ("street", "builtin:street", 0.14),
    ("modes_of_transport", "models/students/modes_of_transport.toml", 0.04),
    ("kitti", "models/students/kitti.toml", 0.04),
    ("camvid", "builtin:camvid", 0.2),
    ("idd_lite", "models/students/idd_lite.toml", 0.14),
]
DISTILLED = """
[teacher]
package = "{teacher}"

[[method]]
kind = "kd"
on = "class"
temperature = 2.0
weight = 1.0

[[method]]
kind = "kd"
on = "segmentation"
temperature = 2.0
weight = 1.0
"""
VAL = ("highway", "vehicles", "street", "camvid")


def main():
    if not 5 <= len(sys.argv) <= 6:
        sys.exit(__doc__)
    distill, data, lite2, folder = sys.argv[1], *(Path(word).resolve() for word in sys.argv[2:5])
    seeds = range(1, 1 + int(sys.argv[5] if len(sys.argv) > 5 else 3))
    folder.mkdir(parents=True, exist_ok=True)
    sets = "".join(f'\n[[data]]\nfolder = "{data / name / "train"}"\nconfig = "{config}"\nshare = {share}\n'
                   for name, config, share in SETS)

    def figures(name, kind, rate, head, size="", more=""):
        """AP50 of each set with boxes and mIoU of camvid/val, in percent, of what is trained unless it has been."""
        (folder / f"{name}.toml").write_text(
            f'name = "{name}"\n{head}{COMMON.format(steps=STEPS[kind], rate=rate, size=size)}{sets}{more}')
        run = folder / name
        if not (run / kind / "manifest.json").exists():
            subprocess.run([distill, kind, folder / f"{name}.toml", "--run", run], check=True)
        found = []
        for val, config, _ in SETS:
            if val not in VAL:
                continue
            file = run / f"{val}.json"
            if not file.exists():
                subprocess.run([distill, "evaluate", f"{data / val / 'val'}={config}", "--model", run / kind,
                                "--json", file], check=True)
            found.append(json.loads(file.read_text()))
        return found

    # A rate that suits each: a backbone from ImageNet learns more slowly than its heads, a new one as fast as they do.
    teachers = {
        "ResNet-18, from random weights": figures("resnet18", "teacher", 1e-3, 'backbone = "resnet18"\nseed = 1\n'),
        "EfficientNet-Lite2, from ImageNet": figures(
            "lite2", "teacher", 2e-3, f'backbone = "lite2"\ninit = "{lite2}"\nbackbone_rate = 0.2\nseed = 1\n'),
    }

    def students(name, more=""):
        return [figures(f"{name}-{seed}", "student", 2e-3, f"seed = {seed}\n", 'size = "n"\n', more) for seed in seeds]

    rows = [(label, [found]) for label, found in teachers.items()]
    rows.append(("student, labels alone", students("alone")))
    for name, label in [("resnet18", "ResNet-18"), ("lite2", "EfficientNet-Lite2")]:
        more = DISTILLED.format(teacher=folder / name / "teacher")
        rows.append((f"student, distilled from {label}", students(f"from-{name}", more)))
    print("| | " + " | ".join(f"{val}/val {'mIoU' if val == 'camvid' else 'AP50'}" for val in VAL) + " |")
    print("|---|" + "---|" * len(VAL))
    for label, found in rows:
        cells = []
        for number, val in enumerate(VAL):
            values = [100 * one[number]["mIoU" if val == "camvid" else "AP50"] for one in found]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}")
        print(f"| {label} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
