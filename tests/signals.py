"""Signals to child processes, whatever the tests were started from."""

import signal


def heed_ctrl_c() -> None:
    """For `preexec_fn`: a child of a background job ignores SIGINT unless it is told otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
