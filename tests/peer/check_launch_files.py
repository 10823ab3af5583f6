"""Reads the launch files given as arguments and reports the parameters, remapped topics and programs that each names.

The packages `launch` and `launch_ros` are not needed: mocks record what the launch files pass to them.
"""

import importlib.util
import json
import pathlib
import re
import sys
import unittest.mock
import xml.etree.ElementTree as ElementTree

MODULES = (
    "launch", "launch.actions", "launch.events", "launch.substitutions", "launch.launch_description_sources",
    "launch_ros", "launch_ros.actions", "launch_ros.event_handlers", "launch_ros.events", "launch_ros.events.lifecycle",
)
ARGUMENT = re.compile(r"^(\w[\w/]*):=")


class Configuration(str):
    """What LaunchConfiguration("x") stands for."""


def read_python(path):
    for name in MODULES:
        sys.modules[name] = unittest.mock.MagicMock()
    sys.modules["launch.substitutions"].LaunchConfiguration = lambda name: Configuration(f"$({name})")
    declared, used = set(), set(re.findall(r"(?:LaunchConfiguration|argument)\(\"(\w+)\"\)", path.read_text()))
    spec = importlib.util.spec_from_file_location(path.stem.replace(".", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate_launch_description()
    actions, ros_actions = sys.modules["launch.actions"], sys.modules["launch_ros.actions"]
    declared = {call.args[0] for call in actions.DeclareLaunchArgument.call_args_list}
    check_arguments(path, declared, used)
    commands = [call.kwargs["cmd"] for call in actions.ExecuteProcess.call_args_list]
    found = read_commands([[first(part) for part in command] for command in commands], defaults(actions))
    for call in ros_actions.LifecycleNode.call_args_list:
        found["programs"].append(defaults(actions)[call.kwargs["executable"]])
        found["parameters"] += [name for p in call.kwargs["parameters"] if isinstance(p, dict) for name in p]
        found["topics"] += [topic for topic, _ in call.kwargs["remappings"]]
    included = sys.modules["launch.launch_description_sources"].PythonLaunchDescriptionSource.call_args_list
    found["included"] = [call.args[0] for call in included]
    return found


def defaults(actions):
    """The default of each argument, by what stands for the argument."""
    return {f"$({c.args[0]})": c.kwargs["default_value"] for c in actions.DeclareLaunchArgument.call_args_list}


def first(part):
    """The beginning of a part of a command, which may be a list of pieces."""
    return str(part[0]) if isinstance(part, list) else str(part)


def read_xml(path):
    root = ElementTree.parse(path).getroot()
    declared = {a.get("name") for a in root.iter("arg")}
    check_arguments(path, declared, set(re.findall(r"\$\(var (\w+)\)", path.read_text())))
    here = str(path.parent)
    values = {f"$(var {a.get('name')})": a.get("default").replace("$(dirname)", here) for a in root.iter("arg")}
    commands = []
    for executable in root.iter("executable"):
        command = executable.get("cmd").replace("$(dirname)", here)
        # $(var x) and $(env X y) are one word.
        commands.append(re.findall(r"(?:\$\([^)]*\)|\S)+", command))
    found = read_commands(commands, values)
    found["included"] = [i.get("file").replace("$(dirname)", here) for i in root.iter("include")]
    return found


def check_arguments(path, declared, used):
    if declared != used:
        sys.exit(f"{path}: declared and used arguments differ: {sorted(declared ^ used)}")


def read_commands(commands, values):
    """What commands of the node name; `values` has the defaults of launch arguments."""
    found = {"parameters": [], "topics": [], "programs": []}
    for command in commands:
        found["programs"].append(values.get(command[0], command[0]))
        for flag, value in zip(command, command[1:]):
            named = ARGUMENT.match(value)
            if flag == "-p" and named:
                found["parameters"].append(named[1])
            elif flag == "-r" and named:
                found["topics"].append(named[1])
            elif flag == "--params-file":
                found.setdefault("files", []).append(values.get(value, value))
            elif value.endswith(".py"):
                found.setdefault("files", []).append(value)
    return found


answer = {}
for path in map(pathlib.Path, sys.argv[1:]):
    found = {".py": read_python, ".xml": read_xml}[path.suffix](path)
    answer[path.name] = {key: sorted(set(map(str, values))) for key, values in found.items()}
print(json.dumps(answer))
