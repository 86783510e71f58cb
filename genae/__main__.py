"""`python -m genae` is `genae`."""

from genae.cli import main

main()
