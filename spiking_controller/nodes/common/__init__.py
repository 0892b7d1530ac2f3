"""What several nodes share: parameters, messages, processes, the input of joint states."""
