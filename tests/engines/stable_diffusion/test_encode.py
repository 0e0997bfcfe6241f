"""Encoders against diffusers' autoencoder and text encoder, on real picture files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tunesmith.data.item import Item, MediaFile
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.facts import StableDiffusionKnobs
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe.schema import BaseSection, DataSection, MethodSection, Recipe

CPU = torch.device("cpu")


def picture(path: Path, size: tuple[int, int] = (32, 32), alpha: bool = False) -> MediaFile:
    pixels = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    if alpha:
        pixels[:, : size[0] // 2, 3], pixels[:, size[0] // 2 :, 3] = 0, 255
    Image.fromarray(pixels if alpha else np.ascontiguousarray(pixels[..., :3])).save(path)
    return MediaFile(path, "0" * 64, {"width": size[0], "height": size[1], "has_alpha": alpha})


def item(image: MediaFile, caption: str = "a red cat, on grass", **media: MediaFile) -> Item:
    return Item("ab12" * 16, {"image": image, **media}, {"caption": caption}, "group")


def recipe(tiny: Any, *, data: DataSection | None = None, stage: str = "denoiser", **knobs: Any) -> Recipe:
    return Recipe(
        "stable_diffusion",
        StableDiffusionKnobs(**{"resolution": 32, **knobs}),
        data=data or DataSection(),
        base=BaseSection(path=str(tiny.single)),
        method=MethodSection(name="full", stage=stage),
    )


def encoded(tiny: Any, thing: Item, chosen: Recipe) -> dict[str, Any]:
    base, found = tiny.open(), {}
    for spec in engine.encoders(base, chosen):
        opened = engine.open_encoder(base, chosen, spec.name, CPU)
        for want in engine.wants(thing, chosen):
            if want.encoder == spec.name:
                source = thing.media[want.role] if want.text is None else want.text
                found[want.label] = engine.encode(opened, source, want.variant)
    return found


def test_latents_are_the_scaled_distribution_of_diffusers(tiny: Any, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    found = encoded(tiny, item(image), recipe(tiny, flip=True))
    for label, turned in (("image", False), ("image.flip", True)):
        plain = Image.open(image.path)
        array = np.asarray(ImageOps.mirror(plain) if turned else plain)
        pixels = torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            expected = tiny.pipeline.vae.encode(pixels).latent_dist
        torch.testing.assert_close(found[label]["mean"], expected.mean[0] * 0.18215, rtol=0, atol=1e-7)
        torch.testing.assert_close(found[label]["std"], expected.std[0] * 0.18215, rtol=0, atol=1e-7)


def test_text_states_are_those_of_diffusers(tiny: Any, tmp_path: Path) -> None:
    chosen = recipe(tiny, data=DataSection(caption_dropout=0.1))
    found = encoded(tiny, item(picture(tmp_path / "a.png")), chosen)
    for label, text in (("text", "a red cat, on grass"), ("text.empty", "")):
        with torch.no_grad():
            expected, _ = tiny.pipeline.encode_prompt(text, CPU, 1, False)
        assert torch.equal(found[label]["states"], expected[0])


@pytest.mark.parametrize(("tokens", "count"), [(75, 77), (150, 152), (225, 227)])
def test_long_captions_have_more_states(tiny: Any, tmp_path: Path, tokens: int, count: int) -> None:
    thing = item(picture(tmp_path / "a.png"), " ".join(f"word{index}" for index in range(120)))
    assert encoded(tiny, thing, recipe(tiny, tokens=tokens))["text"]["states"].shape == (count, 32)


def test_text_is_not_encoded_where_it_varies(tiny: Any, tmp_path: Path) -> None:
    thing = item(picture(tmp_path / "a.png"))
    for data in (DataSection(shuffle_tags=True), DataSection(tag_dropout=0.5)):
        chosen = recipe(tiny, data=data)
        assert [want.label for want in engine.wants(thing, chosen)] == ["image"]
        assert [spec.name for spec in engine.encoders(tiny.open(), chosen)] == ["autoencoder"]


def test_pictures_are_fitted_and_transparency_is_flattened(tiny: Any, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png", (64, 32), alpha=True)
    for colour, value in (("white", 255), ("#102030", (16, 32, 48))):
        chosen = recipe(tiny, stage="autoencoder", background=colour)
        pixels = encoded(tiny, item(image), chosen)["pixels"]["pixels"]
        assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (3, 32, 32))
        expected = torch.tensor(value, dtype=torch.uint8).expand(3)
        assert torch.equal(pixels[:, 0, 0], expected)
        assert torch.equal(pixels[:, 20, 15], expected)
        original = torch.from_numpy(np.asarray(Image.open(image.path))[:, 32:48, :3].copy()).permute(2, 0, 1)
        assert torch.equal(pixels[:, :, 16:], original)  # the crop is centred, nothing was scaled


@pytest.mark.parametrize("kind", ["alpha", "file"])
def test_masks_are_shares_of_latents(tiny: Any, tmp_path: Path, kind: str) -> None:
    image = picture(tmp_path / "a.png", alpha=kind == "alpha")
    media = {}
    if kind == "file":
        pixels = np.zeros((32, 32), dtype=np.uint8)
        pixels[:, 16:] = 255
        Image.fromarray(pixels).save(tmp_path / "m.png")
        media["mask"] = MediaFile(tmp_path / "m.png", "1" * 64, {"width": 32, "height": 32, "has_alpha": False})
    mask = encoded(tiny, item(image, **media), recipe(tiny, mask=kind))["mask"]["mask"]
    assert mask.shape == (1, 16, 16)
    assert torch.equal(mask[:, :, :8], torch.zeros(1, 16, 8))
    assert torch.equal(mask[:, :, 8:], torch.ones(1, 16, 8))


def test_a_picture_without_alpha_has_a_full_mask(tiny: Any, tmp_path: Path) -> None:
    found = encoded(tiny, item(picture(tmp_path / "a.png")), recipe(tiny, mask="alpha"))
    assert torch.equal(found["mask"]["mask"], torch.ones(1, 16, 16))


def test_an_opaque_picture_keeps_its_variant_when_the_background_changes(tiny: Any, tmp_path: Path) -> None:
    opaque, clear = item(picture(tmp_path / "a.png")), item(picture(tmp_path / "b.png", alpha=True))
    variants = [
        [engine.wants(thing, recipe(tiny, background=colour))[0].variant for colour in ("white", "black")]
        for thing in (opaque, clear)
    ]
    assert variants[0][0] == variants[0][1]
    assert variants[1][0] != variants[1][1]


@pytest.mark.parametrize(
    ("size", "knobs", "shape"),
    [
        ((64, 32), {}, "32x32"),
        ((64, 32), {"width": 48, "height": 24}, "48x24"),
        ((96, 32), {"buckets": True, "bucket_low": 16, "bucket_high": 64, "bucket_step": 16}, "48x16"),
        ((40, 25), {"buckets": True, "bucket_no_upscale": True, "bucket_step": 8}, "40x24"),
    ],
)
def test_sizes(tiny: Any, tmp_path: Path, size: tuple[int, int], knobs: dict[str, Any], shape: str) -> None:
    thing = item(picture(tmp_path / "a.png", size))
    chosen = recipe(tiny, **knobs)
    assert engine.shape(thing, chosen) == shape
    width, height = map(int, shape.split("x"))
    if not chosen.settings.buckets:  # with buckets every picture has its own size, of about the same area
        assert engine.trained_at(tiny.open(), chosen) == {"width": width, "height": height}
    assert encoded(tiny, thing, chosen)["image"]["mean"].shape == (4, height // 2, width // 2)


def test_sizes_the_autoencoder_cannot_take_are_refused_early(tiny: Any) -> None:
    with pytest.raises(RecipeError, match="multiple of 2"):
        engine.encoders(tiny.open(), recipe(tiny, resolution=33))


def test_bad_inputs_are_refused(tiny: Any, tmp_path: Path) -> None:
    thing, base = item(picture(tmp_path / "a.png", alpha=True)), tiny.open()
    chosen = recipe(tiny, background="no colour")
    opened = engine.open_encoder(base, chosen, "autoencoder", CPU)
    with pytest.raises(RecipeError, match=r"engine\.background"):
        engine.encode(opened, thing.media["image"], engine.wants(thing, chosen)[0].variant)
    with pytest.raises(DataError, match="was given text"):
        engine.encode(opened, "words", "32x32/plain/-")
    with pytest.raises(RecipeError, match="no encoder 'pixels'"):
        engine.open_encoder(base, chosen, "pixels", CPU)
    skipping = recipe(tiny, clip_skip=5)
    text = engine.open_encoder(base, skipping, "text_encoder", CPU)
    with pytest.raises(RecipeError, match="clip_skip is 5"):
        engine.encode(text, "x", "75/5")


def test_keys_follow_weights_not_paths(tiny: Any, tmp_path: Path) -> None:
    """The same weights in another file, folder or format give the same keys; the cache survives a move."""
    chosen = recipe(tiny)
    copy = tmp_path / "moved.safetensors"
    copy.write_bytes(tiny.single.read_bytes())
    from tunesmith.engines.stable_diffusion.open import open_base

    keys = {spec.name: spec.key for spec in engine.encoders(tiny.open(), chosen)}
    moved = {spec.name: spec.key for spec in engine.encoders(open_base(BaseSection(path=str(copy))), chosen)}
    pickled = {spec.name: spec.key for spec in engine.encoders(tiny.open("checkpoint"), chosen)}
    assert keys == moved == pickled
