"""`python -m flowtilla.cli`, for processes that start a worker with their own Python."""

from flowtilla.cli import main

if __name__ == "__main__":
    main()
