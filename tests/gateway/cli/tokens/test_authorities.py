"""Certificates of a company's own authority are accepted where the machine trusts it, by every client of the command line."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.tokens.authorities import trusted_authorities
from tests.fakes.certificates import certificate, showing, tls_front
from tests.fakes.gateway_api import GatewayApi
from tests.house.source import ROOT


def test_authorities_of_the_environment_are_beside_those_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = len(trusted_authorities("https://gw.example").get_ca_certs())
    (tmp_path / "own.pem").write_bytes(certificate("gw.example")[0])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    own = trusted_authorities("https://gw.example").get_ca_certs()
    assert 50 < len(own) <= many + 1 and any(("commonName", "test") in part for each in own for part in each["subject"])


def test_plain_http_trusts_no_authority_and_reads_none() -> None:
    assert trusted_authorities("http://127.0.0.1:8080").get_ca_certs() == []


async def test_a_gateway_with_a_certificate_of_ones_own_is_called_once_it_is_trusted(api: GatewayApi, tmp_path: Path) -> None:
    pem, key = certificate("127.0.0.1")
    (tmp_path / "own.pem").write_bytes(pem)
    api.on("GET /api/whoami", {"subject": "ada"})
    async with tls_front(showing(tmp_path, pem, key), int(api.url.rpartition(":")[2])) as front:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "INTERLOCK_URL": f"https://127.0.0.1:{front.port}"}
        environment |= {"INTERLOCK_TOKEN": "secret", "HOME": str(tmp_path)}

        async def whoami(**more: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "gateway", "whoami", "--json"]
            given = {**environment, **more}
            return await asyncio.to_thread(subprocess.run, command, env=given, capture_output=True, text=True, check=False)

        refused = await whoami()
        assert refused.returncode == 4 and "SSL_CERT_FILE" in refused.stderr
        accepted = await whoami(SSL_CERT_FILE=str(tmp_path / "own.pem"))
        assert json.loads(accepted.stdout)["subject"] == "ada", accepted.stderr
