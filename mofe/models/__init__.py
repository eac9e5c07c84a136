"""Models in files and in memory: loading, merges, fine-tuning methods."""
