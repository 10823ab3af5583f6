#!/usr/bin/env python3
"""Makes a set of scenes from the sets that the shipped students are trained on: who took the picture, and by what light.

    make_set.py DATA OUT

DATA holds street, camvid, idd_lite, kitti, vehicles, modes_of_transport, coco128 and unlabelled; OUT gets train, val
and unlabelled, each with images/ and scene.csv. Labels are by source, and FLIR's light by eye (night.txt). No source
is in both train and val but FLIR, which is split between drives: what is judged is other cameras and other countries.
"""
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Folder and pattern, every nth, view, light (empty: not labelled).
TRAIN = [
    ("camvid/train/images", "*", 3, "vehicle", "day"),
    ("idd_lite/train/images", "*", 8, "vehicle", "day"),
    ("unlabelled/images", "gtsdb_*", 4, "vehicle", "day"),
    ("street/train/images", "*", 4, "fixed", ""),
    ("unlabelled/images", "cn_junction_cams_*", 1, "fixed", ""),
    ("vehicles/train/images", "*", 2, "photo", ""),
    ("unlabelled/images", "bike_riders_*", 2, "photo", ""),
]
VAL = [
    ("unlabelled/images", "nuscenes100_*", 2, "vehicle", "day"),
    ("unlabelled/images", "drive_ai_*", 1, "vehicle", "day"),
    ("kitti/train/images", "*", 1, "vehicle", "day"),
    ("unlabelled/images", "korea_road_*", 1, "vehicle", ""),
    ("unlabelled/images", "msrs_small_*", 1, "", "night"),
    ("unlabelled/images", "uk_motorway_cams_*", 1, "fixed", "day"),
    ("coco128/images", "*", 1, "photo", ""),
    ("modes_of_transport/train/images", "*", 1, "photo", ""),
]
# Sources of neither: what a teacher alone may say something about.
UNLABELLED = [
    ("unlabelled/images", "idd_lite_unlabelled_*", 2, "", ""),
    ("unlabelled/images", "gtsdb_*", 5, "", ""),
    ("unlabelled/images", "cctv_crossings_*", 1, "", ""),
    ("unlabelled/images", "*_signs*", 1, "", ""),
    ("unlabelled/images", "cars_rear_openalpr_*", 1, "", ""),
    ("unlabelled/images", "crowd_shanghai_b_*", 1, "", ""),
    ("highway/train/images", "*", 4, "", ""),
]
# FLIR's frames below this number train; the others, and those of its video, are for val.
FIRST_OF_VAL = 7500


def flir(data, light):
    """Each picture with its light, and whether it is for val."""
    for path in sorted((data / "unlabelled/images").glob("roadscene_flir__*")):
        name = path.name.removeprefix("roadscene_flir__")
        of_val = "video" in name or int(path.stem.rsplit("_", 1)[1]) >= FIRST_OF_VAL
        yield path, "vehicle", {"dusk": ""}.get(light.get(name), light.get(name, "day")), of_val


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    data, out = map(Path, sys.argv[1:])
    lines = [line.split() for line in (HERE / "night.txt").read_text().splitlines() if not line.startswith("#")]
    light = {name: of for of, name in lines}
    for split, sources in ("train", TRAIN), ("val", VAL), ("unlabelled", UNLABELLED):
        taken = []
        for folder, pattern, nth, view, lit in sources:
            found = sorted(path for path in (data / folder).glob(pattern) if path.is_file())
            if not found:
                sys.exit(f"{data / folder}: holds no {pattern}")
            for path in found[::nth]:
                of_street = light.get(f"street/{path.name}", "") if folder.startswith("street/") else ""
                taken.append((path, folder.split("/")[0], view, of_street or lit))
        taken += [(path, "", *label) for path, *label, of_val in flir(data, light) if (split == "val") == of_val
                  and split != "unlabelled"]
        images = out / split / "images"
        images.mkdir(parents=True, exist_ok=True)
        rows = ["image,view,light"]
        for path, source, view, lit in taken:
            name = path.name if source in ("", "unlabelled") else f"{source}-{path.name}"
            shutil.copyfile(path, images / name)
            rows.append(f"{name},{view},{lit}")
        (out / split / "dataset.toml").write_text('name = "scenes"\nclasses = ["none"]\n\n[detection]\nnone = "ignore"\n')
        if split != "unlabelled":
            (out / split / "scene.csv").write_text("\n".join(rows) + "\n")
        count = lambda column: {key: sum(row.split(",")[column] == key for row in rows[1:]) for key in
                                sorted({row.split(",")[column] for row in rows[1:]})}
        print(split, len(taken), count(1), count(2))


if __name__ == "__main__":
    main()
