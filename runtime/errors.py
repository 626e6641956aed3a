"""What a user can mend, as one exception.

`__main__` prints it as `error: ...` and `help: ...` and ends with status 1. Any other exception is a bug or a crash and
keeps its traceback.
"""


class UserError(Exception):
    """A mistake in the input or the environment.

    `message` says what is wrong, with the numbers, and may have further lines (a list of bad rows, say). `help` says
    what to do about it.
    """

    def __init__(self, message: str, help: str | None = None) -> None:
        super().__init__(message, help)
        self.message = message
        self.help = help

    def __str__(self) -> str:
        return self.message if self.help is None else f"{self.message}\nhelp: {self.help}"
