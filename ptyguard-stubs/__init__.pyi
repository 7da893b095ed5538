# What `import ptyguard` gives, for type checkers.  A module that is a single file cannot
# say of itself that it is typed (PEP 561), so this package says it for ptyguard.py.

from typing import Any, List, Optional

from ptyguard_core.client import Client as Client, Session as Session
from ptyguard_core.errors import (
    Busy as Busy, CannotExecute as CannotExecute, CommandNotFound as CommandNotFound,
    Incompatible as Incompatible, LimitReached as LimitReached, NoSuchSession as NoSuchSession,
    OutputGap as OutputGap, PtyguardError as PtyguardError, Refused as Refused,
    SessionDestroyed as SessionDestroyed, SessionExists as SessionExists,
    StateUnusable as StateUnusable, TimedOut as TimedOut, Unreachable as Unreachable,
    Unsupported as Unsupported, UsageError as UsageError)

__version__: str

def connect(directory: Optional[str] = None, may_start: bool = True) -> Client: ...
def main(argv: List[str]) -> int: ...
def console() -> None: ...
def pick_backend() -> Any: ...
