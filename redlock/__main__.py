"""`python -m redlock`: the command line, where its script is not on the PATH."""

from redlock.cli import main

if __name__ == "__main__":
    main()
