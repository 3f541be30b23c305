"""`python -m equivae.cli`."""

from equivae.cli.program import main

if __name__ == "__main__":
    main()
