"""A managed node: launch configures it at start, and activates it once that has succeeded.

    ros2 launch launch/managed.launch.py image:=/camera/image_raw

From outside: ros2 lifecycle get /perception; ros2 lifecycle set /perception deactivate.
"""

import pathlib

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

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

    def ask_for(transition):
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    activate_once_configured = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[ask_for(Transition.TRANSITION_ACTIVATE)],
        )
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="/camera/image_raw", description="topic of the images"),
            DeclareLaunchArgument("namespace", default_value="/", description="namespace of the node"),
            DeclareLaunchArgument("params", default_value=str(HERE / "perception.yaml"), description="parameter file"),
            DeclareLaunchArgument("node", default_value=str(PROGRAM), description="the program"),
            activate_once_configured,
            node,
            ask_for(Transition.TRANSITION_CONFIGURE),
        ]
    )
