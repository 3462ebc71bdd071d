"""Random changes of clips of pixels."""

from __future__ import annotations

import torch

from captioner.data.augment import augment, mirror_pixels, shift_pixels


def clips(count: int = 3, frames: int = 2, side: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, frames, 3 * side * side), generator=torch.Generator().manual_seed(0)).float()


def test_flow_changes_its_sign_in_the_mirror() -> None:
    """The released code leaves horizontal flow as it is: a walk to the left would look like one to the right."""
    images = torch.full((1, 2, 3, 4, 4), 128.0)
    images[0, :, 0, :, 0] = 128 + 48  # moves to the right, at the left edge
    images[0, :, 2] = 150
    mirrored = mirror_pixels(images, flow=True)
    assert mirrored[0, 0, 0, 0].tolist() == [128, 128, 128, 128 - 48]
    assert torch.equal(mirrored[:, :, 1:], images[:, :, 1:].flip(-1)), "only x turns around"
    assert torch.equal(mirror_pixels(images, flow=False), images.flip(-1))
    assert mirror_pixels(torch.zeros(1, 1, 3, 4, 4), flow=True).max() == 255


def test_clips_that_are_not_mirrored_are_moved_as_well() -> None:
    """The released code crops at random only what it mirrors; the rest is always the middle."""
    values = clips()
    shifts = torch.tensor([[1, 0], [1, 0], [0, 0]])
    changed = augment(values, torch.tensor([False, True, False]), shifts)
    images, before = changed.view(3, 2, 3, 4, 4), values.view(3, 2, 3, 4, 4)
    assert torch.equal(images[0, :, :, 1:], before[0, :, :, :-1])
    assert torch.equal(images[1, :, :, 1:], before[1].flip(-1)[:, :, :-1])
    assert torch.equal(images[2], before[2])


def test_all_frames_of_a_clip_move_alike() -> None:
    """Would catch a shift for each frame, which would look like motion."""
    still = clips(1, 1).expand(1, 5, -1)
    moved = augment(still, torch.tensor([True]), torch.tensor([[2, -1]]))
    assert torch.equal(moved, moved[:, :1].expand_as(moved)) and not torch.equal(moved, still)


def test_borders_are_repeated() -> None:
    image = torch.arange(4.0).expand(1, 1, 1, 4, 4)
    assert shift_pixels(image, 0, 2)[0, 0, 0, 0].tolist() == [0, 0, 0, 1]
    assert shift_pixels(image, 0, -2)[0, 0, 0, 0].tolist() == [2, 3, 3, 3]
