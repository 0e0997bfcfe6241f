"""`python -m tunesmith`: the same command line as `tunesmith`."""

from tunesmith.cli.main import run

if __name__ == "__main__":
    run()
