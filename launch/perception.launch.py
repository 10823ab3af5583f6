"""The perception node alone.

    ros2 launch launch/perception.launch.py image:=/camera/image_raw score_threshold:=0.5 respawn:=true

Runs the program that was built here; with `node:=perception_node` one that is on PATH.
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
            DeclareLaunchArgument("image", default_value="/camera/image_raw", description="topic of the images"),
            DeclareLaunchArgument("namespace", default_value="/", description="namespace of the node"),
            DeclareLaunchArgument("params", default_value=str(HERE / "perception.yaml"), description="parameter file"),
            DeclareLaunchArgument("score_threshold", default_value="0.3", description="least score of a detection"),
            DeclareLaunchArgument("deadline_ms", default_value="100.0", description="from stamp to publish; 0 for none"),
            DeclareLaunchArgument("respawn", default_value="false", description="whether to start it again when it ends"),
            DeclareLaunchArgument("node", default_value=str(PROGRAM), description="the program"),
            # Not a Node action: the program is Cargo's, and belongs to no ament package.
            ExecuteProcess(
                cmd=[
                    argument("node"), "--ros-args",
                    "--params-file", argument("params"),
                    "-r", ["__ns:=", argument("namespace")],
                    "-r", ["image:=", argument("image")],
                    "-p", ["score_threshold:=", argument("score_threshold")],
                    "-p", ["deadline_ms:=", argument("deadline_ms")],
                ],
                name="perception_node",
                output="screen",
                respawn=argument("respawn"),
                respawn_delay=1.0,
            ),
        ]
    )
