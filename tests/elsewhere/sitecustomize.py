"""Takes away from every Python process what macOS does not have: os.fork. tests/test_elsewhere.py takes
/proc away, but for psutil, which has other sources there: it finds /proc where MOFE_PROC says."""

import multiprocessing
import os

import psutil

del os.fork, os.forkpty
multiprocessing.set_start_method("spawn")  # as on macOS
psutil.PROCFS_PATH = os.environ["MOFE_PROC"]
