"""Several cameras, one node: they share one model on one device; the earliest deadline goes first.

    ros2 launch launch/cameras.launch.py cameras:=front,rear

Each camera has its topics below its name: front/image in; front/detections, front/timing and so on out. A camera that
publishes elsewhere is remapped below.
"""

import pathlib

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

HERE = pathlib.Path(__file__).resolve().parent
# The program that Cargo built here, or the one that colcon installed.
PROGRAMS = (
    HERE.parent / "target" / "release" / "perception_node",
    HERE.parents[2] / "lib" / "peregrine" / "perception_node",
)
PROGRAM = next((program for program in PROGRAMS if program.is_file()), PROGRAMS[0])


def generate_launch_description():
    def argument(name):
        return LaunchConfiguration(name)

    return LaunchDescription(
        [
            DeclareLaunchArgument("cameras", default_value="front,rear", description="names with commas between them"),
            DeclareLaunchArgument("namespace", default_value="/", description="namespace of the node and its topics"),
            DeclareLaunchArgument("params", default_value=str(HERE / "perception.yaml"), description="parameter file"),
            DeclareLaunchArgument("node", default_value=str(PROGRAM), description="the program"),
            ExecuteProcess(
                cmd=[
                    argument("node"), "--ros-args",
                    "--params-file", argument("params"),
                    "-r", ["__ns:=", argument("namespace")],
                    "-p", ["cameras:=", argument("cameras")],
                    # "-r", "front/image:=/front_camera/image_raw",
                ],
                name="perception_node",
                output="screen",
                respawn=True,
                respawn_delay=1.0,
            ),
        ]
    )
