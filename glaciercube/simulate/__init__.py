"""A small glacier world with known truth, written as real COGs and STAC items."""
