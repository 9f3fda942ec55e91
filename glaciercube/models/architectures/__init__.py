"""Published architectures, written anew from what their papers say of them, and our own; one module each.

Each takes its inputs by modality, gives a logit per class, and is built from a contract alone;
`glaciercube.models.architectures.contracts` has the contract of each.
"""
