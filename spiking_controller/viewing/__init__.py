"""What people see: a page in the browser, and what RViz is told to show. Live or from a bag; no ROS."""
