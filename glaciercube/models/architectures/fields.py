"""How far networks see, counted backwards from an output pixel through their layers; no torch.

Each function follows the first and the last pixel that a pixel depends on, for the worst place in a block: a 3 by 3
convolution adds one on each side, a pooling doubles, an enlargement halves.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["front_field", "hed_field", "segnet_field"]


def segnet_field(depths: Sequence[int]) -> int:
    """Pixels on each side that `GlacierNet` sees.

    Parameters
    ----------
    depths : sequence of int
        Convolutions at each resolution, down and up.
    """
    reach = 0
    for place in range(2 ** len(depths)):
        first = last = place
        for depth in depths:  # convolutions, then the pixel's cell
            first, last = (first - depth) // 2, (last + depth) // 2
        for depth in reversed(depths):  # the cell's pixels, then convolutions
            first, last = 2 * first - depth, 2 * last + 1 + depth
        reach = max(reach, place - first, last - place)
    return reach


def front_field(scales: int) -> int:
    """Pixels on each side that `FrontUNet` sees.

    Parameters
    ----------
    scales : int
        Number of scales, from half the resolution down.
    """
    reach = 0
    for place in range(2**scales):
        first = last = place // 2  # four pixels go together
        for _ in range(scales - 1):  # two convolutions, then the coarser pixel
            first, last = (first - 2) // 2, (last + 2) // 2
        for _ in range(scales - 1):  # two convolutions, then the finer pixels
            first, last = 2 * (first - 2), 2 * (last + 2) + 1
        first, last = 2 * (first - 2), 2 * (last + 2) + 1
        # Local means: the cells about the pixel's, enlarged bilinearly, four cells on, all their pixels.
        first, last = (2 * first - 3) // 8 - 4, (2 * last - 3) // 8 + 1 + 4
        reach = max(reach, place - 4 * first, 4 * last + 3 - place)
    return reach


def hed_field(scales: int) -> int:
    """Pixels on each side that `HEDUNet` sees.

    Parameters
    ----------
    scales : int
        Number of scales, full resolution among them.
    """
    reach = 0
    for place in range(2 ** (scales - 1)):
        for scale in range(scales):
            factor = 2**scale
            # Bilinear enlargement: the pixel's centre lies between those of two coarse pixels.
            first = (2 * place + 1 - factor) // (2 * factor)
            last = first + (1 if factor > 1 else 0)
            for _ in range(scale, scales - 1):  # two convolutions, then the coarser pixel
                first, last = (first - 2) // 2, (last + 2) // 2
            for _ in range(scales - 1):  # two convolutions, then the finer pixels
                first, last = 2 * (first - 2), 2 * (last + 2) + 1
            reach = max(reach, place - first, last - place)
    return reach
