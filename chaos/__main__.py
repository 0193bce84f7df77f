"""`python -m chaos`: run the searches, in a checkout or the sdist. `pip install -e '.[chaos]'`
is all they need."""

from chaos.cli import main

if __name__ == "__main__":
    main()
