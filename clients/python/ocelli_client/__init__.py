"""A client of an Ocelli host, for asyncio.

    import asyncio
    from ocelli_client import Client

    async def main() -> None:
        async with Client("http://127.0.0.1:8001") as host:
            async for message in host.subscribe("gate", after=0):
                if message["type"] == "event":
                    print(message["seq"], message["kind"])

    asyncio.run(main())

Messages and answers are the host's JSON, as dictionaries with declared types: a member that a newer
host adds is there, too. What the host refuses is a `Problem` with its stable `code`.
"""

from .client import Client
from .errors import Disconnected, OcelliError, Problem
from .types import (
    Analysis,
    AnalysisFailure,
    Attachment,
    Attribute,
    Deployment,
    Detection,
    Detections,
    Event,
    EventPage,
    Gone,
    HostStatus,
    Json,
    Lagged,
    Message,
    Pipeline,
    PipelineEvent,
    Refusal,
    Session,
    SessionState,
    State,
    Subscribed,
)

__all__ = [
    "Analysis",
    "AnalysisFailure",
    "Attachment",
    "Attribute",
    "Client",
    "Deployment",
    "Detection",
    "Detections",
    "Disconnected",
    "Event",
    "EventPage",
    "Gone",
    "HostStatus",
    "Json",
    "Lagged",
    "Message",
    "OcelliError",
    "Pipeline",
    "PipelineEvent",
    "Problem",
    "Refusal",
    "Session",
    "SessionState",
    "State",
    "Subscribed",
]
