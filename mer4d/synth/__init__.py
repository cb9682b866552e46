"""The embedded corpus: synthetic 4D micro-expressions, on disk as a real corpus would lie there, or in memory."""

from mer4d.synth.corpus import is_synthetic, write_clips, write_corpus
from mer4d.synth.recording import Corpus, Recording, Take, record
from mer4d.synth.truth import Truth, exact_flow, read_truth, visible

__all__ = [
    "Corpus",
    "Recording",
    "Take",
    "Truth",
    "exact_flow",
    "is_synthetic",
    "read_truth",
    "record",
    "visible",
    "write_clips",
    "write_corpus",
]
