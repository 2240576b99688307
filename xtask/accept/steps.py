"""Named steps of an acceptance script: each prints one line, and the last line counts them."""

import contextlib
import json
import os
import sys
import traceback


class Steps:
    """Runs steps one after the other; a failed one is shown and counted, and the next one runs."""

    def __init__(self, title):
        self.title = title
        self.passed = 0
        self.failed = 0

    @contextlib.contextmanager
    def __call__(self, name):
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a client raises is this step's failure
            self.failed += 1
            frame = traceback.extract_tb(error.__traceback__)[-1]
            print(f"FAIL  {self.title}: {name}\n      {type(error).__name__}: {error}\n      at {frame.filename}:{frame.lineno}")
            for inner in getattr(error, "exceptions", ()):
                print(f"      {type(inner).__name__}: {inner}")
        else:
            self.passed += 1
            print(f"ok    {self.title}: {name}")
        sys.stdout.flush()

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.passed else 0)


def setting():
    """What the runner hands over: addresses, tokens, and the values that must not show."""
    return json.loads(os.environ["ACCEPT"])


def refused(kind, call):
    """Calls and returns the exception of this kind; fails when the call succeeds."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"not refused: {answer!r:.300}")
