"""MoFE, reproduced: the study of "MoFE: Mixture of Frozen Experts" as a workflow."""

import logging

# bitsandbytes looks for optional CPU kernels on import and complains where there are none; its own
# NF4 code does the work.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
