"""What happens in one control tick, without ROS: reading the arm, the networks' step, the torque and its limits."""
