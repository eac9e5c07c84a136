"""The campaign of faults: an adversary of the product.

Each fault of the families (training, artefacts, jobs) is drawn from a seed, injected into a real job
of a tiny real study, and judged by what the user would find. `make faults` makes all of them;
tests/test_campaign.py a part. docs/reliability.md tells what is promised and how each fault is made.
"""
