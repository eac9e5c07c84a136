"""How a job is run: here, in the warm parent, or in several processes."""
