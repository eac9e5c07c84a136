"""Make the folder of an environment, or a link to where it is to lie: place.py FOLDER [TARGET].

`make` runs this file before anything is installed, so that it needs no more than any Python 3.
"""

import os
import sys

OWNER = "owner"  # the file in a target that names the folder which links to it


def place(folder, target=None):
    """Make `folder`. With a target, which is made too, it is a link to that from now on. Returns a
    sentence where there is something else."""
    if target is not None and not target.strip():
        return "VENV is empty: name a folder, as in make VENV=/scratch/me/mofe setup"
    folder = os.path.abspath(folder)
    target = folder if target is None else os.path.abspath(os.path.expanduser(target))
    if target == folder or (os.path.exists(folder) and _same(folder, target)):
        os.makedirs(os.path.realpath(folder), exist_ok=True)
        return None
    if os.path.exists(folder) and not os.path.islink(folder):
        return f"{folder} is here already: remove it (rm -r {folder}), and call the same again"
    if told := _taken(folder, target):
        return told
    if os.path.islink(folder):
        os.remove(folder)
    os.makedirs(target, exist_ok=True)
    with open(os.path.join(target, OWNER), "w") as file:
        file.write(folder)
    os.symlink(target, folder)
    return None


def _taken(folder, target):
    """Why a target cannot hold the environment, in a sentence; None where it can. What is left of
    another one, which is there no more, counts as not installed from now on."""
    if not os.path.isdir(target):
        return f"VENV: {target} is no folder" if os.path.lexists(target) else None
    file = os.path.join(target, OWNER)
    if not os.path.isfile(file):
        if os.listdir(target):
            return f"VENV: {target} has other files: name a new or an empty folder"
        return None
    with open(file) as owned:
        owner = owned.read()
    if owner != folder:
        if os.path.exists(owner) and _same(owner, target):
            return f"VENV: {target} is the environment of {owner}: name another folder"
        for done in ("installer", "ready"):
            if os.path.exists(os.path.join(target, done)):
                os.remove(os.path.join(target, done))
    return None


def _same(one, other):
    return os.path.realpath(one) == os.path.realpath(other)


if __name__ == "__main__":
    sys.exit(place(*sys.argv[1:]))
