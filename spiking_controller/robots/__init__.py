"""A robot: its MJCF description, joint names, limits and kinematics, without torch and without ROS."""
