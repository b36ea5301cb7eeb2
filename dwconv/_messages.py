"""How a refused value looks in a message: short, whatever it is.

One function, below everything else.  It refuses to raise, since a message about a bad value must not fail on that value: an
integer of many digits, an object with a repr of its own.
"""

import reprlib


def short(value):
    """A repr of anything in one line of at most 120 characters."""
    try:
        text = reprlib.repr(value).replace("\n", " ")  # arrays have lines
        return text if len(text) <= 120 else f"{text[:117]}..."
    except Exception:  # whatever a foreign repr does, it must not hide what is wrong with the value
        return f"one of type {type(value).__name__:.80}"
