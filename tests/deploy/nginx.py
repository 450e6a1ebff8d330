"""A real nginx with the configuration of examples/deploy/systemd, on free ports of loopback and with certificates of its own."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fakes.certificates import certificate, trusting
from tests.fakes.ports import free_port
from tests.house.source import ROOT

NAME: Final = "agents.example.com"
CONFIGURATION: Final = ROOT / "examples" / "deploy" / "systemd" / "nginx.conf"
PROCESS: Final = "    server 127.0.0.1:8080 "  # the line of a process, which the guide repeats for others
AROUND: Final = """daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """`url` speaks TLS, which `trust` accepts for NAME. `plain` is the port of plain HTTP."""

    url: str
    plain: int
    trust: ssl.SSLContext
    folder: Path

    def errors(self) -> str:
        return (self.folder / "error.log").read_text()


def find_nginx() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")


@contextmanager
def nginx(folder: Path, ports: Sequence[int]) -> Iterator[Proxy]:
    """Runs nginx in front of the processes at `ports`."""
    program = find_nginx()
    assert program is not None
    folder.mkdir()
    pem, key = certificate(NAME, "127.0.0.1")
    (folder / "fullchain.pem").write_bytes(pem)
    (folder / "privkey.pem").write_bytes(key)
    secure, plain = free_port(), free_port()
    given = CONFIGURATION.read_text().replace(f"/etc/letsencrypt/live/{NAME}", str(folder))
    (line,) = [line for line in given.splitlines() if line.startswith(PROCESS)]
    given = given.replace(line, "\n".join(line.replace("8080", str(port)) for port in ports))
    given = re.sub(r"(?m)^    listen \[::\].*\n", "", given)  # not every machine of a test has IPv6
    given = given.replace("listen 443 ", f"listen 127.0.0.1:{secure} ").replace("listen 80;", f"listen 127.0.0.1:{plain};")
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, server=given))
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as running:
        try:
            yield Proxy(f"https://127.0.0.1:{secure}", plain, trusting(pem), folder)
        finally:
            running.terminate()
