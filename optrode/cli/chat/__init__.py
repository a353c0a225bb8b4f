"""`optrode chat`: a conversation in which edits are turned up, down, on and off between turns.

`room.py` holds the conversation and the edits, `commands.py` what lines with a slash do, `screen.py` what is shown on a
terminal and what in a pipe, `loop.py` reads lines until there are no more.
"""

from .loop import talk
from .room import Dial, Room

__all__ = ["Dial", "Room", "talk"]
