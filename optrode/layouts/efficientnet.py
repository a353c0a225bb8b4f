"""EfficientNet-Lite: inverted residual blocks on images; the stream changes its size where a stage begins."""

from .base import PIXELS, VECTOR, Equation, Layout, Port


def _pixels(module: str, side: str, says: str) -> Port:
    return Port(module, side, says, PIXELS, channels_first=True)


LAYOUT = Layout(
    name="efficientnet",
    module_classes=("EfficientNetLite0",),
    blocks="_blocks",
    ports={
        "in": _pixels("", "in", "stream before the block"),
        "expanded": _pixels("_expand_activation", "out", "in, widened by a 1x1 convolution, normed and clipped"),
        "depthwise": _pixels("_depthwise_activation", "out", "each channel filtered by itself, normed and clipped"),
        "narrowed": _pixels("_bn2", "out", "depthwise, narrowed by a 1x1 convolution and normed"),
        "part": _pixels("_drop_branch", "out", "what the block adds; only in blocks with a skip connection"),
        "out": _pixels("", "out", "in + part, or narrowed where there is no skip connection"),
    },
    outer_before={"embed": _pixels("_stem_activation", "out", "image after the stem convolution")},
    outer_after={
        "final": _pixels("_head_activation", "out", "last out, widened by the head convolution"),
        "pooled": Port("_flatten", "out", "mean of final over the image: the penultimate vector", VECTOR),
    },
    head=Port("_fc", "out", "logits over the classes", VECTOR),
    equations=(Equation("out", ("in", "part")),),
    causal=False,
)
