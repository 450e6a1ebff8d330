"""What a restoration does to the folders it restores into: looks for room, moves files, and undoes all of it where a step fails."""

import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gateway.storage.files.backups.archive import BackupUnusable

SLACK: Final = 1 << 20  # bytes that stay free


def refuse_without_room(needs: Iterable[tuple[Path, int]]) -> None:
    """Compares bytes that are to be written into folders with the free bytes of their disks. Raises BackupUnusable."""
    needed, folder_of = Counter[int](), dict[int, Path]()
    for folder, size in needs:
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        needed[existing.stat().st_dev] += size
        folder_of[existing.stat().st_dev] = existing
    for device, size in needed.items():
        free = shutil.disk_usage(folder_of[device]).free
        if size + SLACK > free:
            raise BackupUnusable(
                f"the backup unpacks to {size // 1_000_000} MB, and the disk of {folder_of[device]} has {free // 1_000_000} MB free",
                "nothing was restored; make room, or name a folder on another disk",
            )


def missing_paths(paths: Iterable[Path]) -> frozenset[Path]:
    """Returns those of the paths and their parents that do not exist."""
    return frozenset(each for path in paths for each in (path.absolute(), *path.absolute().parents) if not each.exists())


@contextmanager
def remove_on_failure(made: Collection[Path]) -> Iterator[None]:
    """Removes files, and folders without files of others, where the block fails."""
    try:
        yield
    except BaseException:
        for path in sorted(made, key=lambda each: len(each.parts), reverse=True):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise


@contextmanager
def undo_on_failure() -> Iterator["Moves"]:
    """Yields moves, which are undone where the block fails."""
    moves = Moves()
    try:
        yield moves
    except BaseException:
        moves.undo()
        raise


class Moves:
    """Files that were moved."""

    def __init__(self) -> None:
        self._done: list[tuple[Path, Path]] = []

    def move(self, source: Path, target: Path) -> None:
        """Moves a file to a path that leads to no file, below folders that are made with mode 0700. Raises OSError."""
        for folder in reversed(target.parents):
            folder.mkdir(mode=0o700, exist_ok=True)
        source.rename(target)
        self._done.append((source, target))

    def undo(self) -> None:
        """Moves all files back."""
        while self._done:
            source, target = self._done.pop()
            target.rename(source)
