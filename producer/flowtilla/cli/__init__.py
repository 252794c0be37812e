"""The command line: `flowtilla --help`. What a command needs is imported when it runs."""


def main() -> None:
    """Runs the command that the process's arguments name."""
    from flowtilla.cli.app import app

    app()
