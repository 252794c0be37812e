"""A workflow made ready to run: which functions may run, and how they take their arguments."""
