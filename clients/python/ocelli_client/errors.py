"""What goes wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class OcelliError(Exception):
    """The ancestor of all errors of this package."""


class Disconnected(OcelliError):
    """The host does not answer, or the connection broke. The same request may succeed later."""


class Problem(OcelliError):
    """The host refused a request (RFC 9457)."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        more: Mapping[str, Any],
        request_id: str | None = None,
    ) -> None:
        text = f"{status} {code}: {detail}" if code else f"{status} {detail}"
        # A person looks into the host's log for the host's own faults alone.
        shown = request_id is not None and status >= 500
        super().__init__(f"{text} (request {request_id})" if shown else text)
        self.status = status
        """The HTTP status; 0 for an error that a stream brought."""
        self.code = code
        """A stable code for programs: `unknown_session`, ... Empty where a proxy has answered."""
        self.detail = detail
        """The reason, for a person."""
        self.more = more
        """Further members, such as the record of a failed deployment."""
        self.request_id = request_id
        """The id with which the host's log has the request; `None` if none was answered with."""

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status >= 500 or self.status == 429

    @classmethod
    def of(
        cls, status: int, reason: str, body: bytes, request_id: str | None = None
    ) -> Problem:
        """The problem in an answer, with its `X-Request-Id`."""
        try:
            members = json.loads(body)
        except ValueError:
            members = None
        if not isinstance(members, dict):
            members = {}
        code, detail = members.pop("code", ""), members.pop("detail", "")
        for member in ("status", "title", "request_id"):
            members.pop(member, None)
        return cls(status, str(code), str(detail) or reason, members, request_id)
