"""Keeps every ROS graph that a test starts away from any other graph, real robots above all."""

import os

# Set before any test module imports rclpy, and not as a default: the shell may name the lab's domain.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
# Tests kill nodes on purpose. A killed process can leave a lock of the shared-memory transport behind, on which the
# nodes of the next test would hang.
os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
