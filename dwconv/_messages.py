"""How a refused value looks in a message: short, whatever it is.

One function, below everything else.  It never raises, since a message about a bad value must not fail on that value, and
it never writes a large value out to cut it afterwards.
"""

import reprlib


def short(value):
    """A repr of at most some 100 characters of anything, even of an integer with more digits than Python writes."""
    try:
        return reprlib.repr(value)
    except Exception:  # whatever a foreign repr does, it must not hide what is wrong with the value
        return f"one of type {type(value).__name__:.80}"
