"""The layouts of corpora with one camera, for tests of their readers."""

from types import SimpleNamespace

import pytest

from layouts import LAYOUTS, Sample, write_frames, write_table, write_video


@pytest.fixture
def layouts():
    """Writers of corpora, and what else tests of their readers need."""
    return SimpleNamespace(Sample=Sample, table=write_table, frames=write_frames, video=write_video, **LAYOUTS)
