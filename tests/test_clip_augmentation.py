"""Augmentation of windows' frames: the operations of the released code, the same for all frames of a window, and repeatable."""

from dataclasses import fields, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from uva_agents.data.clip_augmentation import ClipAugmentation, ClipDraws

NOTHING = dict.fromkeys(("cropped", "jittered", "sharpened", "autocontrasted", "greyed", "blurred"), False)
EVERYTHING = ClipAugmentation(
    crop=0.9, crop_share=0.5, brightness=0.3, contrast=0.4, saturation=0.5, hue=0.08, jitter_share=0.8, sharpness=2.0,
    sharpness_share=0.5, autocontrast_share=0.5, grey_share=0.2, blur_share=0.5,
)  # fmt: skip


def clip(frames: int = 2, side: int = 24, seed: int = 0) -> np.ndarray:
    """uint8 (1, T, side, side, 3) smooth pictures, all frames the same."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    picture = np.stack([127 + 90 * np.sin(4 * x + 3 * y + phase) for phase in rng.uniform(0, 6, 3)], -1)
    return np.repeat(picture.round().astype(np.uint8)[None, None], frames, 1)


def drawn(**values: object) -> ClipDraws:
    """One clip's draws: nothing happens but what is named."""
    plain = ClipAugmentation().draw(1, seed=0, step=0)
    values = {name: torch.as_tensor(value)[None] for name, value in (NOTHING | values).items()}
    return replace(plain, **values)


def changed(frames: np.ndarray, augmentation: ClipAugmentation = EVERYTHING, **values: object) -> np.ndarray:
    """The first frame afterwards, (H, W, 3) in 0..255."""
    out = augmentation.apply(torch.from_numpy(frames), drawn(**values))
    return out[0, 0].permute(1, 2, 0).numpy() * 255


@pytest.mark.parametrize("factor", [0.6, 1.3])
@pytest.mark.parametrize("operation", ["Brightness", "Contrast", "Color"])
def test_colours_change_as_pillow_changes_them(operation: str, factor: float) -> None:
    frames = clip()
    factors, order = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([0, 1, 2, 3])
    factors[["Brightness", "Contrast", "Color"].index(operation)] = factor
    found = changed(frames, jittered=True, factors=factors, order=order)
    expected = np.asarray(getattr(ImageEnhance, operation)(Image.fromarray(frames[0, 0])).enhance(factor))
    np.testing.assert_allclose(found, expected, atol=1.6)  # Pillow rounds twice


def test_sharpness_is_that_of_pillow() -> None:
    frames = clip()
    for factor in (0.0, 1.7):
        found = changed(frames, sharpened=True, sharpness=factor)
        expected = np.asarray(ImageEnhance.Sharpness(Image.fromarray(frames[0, 0])).enhance(factor))
        np.testing.assert_allclose(found, expected, atol=1.6)


def test_hue_turns_colours_and_a_third_of_a_turn_swaps_the_channels() -> None:
    frames = clip()
    order = torch.arange(4)
    third = changed(frames, jittered=True, factors=torch.tensor([1.0, 1.0, 1.0, 1 / 3]), order=order)
    np.testing.assert_allclose(third, np.roll(frames[0, 0], 1, -1), atol=0.1)
    same = changed(frames, jittered=True, factors=torch.tensor([1.0, 1.0, 1.0, 0.0]), order=order)
    np.testing.assert_allclose(same, frames[0, 0], atol=0.1)


def test_crops_blur_grey_and_contrast_do_what_they_say() -> None:
    frames = clip()
    corner = changed(
        frames, ClipAugmentation(crop=0.5, crop_share=1.0), cropped=True, corner=torch.tensor([0.0, 0.999])
    )
    expected = np.asarray(Image.fromarray(frames[0, 0, :12, 12:]).resize((24, 24), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(corner, expected, atol=1.6)
    spot = np.zeros((1, 1, 9, 9, 3), np.uint8)
    spot[0, 0, 4, 4] = 255
    blurred = changed(spot, blurred=True, sigma=0.8)
    assert blurred[4, 4, 0] > blurred[4, 5, 0] > blurred[4, 6, 0] > 0 == blurred[4, 7, 0]
    assert blurred.sum() == pytest.approx(255 * 3, rel=1e-4)
    grey = changed(frames, greyed=True)
    np.testing.assert_allclose(
        grey, np.asarray(Image.fromarray(frames[0, 0]).convert("L"))[..., None].repeat(3, -1), atol=1
    )
    stretched = changed(frames // 2 + 40, autocontrasted=True)
    assert (stretched.min((0, 1)) < 1).all() and (stretched.max((0, 1)) > 254).all()
    flat = changed(np.full((1, 1, 8, 8, 3), 77, np.uint8), autocontrasted=True)
    np.testing.assert_allclose(flat, 77, atol=0.01)


def test_all_frames_of_a_window_change_alike_and_windows_differ() -> None:
    frames = torch.from_numpy(np.concatenate([clip(3), clip(3), clip(3), clip(3)]))
    out = EVERYTHING.apply(frames, EVERYTHING.draw(4, seed=1, step=0))
    assert out.shape == (4, 3, 3, 24, 24) and out.dtype == torch.float32
    assert (out >= 0).all() and (out <= 1).all()
    torch.testing.assert_close(out[:, 0], out[:, 2], atol=1e-6, rtol=0)
    assert all(not torch.allclose(out[i], out[j]) for i in range(4) for j in range(i))


def test_draws_depend_on_seed_step_and_sample_alone() -> None:
    whole = EVERYTHING.draw(6, seed=3, step=11)
    halves = [EVERYTHING.draw(3, seed=3, step=11, first=first) for first in (0, 3)]
    for f in fields(ClipDraws):
        torch.testing.assert_close(getattr(whole, f.name), torch.cat([getattr(half, f.name) for half in halves]))
    for other in (EVERYTHING.draw(6, seed=3, step=12), EVERYTHING.draw(6, seed=4, step=11)):
        assert not torch.equal(whole.factors, other.factors)


def test_operations_happen_as_often_and_in_the_range_that_they_are_asked_for() -> None:
    draws = EVERYTHING.draw(4000, seed=0, step=0)
    for name, share in (("cropped", 0.5), ("jittered", 0.8), ("sharpened", 0.5), ("greyed", 0.2), ("blurred", 0.5)):
        assert float(getattr(draws, name).float().mean()) == pytest.approx(share, abs=0.03), name
    low, high = draws.factors.min(0).values, draws.factors.max(0).values
    np.testing.assert_allclose(low, [0.7, 0.6, 0.5, -0.08], atol=0.01)
    np.testing.assert_allclose(high, [1.3, 1.4, 1.5, 0.08], atol=0.01)
    assert draws.sharpness.max() <= 2 and draws.sharpness.max() > 1.95
    assert draws.sigma.min() >= 0.1 and draws.sigma.max() <= 2.0
    assert sorted(set(map(tuple, draws.order.tolist()))) == sorted(permutations(range(4)))


def test_without_shares_clips_are_left_as_they_are_and_wrong_values_are_refused() -> None:
    frames = torch.from_numpy(clip())
    assert ClipAugmentation().identity and not EVERYTHING.identity
    out = ClipAugmentation().apply(frames, ClipAugmentation().draw(1, seed=0, step=0))
    torch.testing.assert_close(out, frames.movedim(-1, -3).float() / 255)
    with pytest.raises(ValueError, match="2 draws for 1 clips"):
        EVERYTHING.apply(frames, EVERYTHING.draw(2, seed=0, step=0))
    for wrong in ({"grey_share": 1.5}, {"crop": 0.0}, {"hue": 0.7}, {"blur": 4}, {"contrast": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong)) if "share" in next(iter(wrong)) else "must"):
            ClipAugmentation(**wrong)
