"""THE CONTRACT of models: a latent space, an encoder, a decoder. Metrics and figures see only this.

A registered factory takes the image shape (channels, height, width) at full resolution and keyword-only settings, and returns a
Generator or an Autoencoder.

An encoder is a module `encoder(images, growth) -> raw codes [N, D]`, a decoder a module `decoder(codes, growth) -> images`; the
latent space turns raw codes into codes. A layered decoder (modulated block by block) takes `[N, L, D]` too, one code per block,
and has `num_layers`, `layer_resolutions`, `layers_at(growth)`, `canvas(codes, upto, growth)` and `with_canvas(codes, upto,
growth)`. A network that is grown says so by `grows = True`.

A model calls its networks through `by_rows`: where several processes train it, each then computes its rows of the batch. What
is called without is computed by each of them, and as right (genae/rows.py).

What a model can do is in `provides`, a set of words:

    decode        every model does: codes to images
    sample        codes can be drawn: there is a prior, or a density was learned of the codes
    encode        images to codes
    encoder       and that by a part of its own, `model.encoder`, which can be trained apart from the decoder
    posterior     a Gaussian per image (models/variational.py)
    layers        one code per layer of the decoder
    growth        its networks are grown
    discriminate  `discriminate(images, growth)`: logits [N], larger for what looks real (models/adversarial.py)
    discriminate_codes  `discriminate_codes(codes)`: logits [N], larger for what looks drawn from the prior
                  (models/adversarial_autoencoder.py)
    density       a density was learned of the codes: `model.density` (densities/density.py)
    log_prob      `log_prob(images)`: the log of the density of each image, [N], in nats, of pixels in [-1, 1]
    bound         `bound(images, num_draws, generator)`: a lower bound of log p(x) of each image, [N], in nats, of pixels in
                  [0, 1]; the tighter the more draws
"""

import torch
from torch import Tensor, nn

from genae.densities.density import Density
from genae.latent import Free, Gaussian, GaussianMixture, Sphere
from genae.rows import by_rows
from genae.schedule import Growth

Latent = Gaussian | GaussianMixture | Sphere | Free


class Generator(nn.Module):
    """Decodes codes to images and draws codes.

    drawn: what `sample_codes` gives, for captions.
    """

    drawn: str = "decoded codes drawn at random"

    def __init__(self, latent: Latent, decoder: nn.Module) -> None:
        super().__init__()
        self.latent = latent
        self.decoder = decoder
        self.density: Density | None = None

    @property
    def provides(self) -> frozenset[str]:
        sample = {"sample"} if self.latent.has_prior or self.density is not None else set()
        density = {"density"} if self.density is not None else set()
        layers = {"layers"} if hasattr(self.decoder, "num_layers") else set()
        growth = {"growth"} if getattr(self.decoder, "grows", False) else set()
        return frozenset({"decode"} | sample | density | layers | growth)

    @property
    def num_layers(self) -> int:
        """L of codes `[N, L, D]`: the resolution blocks of the full decoder, grown or not; 1 for a decoder without layers."""
        return getattr(self.decoder, "num_layers", 1)

    @property
    def layer_resolutions(self) -> tuple[int, ...]:
        """The resolution at which each of the L layers works, as (4, 8, 16): what "coarse" and "fine" layers are told by."""
        if "layers" not in self.provides:
            raise ValueError("this decoder has no layers")
        return self.decoder.layer_resolutions

    def layers_at(self, growth: Growth | None = None) -> int:
        """N <= L: the blocks that images at `growth` pass through; 1 for a decoder without layers."""
        return self.decoder.layers_at(growth) if "layers" in self.provides else 1

    @property
    def device(self) -> torch.device:
        return next((tensor.device for tensor in self.parameters()), torch.device("cpu"))

    def decode(self, codes: Tensor, growth: Growth | None = None) -> Tensor:
        """Codes [N, D], or [N, L, D] with one code per layer -> images [N, C, H, W], nominally in [-1, 1].

        growth: how far the network has grown; None means fully. Blocks not yet grown ignore their code.
        """
        if codes.ndim == 3 and "layers" not in self.provides:
            raise ValueError("this decoder takes one code per image, [N, D]; it has no layers to give codes to")
        return by_rows(self.decoder, codes, growth)

    def canvas(self, codes: Tensor, upto: int, growth: Growth | None = None) -> Tensor:
        """theta_{1:j}: the features [N, C_j, H_j, W_j] after block j = `upto` (Heljakka et al., 2020, Sec. 3.2)."""
        if "layers" not in self.provides:
            raise ValueError("this decoder has no layers")
        return by_rows(self.decoder.canvas, codes, upto, growth)

    def decode_with_canvas(self, codes: Tensor, upto: int, growth: Growth | None = None) -> tuple[Tensor, Tensor]:
        """`decode` and `canvas` in one pass: the images, and the features after block `upto` that they were made from."""
        if "layers" not in self.provides:
            raise ValueError("this decoder has no layers")
        return by_rows(self.decoder.with_canvas, codes, upto, growth)

    def prior(self, n: int, generator: torch.Generator) -> Tensor:
        """n codes [n, D] from the latent space's prior (of one without, points to probe the decoder with)."""
        return self.latent.sample(n, generator)

    def sample_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """n codes [n, D] to decode into samples: from the prior, unless a density was learned. Needs "sample"."""
        if self.density is not None:
            return self.latent.project(self.density.sample(n, generator))  # a density knows nothing of a sphere
        if not self.latent.has_prior:
            raise ValueError("this model has no prior and no density was learned of its codes: there is nothing to sample from")
        return self.prior(n, generator)


class Autoencoder(Generator):
    """A Generator that also encodes."""

    def __init__(self, latent: Latent, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__(latent, decoder)
        self.encoder = encoder

    @property
    def provides(self) -> frozenset[str]:
        return super().provides | {"encode", "encoder"}

    def encode(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        """Images [N, C, H, W] in [-1, 1] -> codes [N, D]. At `growth`, H = W = growth.resolution."""
        return self.latent.project(by_rows(self.encoder, images, growth))


def mix(codes_a: Tensor, codes_b: Tensor, split: Tensor | int, num_layers: int, first: int = 1) -> Tensor:
    """Layer codes [N, L, D] that follow A in layers first..split and B elsewhere: z_AB of Heljakka et al. (2020), Sec. 3.2.

    codes_a, codes_b: [N, D].  split: a number, or [N] with one split per image; 0 is all B, L (from the first layer) all A.
    """
    layer = torch.arange(1, num_layers + 1, device=codes_a.device)  # [L]
    if isinstance(split, Tensor):
        split = split.to(codes_a.device).reshape(-1, 1)  # [N or 1, 1]; a plain number needs no copy to the device
    of_a = (first <= layer) & (layer <= split)
    return torch.where(of_a[..., None], codes_a[:, None], codes_b[:, None])  # [N or 1, L, 1] chooses
