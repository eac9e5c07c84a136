"""The study: what is made, from what, under which name. Imports neither torch nor transformers."""
