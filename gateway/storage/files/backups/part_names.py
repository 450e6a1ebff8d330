"""The names of the parts of a backup: those that a backup has, and no others."""

from pathlib import PurePosixPath
from typing import Final

from gateway.storage.files.backups import home_files
from gateway.storage.files.backups.archive import MANIFEST, Manifest

SQLITE: Final = "sqlite"
POSTGRES: Final = "postgresql"
PART_OF: Final = {SQLITE: "database/interlock.db", POSTGRES: "database/interlock.dump"}
PUBLIC_KEYS: Final = "public-keys.json"
ENCRYPTED_KEYS: Final = "secrets/keys.encrypted"
HOME: Final = "home/"
SECRETS: Final = "secrets/"


def unknown_part(manifest: Manifest) -> str | None:
    """Returns the name of a part that no backup of this kind has or that is missing, and None where all are as they should be."""
    names = manifest.part_names()
    required = {PUBLIC_KEYS, PART_OF.get(manifest.database, MANIFEST)}
    if len(names) != len(manifest.parts) or not required <= names:
        return min(required - names, default=MANIFEST)
    return next((part.name for part in manifest.parts if part.size < 0 or not (part.name in required or is_of_home(part.name))), None)


def is_of_home(name: str) -> bool:
    """Whether a part is a file of the home that a backup would have, or a key."""
    if name == ENCRYPTED_KEYS:
        return True
    folder = next((each for each in (HOME, SECRETS) if name.startswith(each)), None)
    return folder is not None and is_safe(inner := name.removeprefix(folder)) and _belongs(inner, is_secret=folder == SECRETS)


def is_safe(name: str) -> bool:
    """Whether a name leads to a file below the folder that it is extracted to."""
    path = PurePosixPath(name)
    return bool(path.parts) and str(path) == name and not path.is_absolute() and ".." not in path.parts and name.isprintable()


def _belongs(name: str, *, is_secret: bool) -> bool:
    return home_files.is_key(name) == is_secret and (name in home_files.READ_APART or home_files.is_backed_up(name))
