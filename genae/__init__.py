"""genae: a benchmark suite for generative autoencoders."""

__version__ = "0.1.0"


def load(run: str, device: str = "cpu"):
    """The trained model of a run directory, in eval mode: `model.encode`, `model.decode`, `model.sample_codes`.

    run: path of a run directory, or of one checkpoint file in it. The averaged weights are used where the run kept them.
    """
    from genae.checkpoint import load_model  # late: `import genae` alone must not import torch

    return load_model(run, device)
