"""The client."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from .errors import Disconnected, OcelliError, Problem
from .stream import Backoff, messages
from .types import (
    Analysis,
    AnalysisFailure,
    Deployment,
    Event,
    EventPage,
    Json,
    Message,
    Pipeline,
    Session,
)

log = logging.getLogger(__name__)

VERSION = "0.1.0"
DEFAULT_URL = "http://127.0.0.1:8001"

ANSWER = 30.0
"""Seconds for the answer of a request that takes no work."""

SILENCE = 60.0
"""Seconds without a byte after which a stream is lost: the host writes every 15 s."""

LOOK = 1.0
"""Seconds between two looks at a deployment on probation."""

ENDINGS = ("shutting_down", "slow_subscriber")
"""Errors with which the host ends a stream that may be opened again."""

FAILED = ("refused", "aborted", "rolled_back", "unverified", "interrupted")
"""Outcomes of a deployment after which the new version does not run, or not as it was meant to."""

Query = Mapping[str, "str | int | float | bool | None"]


class Client:
    """A host with the credentials for it: `async with Client() as host`.

    `url` and `token` are by default those of the variables `OCELLI_URL` and `OCELLI_TOKEN`. `ca` is
    a file of certificates, in PEM, for an `https://` host that no well-known authority vouches for.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
    ) -> None:
        self.url = (url or os.environ.get("OCELLI_URL") or DEFAULT_URL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{self.url!r} is not the URL of a host")
        token = token or os.environ.get("OCELLI_TOKEN")
        self._headers = {"User-Agent": f"ocelli-client-python/{VERSION}"}
        if token:
            self._headers["Authorization"] = f"Bearer {token.strip()}"
        ca = ca or os.environ.get("OCELLI_CA")
        self._tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else True
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. A later request opens others."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    # Sessions.

    async def sessions(self) -> list[Session]:
        """The sessions that the token sees, sorted by name."""
        return cast("list[Session]", (await self._json("GET", "sessions"))["sessions"])

    async def session(self, session: str) -> Session:
        """One session."""
        return cast(Session, await self._json("GET", "sessions", session))

    async def restart(self, session: str) -> Session:
        """Restarts a session's worker, whatever its state; the session as it was."""
        return cast(Session, await self._json("POST", "sessions", session, "restart"))

    async def end(self, session: str) -> None:
        """Ends a session. Returns when its process is gone."""
        await self._ask("DELETE", "sessions", session, limit=None)

    # What happens.

    async def subscribe(
        self, session: str | None = None, *, after: int | None = None, detections: bool = True
    ) -> AsyncIterator[Message]:
        """A session's messages, or with None those of all that the token sees, for ever: events
        after number `after` and then live ones, in order and each once; detections and states as
        they come. `after` left out: from now on.

        `after` is an event's `seq`; of all sessions together it is an event's `position`.

        A connection that is lost, or cannot be made, is made again after 0.1 to 10 s, which the log
        tells, and events go on after the last that came. Detections of the time without a
        connection are lost. Raises `Problem` for what waiting does not help: no such session, no
        right, `after` beyond the newest event.
        """
        last, backoff = after, Backoff()
        while True:
            try:
                if last is None and session is not None:
                    last = (await self.events_page(session, limit=1))["newest"]
                async for number, message in self._messages(session, last, detections):
                    backoff.reset()
                    if number is not None:
                        if last is not None and number <= last and message is not None:
                            continue
                        last = number
                    if message is not None:
                        yield message
                reason = "the host has closed the stream"
            except Disconnected as error:
                reason = str(error)
            except Problem as problem:
                if not problem.is_transient:
                    raise
                reason = str(problem)
            pause = backoff.next()
            log.warning("%s: %s; trying again in %.1f s", self.url, reason, pause)
            await asyncio.sleep(pause)

    async def events(
        self,
        session: str,
        *,
        after: int = 0,
        kind: str | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> AsyncIterator[Event]:
        """The stored events after number `after`, oldest first: those of a `kind`, and of the time
        from `start` up to and without `end` (RFC 3339)."""
        place: int | None = after
        while place is not None:
            page = await self.events_page(session, after=place, kind=kind, start=start, end=end)
            for event in page["events"]:
                yield event
            place = page["next"]

    async def events_page(
        self,
        session: str,
        *,
        after: int = 0,
        limit: int = 100,
        kind: str | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> EventPage:
        """One page of stored events, of 1 to 1000; `next` leads to the one after."""
        query = {"after": after, "limit": limit, "kind": kind, "from": start, "to": end}
        return cast(EventPage, await self._json("GET", "sessions", session, "events", query=query))

    async def query(self, session: str, query: Json) -> Json:
        """Asks a session's pipeline a question, which changes nothing; the pipeline's answer."""
        return await self._asked(session, "query", query)

    async def command(self, session: str, command: Json) -> Json:
        """Gives a session's pipeline a command, which may change its state; its answer. Takes an
        operator's token."""
        return await self._asked(session, "command", command)

    async def _asked(self, session: str, what: str, content: Json) -> Json:
        body = json.dumps(content).encode()
        # The host has a limit for the pipeline.
        answer = await self._json("POST", "sessions", session, what, body=body, limit=None)
        return answer["answer"]

    # Pipelines.

    async def pipelines(self) -> list[Pipeline]:
        """The pipelines that have a name on the host."""
        return cast("list[Pipeline]", (await self._json("GET", "pipelines"))["pipelines"])

    async def deploy(
        self,
        session: str,
        pipeline: str | os.PathLike[str] | bytes,
        *,
        settings: Mapping[str, Json] | None = None,
        state: Literal["keep", "fresh"] | None = None,
        shadow: int = 0,
        shadow_only: bool = False,
        threshold: float | None = None,
        name: str | None = None,
        wait: Literal["active", "healthy"] = "active",
    ) -> Deployment:
        """Changes the pipeline of a session: to the component in a file (a `Path`) or in memory, or
        to one that the host has by name or fetches by an `oci://` reference (a `str`).

        Returns its record when the new version is active; with `wait="healthy"`, when it has passed
        its probation. Raises `Problem` if it fails: `more` has the step and all that is wrong.
        `docs/operator-guide.md` explains settings, state and shadow.
        """
        query: dict[str, str | int | float | bool | None] = {
            "settings": None if settings is None else json.dumps(settings),
            "state": state,
            "shadow": shadow or None,
            "shadow_only": shadow_only or None,
            "threshold": threshold,
        }
        body = b""
        if isinstance(pipeline, bytes):
            body, query["name"] = pipeline, name
        elif isinstance(pipeline, str):
            query["pipeline"] = pipeline
        else:
            file = Path(pipeline)
            body, query["name"] = await asyncio.to_thread(file.read_bytes), name or file.stem
        where = ("sessions", session, "pipeline")
        record = await self._json("PUT", *where, query=query, body=body, limit=None)
        return await self._deployed(session, cast(Deployment, record), wait)

    async def rollback(
        self, session: str, *, wait: Literal["active", "healthy"] = "active"
    ) -> Deployment:
        """Goes back to the version before, as `deploy`."""
        record = await self._json("POST", "sessions", session, "rollback", limit=None)
        return await self._deployed(session, cast(Deployment, record), wait)

    async def deployments(self, session: str, *, limit: int = 20) -> list[Deployment]:
        """The deployments of a session, the newest first."""
        where = ("sessions", session, "deployments")
        answer = await self._json("GET", *where, query={"limit": limit})
        return cast("list[Deployment]", answer["deployments"])

    async def _deployed(self, session: str, record: Deployment, wait: str) -> Deployment:
        while wait == "healthy" and record["state"] == "probation":
            await asyncio.sleep(LOOK)
            newest = await self.deployments(session, limit=10)
            same = [found for found in newest if found["number"] == record["number"]]
            if not same:
                # So many have followed that it is superseded.
                break
            record = same[0]
        if record["state"] in FAILED:
            reason = record["reason"] or f"the deployment is {record['state']}"
            raise Problem(409, record["state"], reason, {"deployment": record})
        return record

    # Pictures.

    async def picture(
        self, session: str, *, boxes: bool = False, width: int | None = None
    ) -> bytes:
        """The newest picture of a session, a JPEG; with the boxes of what was found in it."""
        query = {"boxes": 1 if boxes else None, "width": width}
        return await self._ask("GET", "sessions", session, "frame.jpg", query=query)

    async def attachment(self, digest: str) -> bytes:
        """The picture of an event, a JPEG."""
        return await self._ask("GET", "attachments", digest)

    async def clip(self, session: str, seq: int) -> bytes:
        """The seconds of video around an event, an MP4 file. `clip_pending` is the code of the
        refusal while it is being recorded.
        """
        return await self._ask("GET", "events", f"{session}:{seq}", "clip.mp4")

    async def analyze(
        self, pipeline: str, image: bytes, *, settings: Mapping[str, Json] | None = None
    ) -> Analysis:
        """What a pipeline finds in one picture, the content of a JPEG or PNG file."""
        query = {"settings": None if settings is None else json.dumps(settings)}
        where = ("analyze", pipeline)
        answer = await self._json("POST", *where, query=query, body=image, limit=None)
        return cast(Analysis, answer)

    async def analyze_all(
        self,
        pipeline: str,
        images: Sequence[bytes],
        *,
        settings: Mapping[str, Json] | None = None,
    ) -> list[Analysis | AnalysisFailure]:
        """As `analyze`, for several pictures in one request; results in their order. One that
        cannot be analysed has an `error` in its place."""
        form = aiohttp.FormData(default_to_multipart=True)
        if settings is not None:
            form.add_field("settings", json.dumps(settings))
        for number, image in enumerate(images):
            form.add_field("image", image, filename=str(number))
        answer = await self._json("POST", "analyze", pipeline, body=form, limit=None)
        return cast("list[Analysis | AnalysisFailure]", answer["results"])

    # Requests.

    async def _messages(
        self, session: str | None, after: int | None, detections: bool
    ) -> AsyncIterator[tuple[int | None, Message | None]]:
        """Messages with their numbers; a number alone says where a stream of all sessions is."""
        query: Query = {"after": after, "detections": None if detections else "false"}
        timeout = aiohttp.ClientTimeout(sock_connect=ANSWER, sock_read=SILENCE)
        where = ("stream",) if session is None else ("sessions", session, "stream")
        async with self._sent("GET", where, query, None, timeout) as answer:
            async for number, data in messages(answer.content.iter_any()):
                message = cast("Message | None", json.loads(data) if data else None)
                if message is not None and message["type"] == "error":
                    if message["code"] in ENDINGS:
                        raise Disconnected(message["message"])
                    if message["code"] == "token_revoked":
                        raise Problem(401, message["code"], message["message"], {})
                if message is not None and message["type"] == "event" and session is None:
                    if number is not None:
                        message["position"] = number
                yield number, message

    async def _json(
        self,
        method: str,
        *path: str,
        query: Query | None = None,
        body: bytes | aiohttp.FormData | None = None,
        limit: float | None = ANSWER,
    ) -> Any:
        answer = await self._ask(method, *path, query=query, body=body, limit=limit)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise OcelliError(f"{self.url} does not answer as an Ocelli host does") from error

    async def _ask(
        self,
        method: str,
        *path: str,
        query: Query | None = None,
        body: bytes | aiohttp.FormData | None = None,
        limit: float | None = ANSWER,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=limit, sock_connect=ANSWER)
        async with self._sent(method, path, query or {}, body, timeout) as answer:
            return await answer.read()

    @asynccontextmanager
    async def _sent(
        self,
        method: str,
        path: Sequence[str],
        query: Query,
        body: bytes | aiohttp.FormData | None,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, unless it is a refusal."""
        if self._http is None:
            self._http = aiohttp.ClientSession(headers=self._headers)
        place = "/".join(quote(segment, safe="") for segment in path)
        given = {key: _text(value) for key, value in query.items() if value is not None}
        url = f"{self.url}/v1/{place}" + (f"?{urlencode(given)}" if given else "")
        try:
            async with self._http.request(
                method,
                URL(url, encoded=True),
                data=body,
                ssl=self._tls,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                if answer.status >= 300:
                    body_of_error, id = await answer.read(), answer.headers.get("X-Request-Id")
                    raise Problem.of(answer.status, answer.reason or "", body_of_error, id)
                yield answer
        except asyncio.TimeoutError as error:
            raise Disconnected("no answer in time") from error
        except aiohttp.ClientPayloadError as error:
            raise Disconnected("the connection broke") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Disconnected(str(error) or type(error).__name__) from error


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
