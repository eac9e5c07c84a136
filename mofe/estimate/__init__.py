"""What a study will take: FLOPs, memory, hours, disk. Imports neither torch nor transformers."""
