"""The page in the browser: an arm to look at and to touch, live or from a bag."""
