"""The same search as a loop, without flowtilla's worker: what the timing table compares with.

python by_hand.py --jobs 2
"""

import argparse
import os
import time
from pathlib import Path

# As in flowtilla.yaml, and before numpy is imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import joblib
import yaml
from digit_search import stages


def main(jobs: int) -> None:
    """Scores every candidate in so many processes, and prints the best."""
    began = time.perf_counter()
    digits = stages.load()
    grid = yaml.safe_load(Path(__file__).with_name("grid.yaml").read_text(encoding="utf-8"))["grid"]
    each = (joblib.delayed(stages.score)(candidate, digits) for candidate in stages.expand(grid))
    best = stages.choose(list(joblib.Parallel(n_jobs=jobs, batch_size=1)(each)))
    print(f"\nbest: {best['title']}, {best['accuracy']:.2%}\n{time.perf_counter() - began:.1f} s in {jobs} processes")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=1, help="how many processes; 1 is a plain loop")
    main(options.parse_args().jobs)
