"""Reaching: a checked connection to whoever listens at client.sock.

All that a command needs where a daemon runs; what starts one is in supervise.py.
"""

import time

from .errors import Refused, Unreachable

START_LIMIT_S = 60.0           # cold start on a machine that swaps; shared by those who wait
LOOK_S = 0.01                  # between looks at what somebody else has in hand


def check_peer(backend, sock, path):
    """The server must be ours or root's (C-902)."""
    owner = backend.peer_user(sock)
    if owner not in (backend.user_id(), 0):
        sock.close()
        raise Refused(f"{path} is served by uid {owner}, not by us",
                      hint="set PTYGUARD_DIR to a directory of yours")


def connect(backend, paths, deadline):
    """A checked connection, or None when nobody listens."""
    while True:
        try:
            sock = backend.connect(paths.client_socket, 1.5)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except (BlockingIOError, TimeoutError):     # the backlog is full: slow is not deaf
            if time.monotonic() > deadline:
                raise Unreachable(f"{paths.client_socket} accepts no connection",
                                  hint="ptyguard status") from None
            time.sleep(LOOK_S)
            continue
        except OSError as error:
            raise Unreachable(f"cannot connect to {paths.client_socket}: {error.strerror}",
                              hint="ptyguard status") from None
        check_peer(backend, sock, paths.client_socket)
        return sock
