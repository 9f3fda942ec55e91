"""The contract of each architecture: its usual inputs, sizes and reach, with whatever is to be otherwise; no torch."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from glaciercube.errors import ModelError
from glaciercube.models.architectures.fields import front_field, hed_field, segnet_field
from glaciercube.models.classes import ICE, PRESENCE, SIDES, ZONES, Output
from glaciercube.models.contract import Contract, Modality, Parameter, Reflectance
from glaciercube.models.reach import TimeContext, Windows

__all__ = ["architecture_contract", "architecture_names"]

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
# Round figures for mountains with snow and ice; training puts those of its own samples in their place.
OPTICAL = Modality("optical", BANDS, mean=(0.45, 0.44, 0.43, 0.42, 0.12, 0.10), std=(0.3, 0.3, 0.3, 0.28, 0.1, 0.09))
RADAR = Modality("radar", ("vv_db", "vh_db"), mean=(-11.0, -18.0), std=(5.0, 5.0), clip=(-4.0, 4.0))
TERRAIN = Modality(
    "terrain",
    ("slope", "aspect_sin", "aspect_cos", "curvature"),
    static=True,
    mean=(20.0, 0.0, 0.0, 0.0),
    std=(14.0, 0.7, 0.7, 0.004),
    clip=(-4.0, 4.0),
)
# Limits of Maslov et al. (2025) as means (the least) and deviations (the range): values then lie in 0..1.
_LEAST = (-0.0037, -0.0200, -0.0186, -0.0270, -0.0255, -0.0245)
_MOST = (2.0468, 2.1253, 2.2303, 2.6781, 2.1246, 2.1602)
GLAVITU_OPTICAL = Modality("optical", BANDS, mean=_LEAST, std=tuple(b - a for a, b in zip(_LEAST, _MOST, strict=True)))
GLAVITU_DEM = Modality(
    "dem", ("elevation", "slope"), static=True, mean=(-103.297, 0.0), std=(8349.427 + 103.297, 88.978)
)
ICEMAPPER_RADAR = Modality("radar", ("vv_db", "vh_db"), mean=(-121.29, -121.29), std=(165.59, 165.59))
DL4GAM_OPTICAL = replace(OPTICAL, variables=BANDS[:5], mean=OPTICAL.mean[:5], std=OPTICAL.std[:5])
DL4GAM_TERRAIN = Modality(
    "terrain",
    ("elevation", "slope", "aspect_sin", "aspect_cos", "curvature"),
    static=True,
    mean=(2700.0, 0.0, 0.0, 0.0, 0.0),
    std=(600.0, 90.0, 1.0, 1.0, 0.004),
)
#: Hugonnet et al. (2021): 0 where unknown, as DL4GAM has it.
ELEVATION_CHANGE = Modality("elevation_change", ("elevation_change",), static=True, evidence=False)
#: Grey values of any band, 0 and 1 at their 2nd and 98th percentiles over the image.
BRIGHTNESS = Modality("image", ("brightness",), mean=(0.45,), std=(0.27,), clip=(-4.0, 6.0))
BACKSCATTER = Modality("radar", ("vv_db",), mean=(-12.0,), std=(7.0,), clip=(-4.0, 4.0))


@dataclass(frozen=True)
class _Kind:
    """What is usual for an architecture; switches are parameters that are named only where they are off."""

    modalities: tuple[Modality, ...]
    parameters: Mapping[str, Parameter]
    description: str
    references: tuple[str, ...]
    windows: Windows | None = None
    time_context: TimeContext | None = None
    stride: Callable[[Mapping[str, Parameter]], int] = field(default=lambda _: 1)
    reach: Callable[[Mapping[str, Parameter]], int] = field(default=lambda _: 0)
    classes: tuple[str, ...] = PRESENCE
    outputs: tuple[Output, ...] = ()
    reflectance: Reflectance | None = "either"
    resolution: tuple[float, float] = (10.0, 30.0)
    switches: tuple[str, ...] = ()


def architecture_names() -> tuple[str, ...]:
    """Architectures that `architecture_contract` knows."""
    return (*_KINDS, "fusion-unet", "fusion-unet-time")


def architecture_contract(
    architecture: str,
    *,
    modalities: tuple[Modality, ...] | None = None,
    classes: tuple[str, ...] | None = None,
    outputs: tuple[Output, ...] | None = None,
    windows: Windows | None = None,
    time_context: TimeContext | None = None,
    **parameters: Parameter,
) -> Contract:
    """Contract of an untrained architecture.

    Parameters
    ----------
    architecture : str
        One of `architecture_names`.
    modalities : tuple of Modality, optional
        Other inputs than the published ones.
    classes : tuple of str, optional
        What to tell apart, by name; ``rock_glacier``, or the zones of a calving front, are a matter of these names.
    outputs : tuple of Output, optional
        Sums of classes; by default those of the architecture, or the probability of ``glacier``, or, without such a
        class, of those whose names say that they are of a glacier.
    windows : Windows, optional
        Other windows than the published ones, of global architectures only.
    time_context : TimeContext, optional
        Another than the usual one, of architectures over several dates only.
    **parameters
        Widths, depths and the like, in place of the published ones.

    Raises
    ------
    ModelError
        If the architecture or a parameter is unknown, or something is given that it has no use for.
    """
    if architecture not in architecture_names():
        raise ModelError(f"no architecture is called {architecture!r}", _hint(architecture, architecture_names()))
    kind = _fusion_kind(architecture) if architecture.startswith("fusion-unet") else _KINDS[architecture]
    for name in parameters:
        if name not in {*kind.parameters, *kind.switches, "temperature", "shift"}:
            known = (*kind.parameters, *kind.switches)
            raise ModelError(f"{architecture} has no parameter {name!r}", _hint(name, known))
    for given, usual, what in (
        (windows, kind.windows, "windows: its receptive field is finite"),
        (time_context, kind.time_context, "time context: it takes single dates"),
    ):
        if given is not None and usual is None:
            raise ModelError(f"{architecture} has no use for a {what}", "leave it out")
    merged = {**kind.parameters, **parameters}
    # Contracts from before a switch, and so their models, keep their hash.
    merged = {name: value for name, value in merged.items() if name not in kind.switches or value is not True}
    named = classes or kind.classes
    return Contract(
        name=architecture,
        version="0",
        architecture=architecture,
        modalities=modalities or kind.modalities,
        parameters=merged,
        reflectance=kind.reflectance,
        receptive_field="global" if kind.windows else kind.reach(merged),
        stride=kind.stride(merged),
        windows=windows or kind.windows,
        time_context=time_context or kind.time_context,
        resolution=kind.resolution,
        classes=named,
        outputs=outputs or _outputs(kind, architecture, named),
        description=kind.description,
        references=kind.references,
    )


def _outputs(kind: _Kind, architecture: str, classes: tuple[str, ...]) -> tuple[Output, ...]:
    if kind.outputs and classes == kind.classes:
        return kind.outputs
    return (Output(classes=_glacier(architecture, classes)),)


def _glacier(architecture: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(name for name in classes if name in ICE)
    if not found:
        raise ModelError(
            f"none of the classes {', '.join(classes)} of {architecture} is known to be of a glacier",
            "give outputs, for example Output('rock_glacier_probability', ('rock_glacier',))",
        )
    return found


def _fusion_kind(architecture: str) -> _Kind:
    from glaciercube.models.fusion_unet import fusion_contract, receptive_field

    usual = fusion_contract()
    kept = {"widths": usual.parameters["widths"]}
    of_time = architecture == "fusion-unet-time"
    return _Kind(
        modalities=usual.modalities,
        parameters={**kept, "attention_heads": 4} if of_time else kept,
        description=usual.description,
        references=(*usual.references, *(("https://doi.org/10.1109/ICCV48922.2021.00483",) if of_time else ())),
        # Two seasons on either side: long enough for a cloudy summer, short against a glacier's retreat.
        time_context=TimeContext(before=200.0, after=200.0, most=4) if of_time else None,
        stride=lambda found: 2 ** (len(_tuple(found["widths"])) - 1),
        reach=lambda found: receptive_field(len(_tuple(found["widths"])) - 1),
        switches=("residual",),
    )


def _tuple(value: Parameter) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        raise ModelError(f"widths or depths are {value!r}", "give several whole numbers")
    return value


def _hint(given: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f"{f'did you mean {close[0]!r}? ' if close else ''}choose {', '.join(known)}"


#: Radar images of calving fronts are of 6 to 20 m (CaFFe), optical ones of 30 and more.
_FRONTS = (5.0, 60.0)
_RESNET_WIDTHS = (64, 128, 256, 512)
_KINDS: Mapping[str, _Kind] = {
    "unet-resnet": _Kind(
        modalities=(DL4GAM_OPTICAL, DL4GAM_TERRAIN, ELEVATION_CHANGE),
        parameters={
            "encoder": "resnet34",
            "widths": _RESNET_WIDTHS,
            "decoder": (256, 128, 64, 32, 16),
            "norm": False,
            "indices": True,
        },
        description="U-Net with a ResNet-34 encoder over bands, indices, terrain and elevation change, as DL4GAM.",
        references=("https://doi.org/10.1029/2025EA004197", "https://doi.org/10.1109/CVPR.2016.90"),
        windows=Windows(256, 128),
        stride=lambda _: 32,
    ),
    "glaciernet": _Kind(
        modalities=(OPTICAL, TERRAIN),
        parameters={"widths": (64, 128, 256, 512, 512), "depths": (2, 2, 3, 3, 3)},
        description="SegNet over bands and land-surface parameters, as GlacierNet.",
        references=("https://doi.org/10.1109/ACCESS.2020.2991187", "https://doi.org/10.1109/TPAMI.2016.2644615"),
        stride=lambda found: 2 ** len(_tuple(found["depths"])),
        reach=lambda found: segnet_field(_tuple(found["depths"])),
    ),
    "deeplab": _Kind(
        modalities=(OPTICAL, TERRAIN),
        parameters={
            "encoder": "resnet50",
            "widths": _RESNET_WIDTHS,
            "pyramid": (256,),
            "low": (48,),
            "rates": (6, 12, 18),
        },
        description="DeepLabv3+ with a residual encoder, as in GlacierNet2 and studies of rock glaciers and fronts.",
        references=("https://doi.org/10.1007/978-3-030-01234-2_49", "https://doi.org/10.1016/j.jag.2022.102921"),
        windows=Windows(512, 256),
        stride=lambda _: 16,
    ),
    "glavitu": _Kind(
        modalities=(GLAVITU_OPTICAL, GLAVITU_DEM),
        parameters={
            "widths": (64, 128, 256, 512),
            "layers": 12,
            "attention_heads": 4,
            "hidden": 256,
            "dropout": 0.1,
        },
        description="Fused modalities, a vision transformer and a residual U-Net (GlaViTU).",
        references=("https://doi.org/10.1038/s41467-024-54956-x", "https://doi.org/10.1109/IGARSS52108.2023.10281828"),
        windows=Windows(384, 192, sigma=1.0),
        stride=lambda _: 16,
        reflectance="toa",
    ),
    "icemapper": _Kind(
        modalities=(ICEMAPPER_RADAR,),
        parameters={"widths": (32, 64, 128, 256), "pooling": "weighted"},
        description="Residual U-Net in space and time over Sentinel-1, with temporal weighted pooling, as ICEmapper.",
        references=("https://doi.org/10.31223/X5472T",),
        windows=Windows(384, 192, sigma=0.5),
        # Fifteen acquisitions of a year, as it was trained.
        time_context=TimeContext(before=200.0, after=200.0, most=7),
        stride=lambda _: 8,
        reflectance=None,
    ),
    "segformer": _Kind(
        modalities=(OPTICAL, TERRAIN),
        parameters={"widths": (32, 64, 160, 256), "depths": (2, 2, 2, 2), "decoder": (256,)},
        description="SegFormer with the encoder MiT-B0.",
        references=("https://arxiv.org/abs/2105.15203",),
        windows=Windows(512, 256),
        stride=lambda _: 32,
    ),
    "hed-unet": _Kind(
        modalities=(RADAR,),
        parameters={"widths": (16, 32, 64, 128, 256, 512)},
        description="U-Net that predicts classes and edges at every scale, for calving fronts (HED-UNet).",
        references=("https://doi.org/10.1109/TGRS.2021.3064606",),
        stride=lambda found: 2 ** (len(_tuple(found["widths"])) - 1),
        reach=lambda found: hed_field(len(_tuple(found["widths"]))),
        classes=ZONES,
        reflectance=None,
        resolution=_FRONTS,
    ),
    "front-unet": _Kind(
        modalities=(BRIGHTNESS,),
        parameters={"widths": (24, 48, 96, 144, 160), "dropout": 0.1},
        description="U-Net for calving fronts in single-band images, with the front's two sides as classes.",
        references=("https://doi.org/10.3390/rs11010074", "https://doi.org/10.1007/978-3-319-24574-4_28"),
        stride=lambda found: 2 ** len(_tuple(found["widths"])),
        reach=lambda found: front_field(len(_tuple(found["widths"]))),
        classes=SIDES,
        outputs=(Output("front_probability", ("front",)), Output("inland_probability", ("inland",))),
        reflectance=None,
        resolution=_FRONTS,
    ),
    "hooknet": _Kind(
        modalities=(BACKSCATTER,),
        parameters={"widths": (32, 64, 128, 256, 320)},
        description="A target and its context in two U-Nets that meet by attention, for calving fronts (AMD-HookNet).",
        references=("https://doi.org/10.1109/TGRS.2023.3245419",),
        # The published stride is the target's side, without overlap; half of it blends the seams.
        windows=Windows(576, 144, margin=144),
        stride=lambda _: 64,
        classes=(*ZONES, "unknown"),
        reflectance=None,
        resolution=_FRONTS,
    ),
}
