"""How tensors are computed: experts, adapters, norms, the vocabulary."""
