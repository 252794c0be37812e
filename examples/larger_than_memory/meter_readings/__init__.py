"""A year of a thousand electricity meters, larger than the memory of any worker that computes with it."""
