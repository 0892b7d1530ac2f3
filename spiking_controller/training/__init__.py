"""How networks come to be: runs, updates, losses, diagnosis, collection, replay memory."""
