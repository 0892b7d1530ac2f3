"""What a stream of joint states, torques and goals means: control steps, segments, bags read and written."""
