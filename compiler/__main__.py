"""`python -m sftc.compiler` is `sftc`, for when the console script is not on PATH."""

from .cli import main

main()
