"""A replayed camera and the perception node, to be watched with `ros2 topic echo /detections` or rviz.

    ros2 launch launch/camera_demo.launch.py frames:=drive.mp4 rate:=30
"""

import pathlib
import sys

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable, LaunchConfiguration

HERE = pathlib.Path(__file__).resolve().parent
FRAMES = HERE.parent / "models" / "frames"


def generate_launch_description():
    camera = ExecuteProcess(
        cmd=[
            EnvironmentVariable("PEREGRINE_PYTHON", default_value=sys.executable), str(HERE / "replay_camera.py"),
            "--topic", "/camera/image_raw",
            "--frames", LaunchConfiguration("frames"),
            "--rate", LaunchConfiguration("rate"),
            "--size", LaunchConfiguration("size"),
        ],
        name="replay_camera",
        output="screen",
    )
    # The variable's name depends on the distribution. Without it Fast DDS loses every third image of
    # this size; the file says why.
    profile = str(HERE / "fastdds.xml")
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    shared_memory = [
        SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=profile)) for name in names
    ]
    node = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(HERE / "perception.launch.py")))
    return LaunchDescription(
        [
            DeclareLaunchArgument("frames", default_value=str(FRAMES), description="folder of images, or a video"),
            DeclareLaunchArgument("rate", default_value="30", description="images a second"),
            DeclareLaunchArgument("size", default_value="640x480", description="size the images are scaled to"),
            *shared_memory,
            camera,
            node,
        ]
    )
