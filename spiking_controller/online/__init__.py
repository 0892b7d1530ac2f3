"""Learning while the arm works: experience, gate, versions, rollback."""
