"""What happens in one control update, without ROS: reading the arm, the networks' step, the torque and its limits."""
