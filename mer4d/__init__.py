"""mer4d: 4D micro-expression recognition, from textured face meshes to leave-one-subject-out results."""

__version__ = "0.1.0"
