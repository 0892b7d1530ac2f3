"""How fast training and control are, against plain snntorch modules and in the live graph."""
