"""The invented cameras: where they hang, how they see, and what their sensors do to a picture.

Ground plane, metres: `across` to the picture's right of the camera's axis, `away` from the camera. A point on it is
seen at x = width / 2 + focal * across / away, y = horizon + focal * height / away.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from workflows.archive.synthetic.figure import Light

Image = NDArray[np.uint8]
SETTINGS = ("street", "plaza", "corridor", "shop")


@dataclass(frozen=True)
class Sensor:
    """What lens and electronics do to the light of a scene."""

    exposure: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)  # white balance, RGB
    gamma: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    noise: float = 2.0  # standard deviation, grey levels
    blur_px: float = 0.5
    vignette: float = 0.1
    shutter_s: float = 0.008  # how long a picture is exposed: motion blur
    is_infrared: bool = False


@dataclass(frozen=True)
class Camera:
    """One camera of the archive; everything it sees follows from these numbers."""

    camera_id: str
    setting: str
    width: int
    height: int
    focal_px: float
    mount_m: float  # height over the ground
    horizon_px: float
    light: Light
    sensor: Sensor
    seed: int

    def ground_to_pixel(self, across_m: float, away_m: float) -> tuple[float, float]:
        return (
            self.width / 2 + self.focal_px * across_m / away_m,
            self.horizon_px + self.focal_px * self.mount_m / away_m,
        )

    def away_at_row(self, row_px: float) -> float:
        """Distance of the ground that is seen in an image row below the horizon."""
        return self.focal_px * self.mount_m / max(row_px - self.horizon_px, 1e-3)

    def px_per_m(self, away_m: float) -> float:
        return self.focal_px / away_m

    def elevation_deg(self, away_m: float) -> float:
        return float(np.degrees(np.arctan2(self.mount_m - 0.9, away_m)))

    @property
    def nearest_m(self) -> float:
        """Distance of the ground at the picture's lower edge."""
        return self.away_at_row(self.height)


def sample_camera(camera_id: str, rng: np.random.Generator, *, width: int, height: int, setting: str | None = None,
                  is_infrared: bool = False) -> Camera:  # fmt: skip
    """A camera with its own viewpoint, light and colours."""
    setting = setting or str(rng.choice(SETTINGS))
    indoor = setting in ("corridor", "shop")
    mount = float(rng.uniform(2.4, 3.4) if indoor else rng.uniform(2.6, 5.5))
    focal = float(width * rng.uniform(0.85, 1.5))
    far_height = rng.uniform(0.22, 0.36)  # of the picture, how tall a person is in the middle
    middle_away = 1.72 * focal / (far_height * height)
    horizon = height * rng.uniform(0.60, 0.74) - focal * mount / middle_away
    return Camera(
        camera_id, setting, width, height, focal, mount, float(horizon), _sample_light(rng, indoor),
        _sample_sensor(rng, is_infrared), int(rng.integers(1 << 30)),
    )  # fmt: skip


def _sample_light(rng: np.random.Generator, indoor: bool) -> Light:
    sun = float(rng.uniform(0.05, 0.25) if rng.random() < 0.5 else rng.uniform(0.35, 0.75))
    if indoor:
        sun = float(rng.uniform(0.15, 0.4))
    angle = rng.uniform(-1.2, 1.2)
    height = rng.uniform(1.0, 2.0) if indoor else rng.uniform(0.5, 1.4)
    warm = rng.uniform(-0.06, 0.10)
    return Light(
        direction=(float(np.sin(angle)), float(height), float(np.cos(angle) * rng.uniform(-0.3, 0.8))),
        sun=sun, sky=float(rng.uniform(0.55, 0.85) - 0.25 * sun), ground=float(rng.uniform(0.22, 0.45)),
        sun_colour=(1.0 + warm, 0.97, 0.92 - warm), sky_colour=(0.96, 0.99, 1.03),
    )  # fmt: skip


def _sample_sensor(rng: np.random.Generator, is_infrared: bool) -> Sensor:
    warm, tint = rng.normal(0, 0.035), rng.normal(0, 0.012)
    sensor = Sensor(
        exposure=float(np.exp(rng.normal(0.0, 0.12))), gains=(1 + warm, 1 + tint, 1 - warm),
        gamma=float(rng.uniform(0.90, 1.12)), contrast=float(rng.uniform(0.88, 1.14)),
        saturation=float(rng.uniform(0.75, 1.2)), noise=float(rng.uniform(0.6, 2.8)),
        blur_px=float(rng.uniform(0.3, 0.9)), vignette=float(rng.uniform(0.0, 0.25)),
        shutter_s=float(rng.uniform(0.002, 0.03)),
    )  # fmt: skip
    if rng.random() < 0.15:  # dusk or night: less light, more noise
        sensor = replace(
            sensor, exposure=sensor.exposure * float(rng.uniform(0.4, 0.65)), noise=sensor.noise * 1.8, shutter_s=0.05
        )
    return replace(sensor, is_infrared=True, saturation=0.0, noise=sensor.noise * 1.3) if is_infrared else sensor


def expose(picture: Image, sensor: Sensor, rng: np.random.Generator) -> Image:
    """The picture as the sensor delivers it: blur, colours, vignette, noise."""
    if sensor.blur_px > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), sensor.blur_px)
    if sensor.is_infrared:
        grey = cv2.transform(picture, np.array([[0.62, 0.25, 0.13]], np.float32))
        picture = cv2.merge([grey, grey, grey])
    elif sensor.saturation != 1.0:
        picture = cv2.transform(picture, _saturation_matrix(sensor.saturation))
    picture = cv2.LUT(picture, _tone_curves(sensor))
    return _add_noise(picture, sensor, rng)


def _saturation_matrix(amount: float) -> NDArray[np.float32]:
    weights = np.array([[0.299, 0.587, 0.114]] * 3)
    return (weights + amount * (np.eye(3) - weights)).astype(np.float32)


def _tone_curves(sensor: Sensor) -> Image:
    """(1, 256, 3) lookup: exposure and white balance in linear light, then gamma and contrast."""
    light = (np.arange(256) / 255) ** 2.2
    gains = np.ones(3) if sensor.is_infrared else np.array(sensor.gains)
    exposed = light[:, None] * sensor.exposure * gains
    shown = (exposed / (1 + 0.35 * exposed) * 1.35) ** (sensor.gamma / 2.2)  # a soft shoulder for bright parts
    shown = (shown - 0.42) * sensor.contrast + 0.42
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)[None]


_NOISE = np.random.default_rng(7).standard_normal((512, 512)).astype(np.float32)


def _add_noise(picture: Image, sensor: Sensor, rng: np.random.Generator) -> Image:
    """Noise of the luminance mostly, from a tile shifted at random: cheap, and no two frames are alike."""
    height, width = picture.shape[:2]
    shift = rng.integers(0, 512, 2)
    repeats = (height // 512 + 2, width // 512 + 2)
    field = np.tile(_NOISE, repeats)[shift[0] : shift[0] + height, shift[1] : shift[1] + width]
    noise = cv2.GaussianBlur(field, (0, 0), 0.6) * np.float32(sensor.noise * 1.8)
    layers = cv2.merge([noise, noise, noise])
    return cv2.add(picture, layers, dtype=cv2.CV_8U)
