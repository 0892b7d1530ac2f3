"""What talks to a running graph from outside: goal senders, graph starters, players."""
