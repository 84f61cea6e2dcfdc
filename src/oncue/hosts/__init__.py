"""The same callbacks in other loops: a loop of yours, with Accelerate or Fabric too, and the real Keras's.

Each adapter is in a file of its own and imports its library only when it is used.
"""

from oncue.hosts.keras import Keras as Keras
from oncue.hosts.loop import loop as loop

__all__ = ["Keras", "loop"]
