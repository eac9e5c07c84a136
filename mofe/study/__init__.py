"""The study: what is made, its name, and what it is made from. Imports neither torch nor
transformers."""
