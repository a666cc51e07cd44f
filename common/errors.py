"""The one exception that ends a command: it names the thing, the value, the rule and the remedy."""


class StudyError(Exception):
    """A fault that the user can mend. Commands print its single sentence and end with exit code 2."""
