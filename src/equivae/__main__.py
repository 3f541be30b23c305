"""`python -m equivae`, which is also what `accelerate launch -m equivae` starts."""

from equivae.cli import main

if __name__ == "__main__":
    main()
