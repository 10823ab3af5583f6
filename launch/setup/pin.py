#!/usr/bin/env python3
"""Writes the digests of PyPI's files into requirements files, so that pip takes no others:

    launch/setup/pin.py launch/setup/requirements*.txt

Each line names one version, `name==version`, with or without a marker. Kept are the files that the set-up may ask for:
wheels for CPython 3.10 to 3.13 and glibc on x86-64 and aarch64, and the source where there are none.
"""

import json
import pathlib
import re
import sys
import urllib.request

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)")
# name-version(-build)-python-abi-platforms.whl
WHEEL = re.compile(r"-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl$")
PYTHONS = [f"cp3{minor}" for minor in range(10, 14)]


def fits(wheel):
    parts = WHEEL.search(wheel)
    pythons, abi, platform = parts["python"].split("."), parts["abi"], parts["platform"]
    on = platform == "any" or ("manylinux" in platform and re.search(r"x86_64|aarch64", platform))
    if abi == "abi3":
        by = any(int(p[3:]) <= 13 for p in pythons if p.startswith("cp3"))
    elif abi == "none":
        by = any(p.startswith("py3") or p in PYTHONS for p in pythons)
    else:
        by = any(p in PYTHONS and p == abi for p in pythons)
    return bool(on and by)


def digests(name, version):
    with urllib.request.urlopen(f"https://pypi.org/pypi/{name}/json", timeout=60) as answer:
        files = json.load(answer)["releases"].get(version, [])
    wheels = [f for f in files if f["packagetype"] == "bdist_wheel" and fits(f["filename"])]
    chosen = wheels or [f for f in files if f["packagetype"] == "sdist"]
    if not chosen:
        sys.exit(f"pin: PyPI has no file of {name} {version} for these machines")
    return sorted(f["digests"]["sha256"] for f in chosen)


def pinned(text):
    for line in text.splitlines():
        line = line.removesuffix("\\").rstrip()
        if line.startswith("    --hash="):
            continue
        requirement = REQUIREMENT.match(line)
        if requirement is None:
            yield line
            continue
        yield " \\\n".join([line, *(f"    --hash=sha256:{d}" for d in digests(**requirement.groupdict()))])


for path in map(pathlib.Path, sys.argv[1:]):
    path.write_text("\n".join(pinned(path.read_text())) + "\n")
