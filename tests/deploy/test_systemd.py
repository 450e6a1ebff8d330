"""The unit, the settings and the proxy of a gateway on one machine, and the commands of docs/deploy.md."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.cli.exit_codes import BadConfiguration
from gateway.cli.local.checks.configuration import find_problems
from gateway.server.settings import Settings
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.house.source import ROOT

FOLDER = ROOT / "examples" / "deploy" / "systemd"
UNIT = (FOLDER / "interlock.service").read_text()
GUIDE = (ROOT / "docs" / "deploy.md").read_text()
SECRETS = {"CORP_CLIENT_SECRET": "of-the-provider"}  # what secrets.env has in the guide
EXPOSURE_MAX = 20  # of 100, in tenths of the level that systemd-analyze shows
LINKS = re.findall(r"^ln -sfn .*release.* /opt/interlock$", GUIDE, re.MULTILINE)  # what makes another version the one in use
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def values_of(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def analyze(*arguments: str, unit: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments, str(unit)], capture_output=True, text=True, check=False)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a Python that there is."""
    file = tmp_path / "interlock.service"
    file.write_text(UNIT.replace("/opt/interlock/bin/interlock", sys.executable))
    return file


@needs_systemd
def test_systemd_accepts_the_unit(unit: Path) -> None:
    ran = analyze("verify", unit=unit)
    assert (ran.returncode, "interlock.service" in ran.stderr) == (0, False), ran.stderr


@needs_systemd
def test_the_unit_exposes_little(unit: Path) -> None:
    ran = analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", unit=unit)
    assert ran.returncode == 0, ran.stdout[-2000:]


def test_the_unit_starts_what_the_guide_installs() -> None:
    (start,) = values_of("ExecStart")
    assert start.split()[:2] == ["/opt/interlock/bin/interlock", "serve"] and "PYTHONSAFEPATH=1" in values_of("Environment")[0]
    assert "python3 -m venv $release" in GUIDE and "$release/bin/pip install --no-index --no-deps dist/*.whl" in GUIDE
    assert len(LINKS) == 2
    config = start.split("--config ")[1]
    assert f"install -d -o interlock -g interlock -m 0700 /var/lib/{values_of('StateDirectory')[0]} " in GUIDE
    assert f"examples/deploy/systemd/interlock.yaml {config}" in GUIDE
    assert f"useradd --system --home-dir /var/lib/{values_of('StateDirectory')[0]}" in GUIDE and f" {values_of('User')[0]}\n" in GUIDE


def make_release(folder: Path) -> None:
    """An environment as pip makes it, whose `interlock` and `python -m gateway` wait for a line and then print the version of a module."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "gateway").mkdir()
    (packages / "gateway" / "__main__.py").write_text("print('started', flush=True)\ninput()\nimport part\nprint(part.VERSION)\n")
    (packages / "part.py").write_text(f"VERSION = {folder.name!r}\n")
    script = folder / "bin" / "interlock"
    script.write_text(f"#!{folder}/bin/python\nimport gateway.__main__\n")
    script.chmod(0o755)


def test_a_running_gateway_keeps_its_code_when_the_link_moves_to_another_release(tmp_path: Path) -> None:
    """What it imports after the change is of the release that it was started from, never of the next one."""
    releases, link = [tmp_path / "old", tmp_path / "new"], tmp_path / "interlock"
    for folder in releases:
        make_release(folder)
    link.symlink_to(releases[0])
    command = values_of("ExecStart")[0].replace("/opt/interlock/", f"{link}/").split()
    own = {"PATH": os.environ["PATH"]}  # without a PYTHONPATH of the tests
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=own) as running:
        assert running.stdin is not None and running.stdout is not None and running.stdout.readline() == "started\n"
        subprocess.run(["ln", "-sfn", str(releases[1]), str(link)], check=True)  # as the guide does
        running.stdin.write("\n")
        running.stdin.close()
        assert running.stdout.read() == "old\n"


@pytest.mark.parametrize("line", LINKS)
def test_a_shell_that_installed_nothing_links_nothing(line: str, tmp_path: Path) -> None:
    """With one operand, ln would make a link in the folder of the shell, and the old version would stay in use without a word."""
    ran = subprocess.run(
        ["sh", "-c", line.replace("/opt/interlock", str(tmp_path / "interlock"))],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode != 0, list(tmp_path.iterdir())) == (True, []) and "install first" in ran.stderr


def test_the_heads_of_sqlite_move_away_after_the_gateway_has_stopped() -> None:
    """A gateway signs its last record while it stops, which would write the file anew."""
    section = GUIDE.partition("### PostgreSQL, and more than one process\n")[2].partition("### Upgrade\n")[0]
    steps = ["systemctl disable --now interlock\n", "mv /var/lib/interlock/audit.heads ", "systemctl enable --now interlock@8081"]
    places = [section.index(step) for step in steps]
    assert places == sorted(places)


def test_the_upgrade_backs_up_before_it_migrates_and_brings_units_after_code() -> None:
    upgrade, _, back = GUIDE.partition("### Upgrade\n")[2].partition("### Backup\n")[0].partition("#### Going back\n")
    steps = ['ln -sfn "${release:?', "interlock-local backup ", "interlock-local check", "interlock.service ", "daemon-reload"]
    places = [upgrade.index(step) for step in (*steps, "systemctl restart interlock")]
    assert places == sorted(places)
    assert back.index("interlock-local restore") < back.rindex('ln -sfn "$(cat /opt/interlock-before)" /opt/interlock')


def test_no_unit_restarts_a_gateway_that_its_settings_keep_from_starting() -> None:
    restarted = [text for file in FOLDER.glob("*.service") if "\nRestart=" in (text := file.read_text())]
    assert len(restarted) == 2
    assert all(f"\nRestartPreventExitStatus={BadConfiguration.exit_code}\n" in text for text in restarted) and "exit code 78" in GUIDE


def test_the_unit_gives_time_to_drain() -> None:
    server = Settings(home=Path()).server
    assert float(values_of("TimeoutStopSec")[0]) >= server.drain + server.drain_delay + 5


def test_an_instance_of_several_differs_from_the_unit_by_its_port_alone() -> None:
    instance = (FOLDER / "interlock@.service").read_text()
    assert " --port %i\n" in instance
    body = instance.replace(" --port %i\n", "\n").replace(", at port %i", "")
    assert body.partition("[Unit]")[2] == UNIT.partition("[Unit]")[2]


def test_other_commands_run_as_the_unit_does() -> None:
    """interlock-local and the backup have the user, the variables, the secrets and the umask of the gateway."""
    local, backup = (FOLDER / "interlock-local").read_text(), (FOLDER / "interlock-backup.service").read_text()
    variables = values_of("Environment")[0].split()
    assert all(f"--setenv={each}" in local and each in backup for each in variables if not each.startswith("PYTHONUNBUFFERED"))
    for name, option in (("User", "--uid"), ("Group", "--gid")):
        (value,) = values_of(name)
        assert f"{option}={value} " in local and f"{name}={value}\n" in backup
    for each in ("EnvironmentFile", "UMask"):
        (value,) = values_of(each)
        assert f"--property={each}={value} " in local and f"{each}={value}\n" in backup
    for text in (local, backup):  # where interlock.yaml is found without --config
        assert re.search(r"(?i)working-?directory=/etc/interlock\b", text) and "/opt/interlock/bin/interlock " in text
    assert subprocess.run(["sh", "-n", str(FOLDER / "interlock-local")], check=False).returncode == 0


@needs_systemd
@pytest.mark.parametrize("name", ["interlock@8081.service", "interlock-backup.service", "interlock-backup.timer"])
def test_systemd_accepts_the_other_units(name: str, tmp_path: Path) -> None:
    for file in FOLDER.glob("interlock*.*e*"):
        text = file.read_text().replace("/opt/interlock/bin/interlock", sys.executable)
        (tmp_path / file.name.replace("@.", "@8081.")).write_text(text)
    ran = analyze("verify", unit=tmp_path / name)
    assert (ran.returncode, name in ran.stderr) == (0, False), ran.stderr


def test_installs_of_the_guide_take_hashes() -> None:
    installs = re.findall(r"/pip install (.*)", GUIDE)
    assert len(installs) == 3 and all("--require-hashes" in each or ("--no-index" in each and "--no-deps" in each) for each in installs)


def test_each_file_that_the_guide_names_is_there() -> None:
    named = set(re.findall(r"(?<![\w/])(examples/deploy/[\w./@-]+)", GUIDE)) | set(re.findall(r"\]\(\.\./(examples/[^)]+)\)", GUIDE))
    missing = [name for name in named if "/mine" not in name and not (ROOT / name).exists()]
    assert len(named) > 6 and missing == []


def test_the_proxy_buffers_no_stream_and_keeps_the_host() -> None:
    proxy = (FOLDER / "nginx.conf").read_text()
    settings = yaml.safe_load((FOLDER / "interlock.yaml").read_text())
    assert f"server_name {settings['server']['public_url'].removeprefix('https://')};" in proxy
    for line in ("proxy_buffering off;", "proxy_set_header Host $host;", "server 127.0.0.1:8080 max_fails=0;", "proxy_read_timeout 1h;"):
        assert line in proxy


def test_the_settings_are_accepted_and_secrets_are_no_part_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*next(iter(SECRETS.items())))
    (tmp_path / "policies").mkdir()
    settings = {**yaml.safe_load((FOLDER / "interlock.yaml").read_text()), "policies": str(tmp_path / "policies")}
    assert [trouble for trouble in find_problems(Settings(home=tmp_path, **settings), os.environ) if trouble.is_fatal] == []
    assert not Settings(home=tmp_path, **settings).is_development


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_the_gateway_of_the_unit_starts_and_answers(tmp_path: Path) -> None:
    """ExecStart with the settings of the guide, in a home of its own, with no other variables than the unit's."""
    (tmp_path / "policies").mkdir()
    settings = tmp_path / "interlock.yaml"
    settings.write_text((FOLDER / "interlock.yaml").read_text().replace("/etc/interlock/policies", str(tmp_path / "policies")))
    port, home = str(free_port()), str(tmp_path / "home")
    variables = dict(each.split("=", 1) for each in values_of("Environment")[0].split())
    environment = {
        "PATH": os.environ["PATH"],
        **variables,
        "INTERLOCK_HOME": home,
        "INTERLOCK_PORT": port,
        "PYTHONPATH": str(ROOT),
        **SECRETS,
    }
    command = [sys.executable, "-m", "gateway", *values_of("ExecStart")[0].split()[1:-1], str(settings)]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL) as running:
        try:
            asyncio.run(until(lambda: is_ready(f"http://127.0.0.1:{port}/readyz"), seconds=60, every=0.1))
            card = httpx.get(
                f"http://127.0.0.1:{port}/.well-known/agent-card.json", headers={"host": "agents.example.com"}, trust_env=False
            )
            assert card.status_code == 200 and "https://agents.example.com" in card.text
        finally:
            running.terminate()
            assert running.wait(timeout=120) == 0
