"""serve, migrate and token: commands on the gateway's own machine."""

import json
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import BadConfiguration, CommandFailed, CommandRefused, WrongUsage
from gateway.cli.local import installation as home
from gateway.cli.local.checks import configuration as examine

if TYPE_CHECKING:
    from gateway.server.settings import Settings
    from policies.keys.signing import SigningKeys

DAY = 86_400
DEFAULT_CONFIG = Path("interlock.yaml")
_SECONDS_PER_UNIT = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY}


def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on (default: 8080).", min=1, max=65535)] = None,
    grpc_port: Annotated[int | None, typer.Option(help="The port of A2A over gRPC; 0 is off (default: 0).", min=0, max=65535)] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; more than one needs Postgres (default: 1).", min=1)] = None,
    config: home.Config = None,
) -> None:
    """Run the gateway until it is interrupted."""
    try:
        with _logged_failure():
            _start(config, host=host, port=port, grpc_port=grpc_port, workers=workers)
    except SystemExit as ended:
        if ended.code:
            kind = BadConfiguration if ended.code == BadConfiguration.exit_code else CommandFailed
            raise kind("the gateway did not start", "the log above says why; interlock check verifies all that it needs") from ended


def _start(config: Path | None, **flags: str | int | None) -> None:
    """Checks what can be checked before anything is loaded, and runs the gateway. Raises CommandFailed, and SystemExit after its log."""
    chosen = home.load_settings(config, **flags)
    _check_settings(chosen)
    command = "interlock serve" + (f" --config {shlex.quote(str(config))}" if config else "")
    _check_port_free(chosen.host, chosen.port, f"{command} --port")
    if chosen.grpc_port:
        _check_port_free(chosen.host, chosen.grpc_port, f"{command} --grpc-port")
    from gateway.server.app import serve as run
    from gateway.storage.files.start_failures import START_ERRORS

    try:
        run(chosen)
    except START_ERRORS as error:
        raise home.describe_failure(error, chosen) from error


@contextmanager
def _logged_failure() -> Iterator[None]:
    """Logs what prevents the start, where standard error is a log. A terminal gets its text alone."""
    try:
        yield
    except CommandFailed as stop:
        if not sys.stderr.isatty():
            import structlog

            from gateway.telemetry.logs import configure_logging

            configure_logging("error")
            structlog.get_logger().error("start_failed", problem=stop.message, todo=stop.todo)
        raise


def _check_settings(settings: "Settings") -> None:
    """Prints warnings, and raises BadConfiguration for fatal problems, or CommandFailed where all of them may pass."""
    found = list(examine.find_problems(settings, os.environ))
    for trouble in found:
        if not trouble.is_fatal:
            screen.print_problem(f"warning: {trouble}", trouble.todo)
    fatal = [trouble for trouble in found if trouble.is_fatal]
    if fatal:
        kind = CommandFailed if all(trouble.may_pass for trouble in fatal) else BadConfiguration
        raise kind("\n".join(str(trouble) for trouble in fatal), fatal[0].todo)


def migrate(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Bring the database to the schema that this version expects."""
    chosen = home.load_settings(config)
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.server.composition.storage import check_revision
    from gateway.storage.database import Database, engine_for
    from gateway.storage.database_start import DatabaseWait, problem_of, wait_for_database
    from gateway.storage.files.database_file import lock_database_file
    from gateway.storage.files.start_failures import START_ERRORS
    from gateway.storage.migrations import HEAD
    from gateway.storage.migrations.run import upgrade

    try:
        if chosen.database_url.startswith("sqlite"):
            chosen.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(engine_for(chosen.database_url))
        wait_for_database(database.engine, DatabaseWait(chosen.database.wait, screen.print_problem))
        with lock_database_file(chosen.database_url, chosen.home) or nullcontext(), screen.show_progress("migrating…"):
            revision_before = check_revision(database)
            if revision_before <= HEAD:
                upgrade(database.engine)
            after = database.revision()
        database.close()
    except START_ERRORS as error:
        raise home.describe_failure(error, chosen) from error
    except SQLAlchemyError as error:
        todo = "is it running, and may this user write to it? interlock check"
        raise CommandFailed(f"the database was not migrated: {problem_of(error)}", todo) from error
    if as_json:
        screen.print_json({"before": revision_before, "after": after})
    else:
        screen.print_text(f"already at {after}" if revision_before == after else f"migrated from {revision_before or 'nothing'} to {after}")


def token(
    user: Annotated[str, typer.Option(help="The person that the token is for; `admin` is an operator.")],
    scope: Annotated[str | None, typer.Option(help='Limit the token to these permissions, such as "agent:sales tool:crm.*".')] = None,
    tenant: Annotated[str, typer.Option(help="The tenant that the user is in.")] = "default",
    ttl: Annotated[str, typer.Option(help="How long the token is valid: 90s, 30m, 1h, at most 1d.")] = "1h",
    create_keys: Annotated[
        bool, typer.Option("--create-keys", help="Make the signing keys before the first start of the gateway, where there are none.")
    ] = False,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Print a token of the development issuer. A note on standard error names the gateway that it is for and the keys that sign it."""
    seconds = _parse_duration(ttl)
    chosen = home.load_settings(config)
    from policies.delegation.chain import Principal
    from policies.delegation.permissions import BadPermission, Permissions
    from policies.tokens.verifier import DEVELOPMENT_ISSUER, mint_development_token

    if not chosen.is_development:
        raise CommandRefused(
            "the development issuer is off here", "get a token from your identity provider, or set identity.development: on"
        )
    if not re.fullmatch(r"[!-{}~]{1,128}", user) or not re.fullmatch(r"[a-z0-9-]{1,64}", tenant):
        raise WrongUsage("a user is 1 to 128 visible characters without |, a tenant 1 to 64 of a-z, 0-9 and -")
    narrowed = None if scope is None else " ".join(scope.split())
    try:
        Permissions.parse(narrowed.split(" ") if narrowed is not None else ())
    except BadPermission as error:
        raise WrongUsage(f"--scope: {error}", "omit --scope for all that the user may do") from error
    keys, audience = _open_token_keys(chosen, config, create_keys), _audience(chosen)
    minted = mint_development_token(keys, Principal(tenant, DEVELOPMENT_ISSUER, user), audience, narrowed, seconds)
    screen.print_note(f"for the gateway at {audience}, signed with key {keys.active_kid} of {(chosen.home / 'keys').absolute()}")
    if as_json:
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
        screen.print_json({"token": minted, "expires_at": expires.strftime("%Y-%m-%dT%H:%M:%SZ")})
    else:
        screen.print_text(minted)


def _open_token_keys(settings: "Settings", config: Path | None, create: bool) -> "SigningKeys":
    """The keys that sign tokens. Where neither a configuration file nor the home exists they are made only on request.

    No gateway would accept a token that keys of a wrong folder signed.
    """
    folder = (settings.home / "keys").absolute()
    is_new = not folder.is_dir()
    if is_new and not (create or settings.home.exists() or (config or DEFAULT_CONFIG).exists()):
        raise CommandFailed(
            f"there are no keys in {folder}: no gateway was started with this home",
            "run this in the folder in which the gateway was started, or set INTERLOCK_HOME to its home; "
            "--create-keys makes keys before the first start",
        )
    keys = home.open_signing_keys(settings, create=True)
    if is_new:
        screen.print_note(f"made new keys in {folder}; only a gateway with this home accepts what they sign")
    return keys


def _audience(settings: "Settings") -> str:
    """Returns the gateway URL that the token is for.

    It is the configured one, else that of the gateway started from this home, else INTERLOCK_URL.
    """
    if settings.server.public_url:
        return settings.public_url
    try:
        return str(json.loads((settings.home / "serving.json").read_text())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return (os.environ.get("INTERLOCK_URL") or settings.public_url).rstrip("/")


def _parse_duration(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,6})([smhd]?)", text)
    seconds = int(found[1]) * _SECONDS_PER_UNIT[found[2]] if found else 0
    if not 1 <= seconds <= DAY:
        raise WrongUsage(f"--ttl {text}: from 1s to 1d is expected, such as 90s, 30m or 8h")
    return seconds


def _check_port_free(host: str, port: int, command: str) -> None:
    """Raises CommandFailed for a port that can't be opened, before anything is loaded. `command` and another port start the gateway."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as error:
            todo = "choose a port above 1023, and put a proxy in front"
            raise BadConfiguration(f"can't listen on {host}:{port}: {error.strerror}", todo) from error
        except OSError as error:
            raise CommandFailed(f"can't listen on {host}:{port}: {error.strerror}", f"choose another: {command} {port + 1}") from error


def register(app: typer.Typer) -> None:
    for command in (serve, migrate):
        app.command()(command)
    app.command(epilog="Example: interlock token --user alice")(token)
