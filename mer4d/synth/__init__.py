"""The embedded corpus: synthetic 4D micro-expressions, written to disk as a real corpus would lie there."""

from mer4d.synth.corpus import write_corpus

__all__ = ["write_corpus"]
