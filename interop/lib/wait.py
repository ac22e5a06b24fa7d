"""Waiting on conditions with a deadline. Nothing in the labs sleeps for luck."""

import time


class Failed(Exception):
    """What a scenario expected did not come true. The message is all that a reader of the summary sees."""


def until(what, condition, seconds=60, every=0.1):
    """Waits until condition() is true and returns its value.

    A condition that raises counts as not yet true: a daemon that is still starting answers nothing. A condition may return a string that
    begins with '!' to say why it is not true yet; the last one is shown when the time is over.
    """
    deadline = time.monotonic() + seconds
    last = None
    while True:
        try:
            value = condition()
            if isinstance(value, str) and value.startswith("!"):
                last = value[1:].strip()
            elif value:
                return value
            else:
                last = None
        except Failed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a half-started daemon makes of our question
            last = f"{type(error).__name__}: {error}"
        if time.monotonic() >= deadline:
            raise Failed(f"not within {seconds} s: {what}" + (f" ({last})" if last else ""))
        time.sleep(every)


def stays(what, condition, seconds, every=0.25):
    """Watches for so many seconds that condition() is true every time it is asked."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if not value or (isinstance(value, str) and value.startswith("!")):
            raise Failed(f"did not stay so for {seconds} s: {what}" + (f" ({value[1:].strip()})" if value else ""))
        time.sleep(every)


def check(what, value):
    """Fails unless value is true."""
    if not value or (isinstance(value, str) and value.startswith("!")):
        raise Failed(f"not so: {what}" + (f" ({value[1:].strip()})" if value else ""))


def equal(what, actual, expected):
    """A condition for until() and check(): '' is never returned, a difference is told."""
    if actual == expected:
        return True
    if isinstance(actual, (dict, set)) and isinstance(expected, (dict, set)):
        missing = sorted(str(k) for k in set(expected) - set(actual))
        surplus = sorted(str(k) for k in set(actual) - set(expected))
        told = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unexpected {', '.join(surplus)}"] * bool(surplus)
        if isinstance(actual, dict) and isinstance(expected, dict):
            told += [f"{k} is {actual[k]}, expected {expected[k]}" for k in sorted(set(actual) & set(expected), key=str)
                     if actual[k] != expected[k]]
        # thousands may differ
        return f"!{what}: {'; '.join(told)[:2000]}"
    return f"!{what}: {actual}, expected {expected}"
