"""The session's log. What is printed goes there, too, at level info."""

from __future__ import annotations

from ._host import logging


def debug(message: str, context: str = "pipeline") -> None:
    """For the author alone: it is shown with `OCELLI_LOG=info,ocelli::pipeline=debug`."""
    logging.log(logging.Level.DEBUG, context, str(message))


def info(message: str, context: str = "pipeline") -> None:
    """What an operator may want to know."""
    logging.log(logging.Level.INFO, context, str(message))


def warn(message: str, context: str = "pipeline") -> None:
    """What an operator should look at; it also goes to the host's main log."""
    logging.log(logging.Level.WARN, context, str(message))


def error(message: str, context: str = "pipeline") -> None:
    """What is broken; it also goes to the host's main log."""
    logging.log(logging.Level.ERROR, context, str(message))
