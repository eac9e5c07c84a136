"""What the rules call: one function for each."""
