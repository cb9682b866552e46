"""Named errors for what users bring: data, settings, environments.

Every error is one sentence with the same four parts, so that a person knows what to do and a
program can lay the parts out in a table.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class MER4DError(Exception):
    """A problem with the user's data or settings.

    Args:
        where: The clip, file or setting that is at fault.
        expected: What mer4d needs there.
        found: What is there instead.
        remedy: What the user can do about it.

    Example:
        >>> print(AnnotationError("clip 'S1_01' in sheet.csv", "Apex within 10..30", "31", "correct it"))
        clip 'S1_01' in sheet.csv: expected Apex within 10..30, found 31; correct it.
    """

    def __init__(self, where: object, expected: str, found: object, remedy: str) -> None:
        # As text, because errors travel between processes and not everything that is found can be pickled.
        super().__init__(str(where), expected, str(found), remedy)
        self.where, self.expected, self.found, self.remedy = self.args

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, found {self.found}; {self.remedy}."


class AnnotationError(MER4DError):
    """The annotation sheet is missing, incomplete or contradicts itself."""


class FrameError(MER4DError):
    """Frames are missing, or an image, mesh or texture cannot be read."""


class FaceError(MER4DError):
    """No face was found where one should be."""


class SettingError(MER4DError):
    """A setting is impossible, or does not fit the data it is used with."""


class FoldError(MER4DError):
    """The corpus cannot be split as the protocol demands, or a split would leak the held-out subject."""


class CacheError(MER4DError):
    """A cache entry is missing, damaged or cannot be written."""


class RunError(MER4DError):
    """A run directory does not fit what is being run, or a fold did not do what it should."""


class ClusterError(MER4DError):
    """A cluster cannot be reached, or its machines are not as they must be."""


class InstallationError(MER4DError):
    """A package of the environment lacks something mer4d needs."""


@dataclass(frozen=True)
class Defect:
    """A flaw of the data that was noted so that the next one could be found too, instead of being raised.

    Args:
        clip_id: Clip that has it; None where it is the corpus as a whole.
        error: What is wrong, and what to do.
        doubt: Empty where the clip cannot be used. Otherwise the name of a flaw that leaves the clip usable, such as
            `gap`, which a corrections file can accept.
    """

    clip_id: str | None
    error: MER4DError
    doubt: str = ""


def disk_is_full(error: OSError) -> bool:
    """Whether there was no room for a file: on the disk, within a quota, or below the largest size that is allowed.

    Example:
        >>> disk_is_full(OSError(errno.ENOSPC, "No space left on device")), disk_is_full(FileNotFoundError())
        (True, False)
    """
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def told() -> Iterator[None]:
    """Ends the program with one sentence where data or settings of the user are wrong, or where Ctrl-C is pressed."""
    try:
        yield
    except MER4DError as error:
        sys.exit(f"mer4d: {type(error).__name__}: {error}")
    except OSError as error:
        if not disk_is_full(error):
            raise
        sys.exit(f"mer4d: {error.strerror}: {error.filename or 'a file'} was not written; free space and try again")
    except KeyboardInterrupt:
        sys.exit("mer4d: interrupted; the same command goes on where it stopped")
