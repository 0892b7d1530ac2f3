"""The ROS 2 layer: thin nodes around plain Python, and the commands that start them."""
