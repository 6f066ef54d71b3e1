"""The exceptions that users meet."""


class P2FError(ValueError):
    """Something in the input is wrong; the message says what, and what to do."""


class NoFaceError(P2FError):
    """No face was found where one was needed."""
