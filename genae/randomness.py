"""Where every random number comes from: generators keyed by what they are for.

No state is carried from draw to draw, so whoever knows the key repeats the draw: a resumed step, another process, a test.
"""

import hashlib

import torch


def seed_for(*key: object) -> int:
    """A 56-bit seed that depends on every part of the key (`seed_for(run_seed, "autoencoder", images_seen)`)."""
    digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
    return int.from_bytes(digest[:7], "little")


def generator_for(device: torch.device | str, *key: object) -> torch.Generator:
    """A fresh torch generator on `device`, seeded by the key."""
    return torch.Generator(device).manual_seed(seed_for(*key))


def on_host(generator: torch.Generator) -> torch.Generator:
    """A CPU generator for decisions that steer the program (which layer, whether to swap), fed by `generator`.

    On a CPU it is `generator` itself. An accelerator's is not waited for: its state, which the host knows, is the key, and one
    number is drawn from it so that the next call has another.
    """
    if generator.device.type == "cpu":
        return generator
    state = generator.get_state().numpy().tobytes().hex()
    torch.rand((), generator=generator, device=generator.device)
    return generator_for("cpu", "on host", state)
