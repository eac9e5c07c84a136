"""Make the folder of an environment, or a link to where it is to lie: place.py FOLDER [TARGET].

`make` runs this file before anything is installed, so that it needs no more than any Python 3.
"""

import os
import sys


def place(folder, target=None):
    """Make `folder`. With a target, which is made too, it is a link to that from now on. Returns a
    sentence where there is something else."""
    if target is None:
        os.makedirs(os.path.realpath(folder), exist_ok=True)
        return None
    target = os.path.abspath(target)
    if os.path.exists(folder) and os.path.realpath(folder) == os.path.realpath(target):
        return None
    if os.path.islink(folder):
        os.remove(folder)
    elif os.path.exists(folder):
        return f"{folder} is here already: remove it (rm -r {folder}), and call the same again"
    os.makedirs(target, exist_ok=True)
    os.symlink(target, folder)
    return None


if __name__ == "__main__":
    sys.exit(place(*sys.argv[1:]))
