"""Why the arm is not driven."""

from typing import NamedTuple


class Fault(NamedTuple):
    """A reason not to drive the arm.

    Attributes:
        kind: what it is about; the same fault with other numbers has the same kind.
        sentence: for the user, with what to do about it.
    """

    kind: str
    sentence: str
