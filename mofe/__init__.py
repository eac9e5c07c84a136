"""MoFE, reproduced: the study of "MoFE: Mixture of Frozen Experts" as a workflow."""

__version__ = "0.1.0"
