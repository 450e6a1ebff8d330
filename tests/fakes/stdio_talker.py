"""The server that talks back, on its standard streams; run as a program."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fakes.mcp_talkers import Talker

if __name__ == "__main__":
    asyncio.run(Talker().server.run_stdio_async())
