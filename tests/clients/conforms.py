"""Holds the declared types of the Python client to the documents that a host serves.

    python conforms.py openapi.json asyncapi.json
"""

import json
import sys
import typing

import ocelli_client
from typing_extensions import NotRequired

openapi, asyncapi = (json.load(open(path)) for path in sys.argv[1:])
schemas = openapi["components"]["schemas"]
payloads = {
    name: message["payload"] for name, message in asyncapi["components"]["messages"].items()
}
DECLARED = {
    "Analysis": schemas["Analysis"],
    "Attachment": schemas["Attachment"],
    "Deployment": schemas["Deployment"],
    "Detection": schemas["Detection"],
    "Detections": payloads["detections"],
    "Event": payloads["event"],
    "EventPage": schemas["EventPage"],
    "HostStatus": payloads["host"],
    "Lagged": payloads["lagged"],
    "Pipeline": schemas["Pipeline"],
    "PipelineEvent": schemas["Event"],
    "Refusal": payloads["error"],
    "Session": schemas["Session"],
    "State": payloads["session"],
    "Subscribed": payloads["subscribed"],
}
# What the client itself adds.
OWN = {"Event": {"position"}}

wrong = []
for name, schema in DECLARED.items():
    hints = typing.get_type_hints(getattr(ocelli_client, name), include_extras=True)
    for member, hint in hints.items():
        if member in OWN.get(name, ()):
            continue
        optional = typing.get_origin(hint) is NotRequired
        if member not in schema["properties"]:
            wrong.append(f"{name}.{member}: the host has no such member")
        elif not optional and member not in schema["required"]:
            wrong.append(f"{name}.{member}: the host may leave it out")
print("\n".join(wrong))
sys.exit(len(wrong) > 0)
