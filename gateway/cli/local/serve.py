"""serve, migrate and token: commands on the gateway's own machine."""

import json
import os
import re
import socket
from contextlib import nullcontext
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
    chosen = home.load_settings(config, host=host, port=port, grpc_port=grpc_port, workers=workers)
    if chosen.workers > 1 and chosen.database_url.startswith("sqlite"):
        problem, todo = (
            f"{chosen.workers} workers need Postgres: SQLite is written by one process",
            "set INTERLOCK_DATABASE__URL=postgresql://…",
        )
        raise WrongUsage(problem, f"{todo}, or remove --workers") if workers else BadConfiguration(problem, f"{todo}, or workers: 1")
    _check_settings(chosen)
    _check_port_free(chosen.host, chosen.port, "--port")
    if chosen.grpc_port:
        if chosen.grpc_port == chosen.port:
            raise WrongUsage("gRPC needs a port of its own", f"interlock serve --grpc-port {chosen.port + 1}")
        _check_port_free(chosen.host, chosen.grpc_port, "--grpc-port")
    from gateway.server.app import serve as run
    from gateway.storage.database_start import DatabaseUnusable
    from gateway.storage.files.data_folder import HomeInUse
    from policies.cedar.engine import BadPolicy
    from policies.keys.key_folder import KeysUnusable

    try:
        run(chosen)
    except (FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError) as error:
        raise _home_problem(chosen.home, error) from error
    except (DatabaseUnusable, HomeInUse) as error:
        raise CommandFailed(str(error), error.todo) from error
    except (BadPolicy, KeysUnusable) as error:
        raise BadConfiguration(str(error), "interlock check verifies all that the gateway needs") from error
    except OSError as error:
        raise CommandFailed(str(error), "interlock check verifies all that the gateway needs") from error
    except SystemExit as ended:
        if ended.code:
            kind = BadConfiguration if ended.code == BadConfiguration.exit_code else CommandFailed
            raise kind("the gateway did not start", "the log above says why; interlock check verifies all that it needs") from ended


def _home_problem(home_folder: Path, error: OSError) -> CommandFailed:
    """Returns what to say of a file or folder that can't be used: of one within the home, which exists, by its own name."""
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    if named is not None and home_folder.is_dir() and named != home_folder:
        return CommandFailed(f"{named} can't be used: {error.strerror}", "interlock check verifies all that the gateway needs")
    return CommandFailed(f"INTERLOCK_HOME is {home_folder}, where no folder can be: {error.strerror}", "set it to a folder of yours")


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
    from gateway.storage.database_start import DatabaseUnusable, DatabaseWait, problem_of, wait_for_database
    from gateway.storage.files.data_folder import HomeInUse
    from gateway.storage.files.database_file import lock_database_file
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
    except (DatabaseUnusable, HomeInUse) as error:
        raise CommandFailed(str(error), error.todo) from error
    except (SQLAlchemyError, OSError) as error:
        reason = problem_of(error) if isinstance(error, SQLAlchemyError) else str(error)
        raise CommandFailed(
            f"the database was not migrated: {reason}", "is it running, and may this user write to it? interlock check"
        ) from error
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


def _check_port_free(host: str, port: int, option: str) -> None:
    """Raises CommandFailed for a port in use, before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandFailed(
                f"can't listen on {host}:{port}: {error.strerror}", f"choose another: interlock serve {option} {port + 1}"
            ) from error


def register(app: typer.Typer) -> None:
    for command in (serve, migrate):
        app.command()(command)
    app.command(epilog="Example: interlock token --user alice")(token)
