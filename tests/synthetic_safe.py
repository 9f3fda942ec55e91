"""A small Sentinel-1 GRD product in ESA's SAFE format, of known ground, seen from a known orbit.

The satellite flies due north on a circle, so that its zero-Doppler time of any point is an angle in the orbit's plane:
nothing here uses the code that is tested. The image is made forwards: each small facet of the ground sends its
backscatter into the image cell that its time and range fall into.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from pyproj import Transformer
from rasterio.errors import NotGeoreferencedWarning

Float = npt.NDArray[np.float64]
Height = Callable[[Float, Float], Float]

LIGHT = 299_792_458.0
EPSG = 32633
MIDDLE = (500_000.0, 5_100_000.0)  # easting, northing of the middle of the scene
RADIUS = 7_071_000.0  # m
ANGULAR = 7_600.0 / RADIUS  # rad/s
WEST = 7.2  # degrees that the track lies west of the scene: incidence near 41 degrees
NAME = "S1A_IW_GRDH_1SDV_20230701T053000_20230701T053025_049230_05EB7A_3C1F"
MEASURED = dt.datetime(2023, 7, 1, 5, 30, 12, tzinfo=dt.UTC)
SPACING = 10.0
GAMMA = {"vv": 0.12, "vh": 0.03}


@dataclass(frozen=True)
class Look:
    """Zero-Doppler time (s after `MEASURED`), slant range (m) and unit vector to the satellite of points."""

    time: Float
    range: Float
    towards: Float


def earth_centred(east: Float, north: Float, height: Float) -> Float:
    """UTM and metres above the ellipsoid to geocentric metres: (..., 3)."""
    flat = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4979", always_xy=True)
    longitude, latitude = flat.transform(east, north)
    to_centre = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    return np.stack(to_centre.transform(longitude, latitude, height), axis=-1)


def _track() -> tuple[Float, Float, float]:
    """Axes of the orbit's plane, and the angle in it at `MEASURED`."""
    middle = earth_centred(*(np.array(value) for value in (*MIDDLE, 0.0)))
    longitude = np.arctan2(middle[1], middle[0]) - np.radians(WEST)
    out = np.array([np.cos(longitude), np.sin(longitude), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    return out, up, float(np.arctan2(middle @ up, middle @ out))


def look(points: Float) -> Look:
    """See points from the orbit; exact, for a circle."""
    out, up, start = _track()
    angle = np.arctan2(points @ up, points @ out)
    satellite = RADIUS * (np.cos(angle)[..., None] * out + np.sin(angle)[..., None] * up)
    away = satellite - points
    distance = np.linalg.norm(away, axis=-1)
    return Look((angle - start) / ANGULAR, distance, away / distance[..., None])


def state_vectors() -> list[tuple[dt.datetime, Float, Float]]:
    """Time, position and velocity every 10 s."""
    out, up, start = _track()
    vectors = []
    for second in range(-80, 90, 10):
        angle = start + ANGULAR * second
        position = RADIUS * (np.cos(angle) * out + np.sin(angle) * up)
        velocity = RADIUS * ANGULAR * (-np.sin(angle) * out + np.cos(angle) * up)
        vectors.append((MEASURED + dt.timedelta(seconds=second), position, velocity))
    return vectors


@dataclass(frozen=True)
class Image:
    """Geometry of the image: first line's time, line interval (s), and range as a polynomial of ground range."""

    lines: int
    samples: int
    first: float
    interval: float
    range0: float
    to_ground: Float  # coefficients of (range - range0), lowest first

    def line(self, time: Float) -> Float:
        return (time - self.first) / self.interval

    def sample(self, distance: Float) -> Float:
        ground = sum(c * (distance - self.range0) ** n for n, c in enumerate(self.to_ground))
        return np.asarray(ground / SPACING)

    def slant_width(self, samples: Float) -> Float:
        """Metres of slant range that a sample holds."""
        distance = self.range_of(np.stack([samples - 0.5, samples + 0.5]))
        return np.asarray(distance[1] - distance[0])

    def range_of(self, samples: Float) -> Float:
        distance = np.full(np.shape(samples), self.range0) + np.asarray(samples) * SPACING * 0.66
        for _ in range(30):
            slope = sum(n * c * (distance - self.range0) ** (n - 1) for n, c in enumerate(self.to_ground) if n)
            distance = distance - (self.sample(distance) - samples) * SPACING / slope
        return distance


def image_over(side: float) -> Image:
    """An image of the square of `side` metres about the middle, with 600 m around."""
    half = side / 2 + 600
    across = np.linspace(-half, half, 200)
    ellipsoid = look(earth_centred(MIDDLE[0] + across, np.full(200, MIDDLE[1]), np.zeros(200)))
    range0 = float(ellipsoid.range[0])
    fit = np.polynomial.Polynomial.fit(ellipsoid.range - range0, across - across[0], 3)
    slope = np.asarray(fit.convert().coef, dtype=np.float64)
    ends = look(earth_centred(np.full(2, MIDDLE[0]), MIDDLE[1] + np.array([-half, half]), np.zeros(2)))
    lines = round(2 * half / SPACING)
    return Image(lines, lines, float(ends.time[0]), float(np.diff(ends.time)[0] / lines), range0, slope)


def beta_nought(image: Image, height: Height, side: float, gamma: float, facet: float = 2.5) -> Float:
    """Radar brightness of ground of one gamma nought: (line, sample).

    Each facet returns gamma nought times its area as seen from the satellite; radar brightness is that over the area
    of the image cell: slant range by ground covered in azimuth. No shadow is cast.
    """
    half = side / 2 + 900
    edges = np.arange(-half, half + facet, facet)
    found = np.zeros((image.lines, image.samples))
    for strip in np.array_split(np.arange(len(edges) - 1), 24):  # bounds memory
        rows = edges[strip[0] : strip[-1] + 2]
        east, north = np.meshgrid(MIDDLE[0] + edges, MIDDLE[1] + rows)
        corner = earth_centred(east, north, height(east, north))
        area = np.cross(corner[1:, 1:] - corner[:-1, :-1], corner[1:, :-1] - corner[:-1, 1:]) / 2
        middle = (corner[1:, 1:] + corner[:-1, :-1] + corner[1:, :-1] + corner[:-1, 1:]) / 4
        seen = look(middle)
        area *= np.sign((area * middle).sum(-1))[..., None]
        facing = np.maximum((area * seen.towards).sum(-1), 0.0)
        line = np.rint(image.line(seen.time)).astype(int)
        sample = np.rint(image.sample(seen.range)).astype(int)
        inside = (line >= 0) & (line < image.lines) & (sample >= 0) & (sample < image.samples)
        np.add.at(found, (line[inside], sample[inside]), gamma * facing[inside])
    return found / (SPACING * image.slant_width(np.arange(image.samples, dtype=float)))


def write_safe(
    folder: Path, height: Height, side: float, targets: tuple[tuple[float, float], ...] = (), looks: float = np.inf
) -> Path:
    """Write the product of a square about the middle; targets (metres east, north of it) shine through one cell.

    Parameters
    ----------
    folder : Path
        Where the SAFE folder goes.
    height : callable
        Metres above the ellipsoid, of easting and northing.
    side : float
        Metres.
    targets : tuple of (float, float)
        Places of point targets.
    looks : float
        Of the speckle; none if infinite.
    """
    safe = folder / f"{NAME}.SAFE"
    image = image_over(side)
    for part in ("measurement", "annotation/calibration"):
        (safe / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    # dn / lut is the root of radar brightness; the table falls with range, as real ones do.
    lut = np.linspace(620.0, 580.0, image.samples)
    files = []
    plain = beta_nought(image, height, side, 1.0)
    for number, (polarization, gamma) in enumerate(GAMMA.items(), start=1):
        beta = plain * gamma
        if np.isfinite(looks):
            beta = beta * rng.gamma(looks, 1 / looks, beta.shape)
        for east, north in targets:
            x, y = np.array(MIDDLE[0] + east), np.array(MIDDLE[1] + north)
            seen = look(earth_centred(x, y, height(x, y)))
            beta[round(float(image.line(seen.time))), round(float(image.sample(seen.range)))] = 300.0
        stem = f"s1a-iw-grd-{polarization}-20230701t053000-20230701t053025-049230-05eb7a-{number:03d}"
        numbers = np.clip(np.rint(np.sqrt(beta) * lut), 0, 65535).astype(np.uint16)
        _write_tiff(safe / "measurement" / f"{stem}.tiff", numbers)
        (safe / "annotation" / f"{stem}.xml").write_text(_annotation(image, polarization))
        (safe / "annotation" / "calibration" / f"calibration-{stem}.xml").write_text(_calibration(image, lut))
        files += [
            ("s1Level1ProductSchema", f"./annotation/{stem}.xml"),
            ("s1Level1CalibrationSchema", f"./annotation/calibration/calibration-{stem}.xml"),
            ("s1Level1MeasurementSchema", f"./measurement/{stem}.tiff"),  # last, as in real manifests
        ]
    (safe / "manifest.safe").write_text(_manifest(files))
    return safe


def _write_tiff(path: Path, numbers: npt.NDArray[np.uint16]) -> None:
    import warnings

    rows, columns = numbers.shape
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": "uint16", "count": 1, "height": rows, "width": columns}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # as real ones are
        with rasterio.open(path, "w", **profile) as file:
            file.write(numbers, 1)


def _utc(second: float) -> str:
    # The products' times are UTC without saying so.
    return (MEASURED + dt.timedelta(seconds=second)).replace(tzinfo=None).isoformat(timespec="microseconds")


def _numbers(values: Any) -> str:
    return " ".join(repr(float(value)) for value in values)


def _annotation(image: Image, polarization: str) -> str:
    last = image.first + image.interval * (image.lines - 1)
    orbits = "".join(
        f"<orbit><time>{_utc((when - MEASURED).total_seconds())}</time><frame>Earth Fixed</frame>"
        + "".join(
            f"<{name}>"
            + "".join(f"<{axis}>{value:.9e}</{axis}>" for axis, value in zip("xyz", vector, strict=True))
            + f"</{name}>"
            for name, vector in (("position", position), ("velocity", velocity))
        )
        + "</orbit>"
        for when, position, velocity in state_vectors()
    )
    conversions = "".join(
        f"<coordinateConversion><azimuthTime>{_utc(second)}</azimuthTime>"
        f"<slantRangeTime>{2 * image.range0 / LIGHT!r}</slantRangeTime><sr0>{image.range0!r}</sr0>"
        f'<srgrCoefficients count="4">{_numbers(image.to_ground)}</srgrCoefficients><gr0>0.0</gr0>'
        f'<grsrCoefficients count="4">0.0 0.0 0.0 0.0</grsrCoefficients></coordinateConversion>'
        for second in (image.first - 5, last + 5)
    )
    points = []
    for line in (0, image.lines - 1):
        for sample in (0, image.samples - 1):
            east = MIDDLE[0] + (sample - image.samples / 2) * SPACING
            north = MIDDLE[1] + (line - image.lines / 2) * SPACING
            flat = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4326", always_xy=True)
            longitude, latitude = flat.transform(east, north)
            distance = float(image.range_of(np.array(float(sample))))
            points.append(
                f"<geolocationGridPoint><azimuthTime>{_utc(image.first + line * image.interval)}</azimuthTime>"
                f"<slantRangeTime>{2 * distance / LIGHT!r}</slantRangeTime><line>{line}</line><pixel>{sample}</pixel>"
                f"<latitude>{latitude!r}</latitude><longitude>{longitude!r}</longitude><height>0.0</height>"
                "<incidenceAngle>41.0</incidenceAngle><elevationAngle>36.0</elevationAngle></geolocationGridPoint>"
            )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<product>
<adsHeader><missionId>S1A</missionId><productType>GRD</productType><polarisation>{polarization.upper()}</polarisation>
<mode>IW</mode><swath>IW</swath></adsHeader>
<generalAnnotation><productInformation><pass>Ascending</pass><timelinessCategory>NRT-3h</timelinessCategory>
<platformHeading>-10.0</platformHeading><projection>Ground Range</projection>
<rangeSamplingRate>64345238.12571428</rangeSamplingRate><radarFrequency>5405000454.33435</radarFrequency>
<azimuthSteeringRate>1.590368784</azimuthSteeringRate></productInformation>
<orbitList count="17">{orbits}</orbitList></generalAnnotation>
<imageAnnotation><imageInformation><productFirstLineUtcTime>{_utc(image.first)}</productFirstLineUtcTime>
<productLastLineUtcTime>{_utc(last)}</productLastLineUtcTime>
<ascendingNodeTime>2023-07-01T05:17:30.000000</ascendingNodeTime>
<slantRangeTime>{2 * image.range0 / LIGHT!r}</slantRangeTime><rangePixelSpacing>{SPACING}</rangePixelSpacing>
<azimuthPixelSpacing>{SPACING}</azimuthPixelSpacing><azimuthTimeInterval>{image.interval!r}</azimuthTimeInterval>
<numberOfSamples>{image.samples}</numberOfSamples><numberOfLines>{image.lines}</numberOfLines>
<incidenceAngleMidSwath>41.0</incidenceAngleMidSwath></imageInformation></imageAnnotation>
<swathTiming><linesPerBurst>0</linesPerBurst><samplesPerBurst>0</samplesPerBurst><burstList count="0"/></swathTiming>
<geolocationGrid><geolocationGridPointList count="4">{"".join(points)}</geolocationGridPointList></geolocationGrid>
<coordinateConversion><coordinateConversionList count="2">
{conversions}</coordinateConversionList></coordinateConversion>
</product>
"""


def _calibration(image: Image, lut: Float) -> str:
    pixels = np.arange(0, image.samples + 40, 40).clip(max=image.samples - 1)
    pixels = np.unique(pixels)
    values = _numbers(lut[pixels])
    vectors = "".join(
        f"<calibrationVector><azimuthTime>{_utc(image.first + line * image.interval)}</azimuthTime><line>{line}</line>"
        f'<pixel count="{len(pixels)}">{" ".join(map(str, pixels))}</pixel>'
        + "".join(
            f'<{name} count="{len(pixels)}">{values}</{name}>' for name in ("sigmaNought", "betaNought", "gamma", "dn")
        )
        + "</calibrationVector>"
        for line in (0, image.lines - 1)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<calibration><adsHeader><missionId>S1A</missionId></adsHeader>
<calibrationInformation><absoluteCalibrationConstant>1.0</absoluteCalibrationConstant></calibrationInformation>
<calibrationVectorList count="2">{vectors}</calibrationVectorList></calibration>
"""


def _manifest(files: list[tuple[str, str]]) -> str:
    objects = "".join(
        f'<dataObject ID="o{n}" repID="{kind}"><byteStream><fileLocation locatorType="URL" href="{path}"/></byteStream>'
        "</dataObject>"
        for n, (kind, path) in enumerate(files)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" xmlns:gml="http://www.opengis.net/gml"
 xmlns:safe="http://www.esa.int/safe/sentinel-1.0" xmlns:s1="http://www.esa.int/safe/sentinel-1.0/sentinel-1"
 xmlns:s1sarl1="http://www.esa.int/safe/sentinel-1.0/sentinel-1/sar/level-1">
<metadataSection>
<safe:acquisitionPeriod><safe:startTime>{_utc(-12)}</safe:startTime>
<safe:stopTime>{_utc(13)}</safe:stopTime></safe:acquisitionPeriod>
<safe:platform><safe:nssdcIdentifier>2014-016A</safe:nssdcIdentifier><safe:familyName>SENTINEL-1</safe:familyName>
<safe:number>A</safe:number><safe:instrument><s1sarl1:instrumentMode><s1sarl1:mode>IW</s1sarl1:mode>
<s1sarl1:swath>IW</s1sarl1:swath></s1sarl1:instrumentMode></safe:instrument></safe:platform>
<s1sarl1:standAloneProductInformation><s1sarl1:missionDataTakeID>387962</s1sarl1:missionDataTakeID>
<s1sarl1:transmitterReceiverPolarisation>VV</s1sarl1:transmitterReceiverPolarisation>
<s1sarl1:transmitterReceiverPolarisation>VH</s1sarl1:transmitterReceiverPolarisation>
<s1sarl1:productType>GRD</s1sarl1:productType><s1sarl1:sliceNumber>3</s1sarl1:sliceNumber>
<s1sarl1:totalSlices>7</s1sarl1:totalSlices></s1sarl1:standAloneProductInformation>
<safe:orbitReference><safe:orbitNumber type="start">49230</safe:orbitNumber>
<safe:orbitNumber type="stop">49230</safe:orbitNumber>
<safe:relativeOrbitNumber type="start">58</safe:relativeOrbitNumber>
<safe:relativeOrbitNumber type="stop">58</safe:relativeOrbitNumber>
<s1:pass>ASCENDING</s1:pass><s1:ascendingNodeTime>2023-07-01T05:17:30.000000</s1:ascendingNodeTime>
</safe:orbitReference></metadataSection>
<dataObjectSection>{objects}</dataObjectSection>
</xfdu:XFDU>
"""
