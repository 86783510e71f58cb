"""Parts of the convolutional networks: normalised convolutions, blur, noise inputs, adaptive instance normalisation.

All of it keeps the channels_last layout that it is given. On a CPU `mean` and `sum` over height and width are quick so, while
`var_mean`, `vector_norm`, group and instance normalisation are several times slower than those.
"""

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genae.precision import at_least_float32
from genae.randomness import generator_for
from genae.rows import draw_rows, own, whole

SLOPE = 0.2  # of every leaky ReLU in the papers' networks


# Convolutions whose weight is normalised before use.


class NormalizedConv2d(nn.Conv2d):
    """A convolution that computes its weight from its parameter; inside `fixed_weights` it does so once for all calls."""

    fixed: Tensor | None = None

    def normalized_weight(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define normalized_weight()")

    def forward(self, x: Tensor) -> Tensor:
        weight = self.normalized_weight() if self.fixed is None else self.fixed
        return F.conv2d(x, weight, self.bias, padding=self.padding)


@contextmanager
def fixed_weights(model: nn.Module) -> Iterator[None]:
    """Normalise every weight of `model` on entry and use the result in every forward pass inside.

    One training update passes through the encoder and the decoder several times with the same parameters: this gives it one
    power iteration and one rescaling. Gradients flow from all passes into the parameters. Inside itself it does nothing.
    """
    convolutions = [part for part in model.modules() if isinstance(part, NormalizedConv2d) and part.fixed is None]
    device = convolutions[0].weight.device.type if convolutions else "cpu"
    try:
        # A pass without gradients may come first, and one that needs them later. Norms keep all their digits.
        with torch.enable_grad(), torch.autocast(device, enabled=False):
            for convolution in convolutions:
                convolution.fixed = convolution.normalized_weight()
        yield
    finally:
        for convolution in convolutions:
            convolution.fixed = None


class EqualizedConv2d(NormalizedConv2d):
    """Equalised learning rate (Karras et al., 2018, Sec. 4.1): weight ~ N(0, 1), times sqrt(variance / fan_in) when used.

    variance: 2 where a leaky ReLU follows (He et al., 2015), 1 where nothing does.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0, *, variance: float = 2.0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)
        self.scale = math.sqrt(variance / (in_channels * kernel_size**2))

    def normalized_weight(self) -> Tensor:
        return self.weight * self.scale


SpectralVectors = Literal["constant", "differentiated"]


class SpectralConv2d(NormalizedConv2d):
    """Spectral normalisation (Miyato et al., 2018): the weight over its largest singular value, by power iteration.

    vectors: as in that paper, no gradient flows through the singular vectors; "differentiated", it flows through the iteration
    that they come from, as in the released automodulator, which has its own version. `left` is the running left vector; a use
    in train mode moves it by one iteration, one in eval mode leaves it. The released code moves it in every forward pass; under
    `fixed_weights`, as here in training, it moves once per update.
    """

    left: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        *,
        vectors: SpectralVectors = "constant",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding)
        self.vectors = vectors
        nn.init.kaiming_normal_(self.weight)
        nn.init.zeros_(self.bias)
        self.register_buffer("left", F.normalize(torch.randn(out_channels), dim=0))
        with torch.no_grad():
            for _ in range(15):  # a first estimate that is too low would start training with weights too large
                self.left.copy_(self._iterate()[0])

    def _iterate(self) -> tuple[Tensor, Tensor]:
        """The singular vectors after one more power iteration, left [O] and right [kH kW I]."""
        weight = self.weight.detach() if self.vectors == "constant" else self.weight
        matrix = weight.permute(0, 2, 3, 1).flatten(1)  # [O, kH kW I], a view in channels_last
        right = F.normalize(torch.mv(matrix.t(), self.left.clone()), dim=0)  # a copy, since `left` moves before the gradient
        return F.normalize(torch.mv(matrix, right), dim=0), right

    def normalized_weight(self) -> Tensor:
        left, right = self._iterate()
        if self.training:
            with torch.no_grad():
                self.left.copy_(left)
        sigma = torch.dot(left, torch.mv(self.weight.permute(0, 2, 3, 1).flatten(1), right))
        return self.weight / sigma


class EqualizedLinear(nn.Linear):
    """The same for a linear map. rate: its learning rate, over that of the optimiser (StyleGAN's lambda' = 0.01).

    The parameters are stored that much larger, and scaled down when used: Adam, whose steps do not know the size of a gradient,
    then moves what is used `rate` times as far.
    """

    def __init__(self, in_features: int, out_features: int, *, variance: float = 2.0, rate: float = 1.0) -> None:
        super().__init__(in_features, out_features)
        nn.init.normal_(self.weight, std=1 / rate)
        nn.init.zeros_(self.bias)
        self.rate = rate
        self.scale = math.sqrt(variance / in_features) * rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


# Normalisation of features, and what compares them between images.


class PixelNorm(nn.Module):
    """Each pixel's features over their root mean square (Karras et al., 2018, Sec. 4.2); of codes [N, D] each code's."""

    EPS = 1e-8

    def forward(self, x: Tensor) -> Tensor:
        x = at_least_float32(x)
        return x * (x.square().mean(1, keepdim=True) + self.EPS).rsqrt()


class MinibatchStdDev(nn.Module):
    """Appends one feature map that says how much images vary (Karras et al., 2018, Sec. 3): [N, C, H, W] -> [N, C + 1, H, W].

    Its one value is the standard deviation over the batch, averaged over features and places. group: images that are compared
    with one another; None is the whole batch, as in the paper, 4 what was released.
    """

    EPS = 1e-8  # under the root, whose gradient images that are all alike would otherwise make infinite

    def __init__(self, group: int | None = None) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        batch = whole(x)
        n, _, height, width = batch.shape
        group = n if self.group is None else min(self.group, n)
        if n % group:
            raise ValueError(f"a batch of {n} images cannot be parted into groups of {group}")
        y = at_least_float32(batch).unflatten(0, (group, n // group))  # [G, N / G, C, H, W]
        y = (y - y.mean(0)).square().mean(0)
        spread = (y + self.EPS).sqrt().mean((1, 2, 3), keepdim=True)  # [N / G, 1, 1, 1]
        return torch.cat([x, own(spread.repeat(group, 1, height, width)).to(x.dtype)], dim=1)


# Resampling.


def upsample(x: Tensor) -> Tensor:
    """Twice the height and width, nearest neighbour."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Blur(nn.Module):
    """Binomial filter [1, 2, 1] x [1, 2, 1] / 16 per channel, zeros outside (edges darken, as released)."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        kernel = torch.outer(line, line) / 16
        self.register_buffer("kernel", kernel.expand(channels, 1, 3, 3).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1, groups=x.shape[1])


# Noise inputs.


@functools.lru_cache(maxsize=64)
def _fixed_noise(layer: str, channels: int, size: int, device: torch.device) -> Tensor:
    """The one draw [1, C, H, W] that a layer adds to every image in eval mode; the same in every model and process."""
    with torch.inference_mode(False):  # it outlives the call, and may later stand in one that needs gradients
        noise = torch.randn(1, size, size, channels, generator=generator_for("cpu", "noise input", layer))
        return noise.permute(0, 3, 1, 2).to(device)


class Noise(nn.Module):
    """Adds N(0, 1) per element, times a learned scale per channel that starts at 0.

    shared: one map for all channels (StyleGAN), rather than one for each (the released automodulator). Train mode draws afresh
    from torch's global generator; eval mode adds one fixed draw to every image.
    """

    def __init__(self, channels: int, layer: str, *, shared: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.num_maps = 1 if shared else channels
        self.scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        if self.training:  # drawn in channels_last order: randn_like of such a tensor takes nine times as long
            shape, like = (height, width, self.num_maps), {"device": x.device, "dtype": x.dtype}
            noise = draw_rows(n, lambda n: torch.randn(n, *shape, **like)).permute(0, 3, 1, 2)
        else:
            noise = _fixed_noise(self.layer, self.num_maps, height, x.device).to(x.dtype)
        return torch.addcmul(x, noise, self.scale)


# Adaptive instance normalisation.


class _AdaIN(torch.autograd.Function):
    """scale * (x - mean) / std + shift, with statistics over height and width and the unbiased std.

    Keeps its input and no other map for the backward pass, and makes two maps in all where autograd would make six: at these
    sizes it is memory traffic that takes the time.
    """

    EPS = 1e-8  # under the root; the released code has none and divides by zero on a constant map

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        count = x.shape[2] * x.shape[3]
        mean = x.mean((2, 3), keepdim=True)  # [N, C, 1, 1]
        y = x - mean  # centred before squaring: E[x^2] - mean^2 cancels on nearly constant maps
        inverse = (y.square().sum((2, 3), keepdim=True) / (count - 1) + _AdaIN.EPS).rsqrt()
        ctx.save_for_backward(x, scale, mean, inverse)
        return torch.addcmul(shift, y, scale * inverse, out=y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, mean, inverse = ctx.saved_tensors
        count = x.shape[2] * x.shape[3]
        work = grad * x
        grad_shift = grad.sum((2, 3), keepdim=True)
        grad_scale = (work.sum((2, 3), keepdim=True) - mean * grad_shift) * inverse  # sum of grad * (x - mean) / std
        # The derivative of (x - mean) / std takes out the mean, and the part along itself, whose squares sum to count - 1:
        # grad_x = scale / std * (grad - mean(grad) - (x - mean) / std * grad_scale / (count - 1)).
        gain = scale * inverse
        along_x = -gain * inverse * grad_scale / (count - 1)
        torch.addcmul(-gain * grad_shift / count - along_x * mean, x, along_x, out=work)
        return work.addcmul_(grad, gain), grad_scale, grad_shift


def adain(x: Tensor, style: Tensor) -> Tensor:
    """Adaptive instance normalisation (Huang & Belongie, 2017): every feature map gets the mean and spread that `style` says.

    x: [N, C, H, W].  style: [N, 2 C], spreads first, then means.  Statistics and result are float32 under autocast too.
    """
    scale, shift = at_least_float32(style)[:, :, None, None].chunk(2, dim=1)  # [N, C, 1, 1] each
    return _AdaIN.apply(at_least_float32(x), scale, shift)


class StyleMap(nn.Linear):
    """g_i of the paper: code [N, D] -> style [N, 2 C] of one AdaIN. `bias` starts both halves, spreads and means."""

    def __init__(self, dim: int, channels: int, bias: float) -> None:
        super().__init__(dim, 2 * channels)
        nn.init.xavier_normal_(self.weight)
        nn.init.constant_(self.bias, bias)
