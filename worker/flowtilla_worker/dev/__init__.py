"""`flowtilla dev`: everything a folder needs to run its workflows, on one machine and without a Redis."""
