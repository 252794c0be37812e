"""Which classifier reads handwritten digits best: the stages of a hyper-parameter search."""
