"""Data sets: the hub, mirrors of it, and the generated world."""
