"""The one exception that ends a command: it names the thing, the value, the rule and the remedy."""

from common.names import printable


class StudyError(Exception):
    """A fault that the user can mend. Commands print its single sentence and end with exit code 2.

    Its words may hold names and values from files, so that it shows nothing that would steer a terminal.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")
