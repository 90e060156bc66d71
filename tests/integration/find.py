"""`python -m tests.integration.find '{"name": "lab", ...}'`: what cluster=lab finds from here, as JSON."""

import json
import sys
from pathlib import Path

import trio

from hyperlane.artifacts import to_json
from hyperlane.cluster.lab import Lab
from hyperlane.cluster.source import Surroundings
from hyperlane.errors import HyperlaneError, one_line


async def find(lab: Lab) -> None:
    async with lab.open(Surroundings(store_root=Path("unused"))) as finder:
        print(to_json(await finder.find()))


if __name__ == "__main__":
    try:
        trio.run(find, Lab(**json.loads(sys.argv[1])))
    except HyperlaneError as error:
        sys.exit(one_line(error))
