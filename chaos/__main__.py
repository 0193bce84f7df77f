"""`python -m chaos`: run the searches from a checkout. `pip install -e '.[chaos]'` is all they need."""

from chaos.cli import main

if __name__ == "__main__":
    main()
