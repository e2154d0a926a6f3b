"""Prints what a session tells: the example of the README, with an end.

    python subscriber.py ws://127.0.0.1:8001/v1/ws gate --after 0 --messages 20

A token, where the host wants one, is taken from OCELLI_TOKEN.
"""

import argparse
import asyncio
import json
import os

import websockets


async def main(arguments):
    token = os.environ.get("OCELLI_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with websockets.connect(arguments.url, additional_headers=headers) as socket:
        extensions = socket.response.headers.get("Sec-WebSocket-Extensions", "none")
        print(json.dumps({"type": "extensions", "extensions": extensions}), flush=True)
        request = {"type": "subscribe", "session": arguments.session}
        if arguments.after is not None:
            request["after"] = arguments.after
        await socket.send(json.dumps(request))
        for _ in range(arguments.messages):
            print(await socket.recv(), flush=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("url")
parser.add_argument("session")
parser.add_argument("--after", type=int)
parser.add_argument("--messages", type=int, default=20)
asyncio.run(main(parser.parse_args()))
