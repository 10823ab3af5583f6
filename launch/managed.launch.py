"""A managed node, configured and activated from outside, whenever it comes up.

    ros2 launch launch/managed.launch.py image:=/camera/image_raw

From outside: ros2 lifecycle get /perception; ros2 lifecycle set /perception deactivate.
"""

import pathlib

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode

HERE = pathlib.Path(__file__).resolve().parent
# The program that Cargo built here, or the one that colcon installed.
PROGRAMS = (
    HERE.parent / "target" / "release" / "perception_node",
    HERE.parents[2] / "lib" / "peregrine" / "perception_node",
)
PROGRAM = next((program for program in PROGRAMS if program.is_file()), PROGRAMS[0])


def generate_launch_description():
    node = LifecycleNode(
        # A path, not a package: Cargo built the program. Once colcon installed it: package="peregrine".
        executable=LaunchConfiguration("node"),
        name="perception",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params"), {"autostart": False}],
        remappings=[("image", LaunchConfiguration("image"))],
        output="screen",
    )

    # Not by launch's events, of which the node's first may come before launch has subscribed to them.
    manager = ExecuteProcess(
        cmd=[
            EnvironmentVariable("PEREGRINE_PYTHON", default_value="python3"),
            str(HERE / "manage.py"),
            [LaunchConfiguration("namespace"), "/perception"],
        ],
        name="manager",
        output="screen",
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="/camera/image_raw", description="topic of the images"),
            DeclareLaunchArgument("namespace", default_value="/", description="namespace of the node"),
            DeclareLaunchArgument("params", default_value=str(HERE / "perception.yaml"), description="parameter file"),
            DeclareLaunchArgument("node", default_value=str(PROGRAM), description="the program"),
            node,
            manager,
        ]
    )
