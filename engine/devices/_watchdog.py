"""What watchdogs have in common: the settings of what a bite does beside the pulse that tells the host."""

from __future__ import annotations

from engine.errors import MachineError

ACTIONS = ("reset", "none")


def checked_action(device: str, action: str) -> bool:
    """Whether an action pulls the reset line.  Raises MachineError for one that there is not."""
    if action not in ACTIONS:
        raise MachineError(f"device {device!r}: action = {action!r}; a watchdog's own actions are {', '.join(ACTIONS)}")
    return action == "reset"
