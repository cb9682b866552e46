"""What the commands of `mer4d` are for. Nothing is imported here, so that their list is there at once."""

CORPUS = {
    "check": "Read everything and name all that is wrong with a corpus; exit code 0 only where nothing is.",
    "manifest": "Write the corpus as one CSV that can be reviewed, corrected and read back.",
    "prepare": "Fill the cache of flow tensors, on all cores.",
    "show": "Draw clips as they go through the pipeline: views, crops, apex curve and flow.",
}
"""Commands that take the same configuration as `fit` and look at its `data` alone."""

PROTOCOL = {
    "loso": "Hold out every subject once and report the pooled result.",
    "audit": "Show by experiment that held-out subjects influence nothing; exit code 0 only where that holds.",
    "ablation": "Run `loso` as configured and with the differences of each of several files, and compare.",
}
"""Commands that take the same configuration as `fit`."""

LIGHTNING = {
    "fit": "Train one network, on all subjects or on all but --data.test_subject.",
    "validate": "Score a checkpoint on the validation subjects.",
    "test": "Score a checkpoint on the subject that --data.test_subject holds out.",
}
"""Commands of LightningCLI, but for `predict`, which takes its settings from the model that predicts."""

SYNTH = {"synth": "Write a synthetic corpus of textured mesh sequences."}

RESULT = {
    "report": "Write one page about a run, or about several side by side, that opens in any browser.",
    "compare": "Say whether runs on the same clips are better than the first of them.",
    "explain": "Say what moved a finished LOSO to its predictions, and where on the face.",
    "repeat": "Run a finished LOSO again from its record, and say whether it comes out the same.",
}

NETWORK = {
    "predict": "Predict new clips with a checkpoint, a fold, or all networks of a run together.",
    "export": "Write a trained network as ONNX and for torch.export, checked, with a model card.",
}

CONFIGURED = LIGHTNING | CORPUS | PROTOCOL
"""All that take a configuration."""

FUNCTIONS = SYNTH | RESULT | NETWORK
"""All that are one function, whose parameters they take."""

GROUPS = {
    "A corpus": SYNTH | CORPUS,
    "An experiment": PROTOCOL,
    "Its result": RESULT,
    "A trained network": NETWORK,
    "A single training, by Lightning": LIGHTNING,
}
"""Heading to commands, in the order of use."""
