"""Pictures as they should look: EXIF, ICC, alpha, 16 bits, cropping, against pixels worked out by hand."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from tunesmith.data.formats import _webp_canvas
from tunesmith.data.image import alpha_mask, fit_cover, flatten, load_image, read_header
from tunesmith.errors import DataError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def corner_picture(mode="RGB") -> Image.Image:
    """3 wide, 2 high; red at the top left, green at the top right, blue at the bottom left."""
    image = Image.new(mode, (3, 2), (10, 10, 10))
    for place, colour in (((0, 0), RED), ((2, 0), GREEN), ((0, 1), BLUE)):
        image.putpixel(place, colour)
    return image


@pytest.mark.parametrize("orientation", range(1, 10))
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    corner_picture().save(path, exif=exif)
    with Image.open(path) as image:
        wanted = ImageOps.exif_transpose(image) if orientation < 9 else image.copy()  # 9 means nothing: upright
    loaded = load_image(path)
    assert loaded.size == wanted.size
    assert loaded.tobytes() == wanted.tobytes()
    header = read_header(path)
    assert (header["width"], header["height"]) == loaded.size


def test_orientation_6_by_hand(tmp_path):
    """Orientation 6: the file's top row is the picture's right column."""
    exif = Image.Exif()
    exif[0x0112] = 6
    corner_picture().save(tmp_path / "a.png", exif=exif)
    loaded = load_image(tmp_path / "a.png")
    assert loaded.size == (2, 3)
    assert [loaded.getpixel(place) for place in ((1, 0), (1, 2), (0, 0))] == [RED, GREEN, BLUE]


def test_damaged_exif_is_no_orientation(tmp_path):
    corner_picture().save(tmp_path / "a.png", exif=b"Exif\0\0garbage that is no TIFF")
    assert read_header(tmp_path / "a.png")["width"] == 3
    assert load_image(tmp_path / "a.png").size == (3, 2)


def swapped_profile() -> bytes:
    """An sRGB profile whose red and green primaries are exchanged: made by renaming its tags."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


def test_icc_profile_is_turned_into_srgb(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2), (250, 20, 20)).save(path, icc_profile=swapped_profile())
    assert np.abs(np.array(load_image(path)).astype(int) - (20, 250, 20)).max() <= 3


def test_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / "a.png", icc_profile=profile)
    assert np.abs(np.array(load_image(tmp_path / "a.png")).astype(int) - (200, 100, 50)).max() <= 1


def test_icc_keeps_alpha(tmp_path):
    Image.new("RGBA", (2, 2), (250, 20, 20, 77)).save(tmp_path / "a.png", icc_profile=swapped_profile())
    loaded = load_image(tmp_path / "a.png")
    assert loaded.mode == "RGBA"
    assert loaded.getpixel((0, 0))[3] == 77
    assert loaded.getpixel((0, 0))[1] > 240


def test_damaged_profile_is_ignored(tmp_path):
    Image.new("RGB", (2, 2), RED).save(tmp_path / "a.png", icc_profile=b"not a profile")
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("image", "mode", "pixel"),
    [
        (Image.new("L", (2, 2), 90), "RGB", (90, 90, 90)),
        (Image.new("1", (2, 2), 1), "RGB", (255, 255, 255)),
        (Image.new("LA", (2, 2), (90, 40)), "RGBA", (90, 90, 90, 40)),
        (Image.new("RGBA", (2, 2), (1, 2, 3, 4)), "RGBA", (1, 2, 3, 4)),
        (Image.new("RGB", (2, 2), (7, 8, 9)).quantize(4), "RGB", (7, 8, 9)),
        (Image.fromarray(np.full((2, 2), 0x8080, np.uint16)), "RGB", (128, 128, 128)),
        (Image.fromarray(np.full((2, 2), 0xFFFF, np.uint16)), "RGB", (255, 255, 255)),
    ],
    ids=["grey", "bits", "grey alpha", "rgba", "palette", "16 bit middle", "16 bit white"],
)
def test_every_mode_comes_as_rgb_or_rgba(tmp_path, image, mode, pixel):
    image.save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.mode == mode
    assert loaded.getpixel((1, 1)) == pixel
    assert read_header(tmp_path / "a.png")["has_alpha"] == (mode == "RGBA")


def test_palette_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    loaded = load_image(tmp_path / "a.png")
    assert (loaded.getpixel((0, 0))[3], loaded.getpixel((1, 0))) == (0, (0, 0, 255, 255))


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = load_image(tmp_path / "a.jpg").getpixel((4, 4))
    assert red > 240
    assert max(green, blue) < 15


def test_flatten_shows_no_hidden_colour():
    image = Image.new("RGBA", (2, 1), (*GREEN, 0))
    image.putpixel((1, 0), (*BLUE, 255))
    flat = flatten(image, (255, 255, 255))
    assert (flat.mode, flat.getpixel((0, 0)), flat.getpixel((1, 0))) == ("RGB", (255, 255, 255), BLUE)
    half = flatten(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), (255, 255, 255)).getpixel((0, 0))
    assert half == (127, 127, 127)


def test_alpha_mask():
    assert alpha_mask(Image.new("RGB", (2, 2))) is None
    mask = alpha_mask(Image.new("RGBA", (2, 2), (1, 2, 3, 99)))
    assert mask is not None
    assert (mask.mode, mask.getpixel((0, 0))) == ("L", 99)


# ---------------------------------------------------------------- fit_cover


def coverage(count_in: int, low: float, high: float, count_out: int) -> np.ndarray:
    """How much of each input pixel each output pixel covers, rows summing to 1: area averaging written out."""
    edges = np.linspace(low, high, count_out + 1)
    cells = np.arange(count_in)
    shared = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.clip(shared, 0, None) * count_out / (high - low)


@pytest.mark.parametrize(
    ("size_in", "size_out", "box"),
    [
        ((30, 20), (20, 10), (0, 2.5, 30, 17.5)),  # factor 1.5, cropped above and below
        ((37, 23), (23, 23), (7, 0, 30, 23)),  # no scaling, cropped at the sides
        ((41, 29), (7, 5), (0.2, 0, 40.8, 29)),
        ((100, 100), (33, 31), (0, 3.0303, 100, 96.9697)),
    ],
)
def test_shrinking_is_the_exact_area_average(size_in, size_out, box):
    pixels = np.random.default_rng(0).integers(0, 256, (size_in[1], size_in[0], 3), dtype=np.uint8)
    down = coverage(size_in[1], box[1], box[3], size_out[1])
    across = coverage(size_in[0], box[0], box[2], size_out[0])
    wanted = np.einsum("yi,xj,ijc->yxc", down, across, pixels.astype(np.float64))
    done = np.array(fit_cover(Image.fromarray(pixels), size_out)).astype(np.float64)
    assert np.abs(done - wanted).max() <= 0.501  # rounding to whole levels, and float32 sums


def test_large_shrink_keeps_the_mean():
    pixels = np.random.default_rng(1).integers(0, 256, (512, 768, 3), dtype=np.uint8)
    done = np.array(fit_cover(Image.fromarray(pixels), (48, 32)))
    assert done.shape == (32, 48, 3)
    np.testing.assert_allclose(done.mean((0, 1)), pixels.mean((0, 1)), atol=0.3)


@pytest.mark.parametrize(
    ("focus", "kept"), [((0, 0), RED), ((1, 0), BLUE), ((0.5, 0.5), GREEN)], ids=["left", "right", "middle"]
)
def test_focus_chooses_what_is_cropped(focus, kept):
    image = Image.new("RGB", (30, 10), GREEN)
    image.paste(RED, (0, 0, 10, 10))
    image.paste(BLUE, (20, 0, 30, 10))
    for size in ((10, 10), (5, 5), (20, 20)):
        assert fit_cover(image, size, focus=focus).getpixel((size[0] // 2, size[1] // 2)) == kept


def test_enlarging_is_lanczos():
    image = corner_picture()
    assert fit_cover(image, (9, 6)).tobytes() == image.resize((9, 6), Image.Resampling.LANCZOS).tobytes()


@pytest.mark.parametrize("size", [(4, 4), (24, 24)])
def test_hidden_colour_does_not_bleed_in(size):
    image = Image.new("RGBA", (12, 12), (*GREEN, 0))
    image.paste((*RED, 255), (0, 0, 7, 12))
    pixels = np.array(fit_cover(image, size))
    seen = pixels[pixels[..., 3] > 8]
    assert seen[:, 1].max() <= 2
    assert set(np.unique(pixels[..., 3])) >= {0, 255}


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(5, 9), (64, 8), (100, 3), (1, 1)])
def test_size_is_exact(mode, size):
    assert fit_cover(Image.new(mode, (50, 33)), size).size == size
    assert fit_cover(Image.new(mode, (50, 33)), size).mode == mode


# ---------------------------------------------------------------- bad files


def saved(kind: str, **options) -> bytes:
    rng = np.random.default_rng(2)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.5, 0.98])
def test_truncated(tmp_path, kind, part):
    data = saved(kind)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert read_header(path)["format"] == kind  # told by content, whatever the name
    path.write_bytes(data[: int(len(data) * part)])
    for function in (read_header, load_image):
        with pytest.raises(DataError) as caught:
            function(path)
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("part", range(1, 60, 7))
def test_cut_inside_the_header(tmp_path, part):
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        (tmp_path / "a.png").write_bytes(saved(kind)[:part])
        with pytest.raises(DataError):
            read_header(tmp_path / "a.png")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"<!doctype html><title>x</title>",
        b"8BPS\0\1" + b"\0" * 60,
        b"GIF89a" + b"\0" * 60,
        b"II*\0" + b"\0" * 60,
    ],
    ids=["empty", "eps", "svg", "html", "psd", "gif", "tiff"],
)
def test_other_content_under_a_picture_name(tmp_path, data):
    (tmp_path / "safe.png").write_bytes(data)
    with pytest.raises(DataError, match=r"safe\.png"):
        read_header(tmp_path / "safe.png")


def test_damage_in_the_middle_is_found_on_loading(tmp_path):
    data = bytearray(saved("PNG"))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    assert read_header(tmp_path / "a.png")["width"] == 40
    with pytest.raises(DataError, match="damaged"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.filterwarnings("error")
def test_random_damage_is_a_picture_or_one_clear_line(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    whole = saved(kind, **({} if kind == "BMP" else {"exif": exif, "icc_profile": profile}))
    rng = random.Random(kind)
    refusals = []
    for round_ in range(150):
        data = bytearray(whole)
        for _ in range(1 + round_ % 9):
            data[rng.randrange(len(data) if round_ % 2 else 400)] = rng.randrange(256)
        (tmp_path / "a.png").write_bytes(data)
        for function in (read_header, load_image):
            try:
                function(tmp_path / "a.png")
            except DataError as error:
                refusals.append(error.message)
    assert 0 < len(refusals) < 300
    assert not any("\n" in message for message in refusals)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (100_000, 100_000), (8001, 8000), (64_000_001, 1)])
@pytest.mark.filterwarnings("error")
def test_above_64_megapixels_is_refused_unread(tmp_path, width, height):
    (tmp_path / "a.png").write_bytes(png_claiming(width, height))
    for function in (read_header, load_image):
        with pytest.raises(DataError, match="megapixels"):
            function(tmp_path / "a.png")


def test_huge_webp_is_refused_before_its_canvas_is_made(tmp_path):
    body = b"VP8X" + (10).to_bytes(4, "little") + b"\0" * 4 + (16_000).to_bytes(3, "little") * 2
    (tmp_path / "a.webp").write_bytes(b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body)
    with pytest.raises(DataError, match="megapixels"):
        read_header(tmp_path / "a.webp")


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_canvas_is_read_as_the_library_does(tmp_path, lossless):
    data = saved("WEBP", lossless=lossless)
    assert _webp_canvas(data[:32]) == (40, 40)
    alpha = io.BytesIO()
    Image.new("RGBA", (33, 21), (1, 2, 3, 4)).save(alpha, "WEBP")
    assert _webp_canvas(alpha.getvalue()[:32]) == (33, 21)


def test_zero_size(tmp_path):
    (tmp_path / "a.png").write_bytes(png_claiming(0, 0))
    with pytest.raises(DataError):
        read_header(tmp_path / "a.png")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_image(tmp_path / "none.png")
