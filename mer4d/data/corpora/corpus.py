"""What a reader of a corpus is: a folder in, clips out, and everything that is wrong with it named at once."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mer4d.clip import Clip
from mer4d.errors import Defect, MER4DError


@dataclass(frozen=True)
class Survey:
    """All that a reader found.

    Args:
        clips: Usable clips in the order of the annotation.
        classes: Names along the label axis K.
        multi_label: Whether a clip may belong to several classes.
        defects: What is wrong, in the order it was found; clips that cannot be used are here and not among `clips`.
        notes: What was done on purpose and should be seen: corrections, clips left out by the choice of classes.
    """

    clips: tuple[Clip, ...]
    classes: tuple[str, ...]
    multi_label: bool
    defects: tuple[Defect, ...] = ()
    notes: tuple[str, ...] = ()


class Corpus(ABC):
    """Reader of a corpus. Its fields are the settings; it holds no state."""

    @abstractmethod
    def survey(self, root: Path) -> Survey:
        """Reads the annotation and finds every clip's frames, without opening them.

        Args:
            root: Folder of the corpus.

        Returns:
            What was found. Only what leaves nothing to read is raised instead of noted.

        Raises:
            AnnotationError: There is no annotation, or it cannot be read.
            FrameError: The folder does not exist.
            SettingError: A setting does not fit the corpus.
        """

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the corpora that are read as one; their subjects are called `corpus-subject`. None elsewhere."""
        return ()

    def read(self, root: Path | str) -> tuple[Clip, ...]:
        """All clips, for who wants nothing but a sound corpus.

        Raises:
            MER4DError: As in `survey`, and the first defect that makes a clip unusable.
        """
        survey = self.survey(Path(root))
        for defect in survey.defects:
            if not defect.doubt:
                raise defect.error
        return survey.clips


class Ledger:
    """Where a reader notes what is wrong while it goes on."""

    def __init__(self) -> None:
        self.defects: list[Defect] = []

    @contextmanager
    def noting(self, clip_id: str | None) -> Iterator[None]:
        """Notes the error that ends the block instead of passing it on."""
        try:
            yield
        except MER4DError as error:
            self.defects.append(Defect(clip_id, error))

    def doubt(self, kind: str, clip_id: str | None, error: MER4DError) -> None:
        """Notes a flaw that leaves the clip usable."""
        self.defects.append(Defect(clip_id, error, kind))
