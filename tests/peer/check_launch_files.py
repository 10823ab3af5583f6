"""Reads the launch files given as arguments and tells which node parameters and launch arguments each names.

The packages `launch` and `launch_ros` need not be there: where they are not, stand-ins that accept everything are.
"""

import importlib.util
import json
import pathlib
import re
import sys
import unittest.mock
import xml.etree.ElementTree as ElementTree

PARAMETER = re.compile(r"-p[\"', \[]+(\w+):=")

try:
    import launch  # noqa: F401
except ModuleNotFoundError:
    for name in ("launch", "launch.actions", "launch.substitutions", "launch.launch_description_sources"):
        sys.modules[name] = unittest.mock.MagicMock()


def read_python(path):
    spec = importlib.util.spec_from_file_location(path.stem.replace(".", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate_launch_description()


def read_xml(path):
    root = ElementTree.parse(path).getroot()
    declared = {a.get("name") for a in root.iter("arg")}
    used = set(re.findall(r"\$\(var (\w+)\)", path.read_text()))
    if declared != used:
        sys.exit(f"{path}: declared and used arguments differ: {sorted(declared ^ used)}")


found = {}
for path in map(pathlib.Path, sys.argv[1:]):
    {".py": read_python, ".xml": read_xml}[path.suffix](path)
    found[path.name] = sorted(set(PARAMETER.findall(path.read_text())))
print(json.dumps(found))
