"""Augmentation: what each function may do to an image, and that (seed, epoch, example, draw) alone decides what it does."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from imbalance.data.images.augment import (
    AUGMENTATIONS,
    Drawn,
    augment,
    color_jitter,
    cutout,
    draw_ids,
    draw_numbers,
    draws,
    pad_crop,
    random_erasing,
    random_resized_crop,
    uniforms,
)
from imbalance.data.images.policies import (
    BINS,
    FILL,
    OPERATIONS,
    POLICY_BINS,
    auto_augment,
    operation,
    rand_augment,
    transformed,
    trivial_augment,
)
from imbalance.utils.torchvision_import import import_torchvision

COUNT = 512
IMAGES = torch.randint(0, 256, (COUNT, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDICES, ONCE = torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.int64)
ALL = tuple(AUGMENTATIONS)


def augmented(images: torch.Tensor, indices: torch.Tensor, when: torch.Tensor, names, seed: int) -> torch.Tensor:
    return augment(images, names, draws(indices, when, names, seed))


def apply(rows: torch.Tensor, names=ALL) -> torch.Tensor:
    return augmented(IMAGES[rows], INDICES[rows], ONCE[rows], names, 0)


@pytest.mark.parametrize("names", [*((name,) for name in ALL), ALL])
def test_batches_and_processes_make_no_difference(names):
    together = apply(INDICES, names)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    for rows in (*order.split(7), order[0:100:2], order[1:100:2]):
        assert torch.equal(apply(rows, names), together[rows])


@pytest.mark.parametrize("name", ALL)
def test_seed_epoch_example_and_draw_each_make_one(name):
    same = IMAGES[:1].expand(COUNT, -1, -1, -1)
    before = augmented(same, INDICES, ONCE, (name,), 0)
    assert len(before.unique(dim=0)) > 1
    for seed, epoch, draw in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(augmented(same, INDICES, ONCE + draw + (epoch << 32), (name,), seed), before)


def test_one_augmentation_does_not_determine_what_the_next_does(monkeypatch):
    drawn = []
    for name in ("first", "second"):
        monkeypatch.setitem(
            AUGMENTATIONS, name, Drawn(1, lambda images, uniform: drawn.append(uniform[:, 0]) or images)
        )
    apply(INDICES, ("first", "second"))
    assert abs(np.corrcoef(*drawn)[0, 1]) < 0.2


def test_numbers_are_uniform_and_independent():
    numbers = uniforms(3, torch.arange(20000), torch.zeros(20000, dtype=torch.int64), 4).double().numpy()
    assert numbers.min() >= 0 and numbers.max() < 1
    for column in numbers.T:
        assert kstest(column, "uniform").pvalue > 1e-3
    cells = np.histogramdd(numbers[:, :2], bins=10, range=[(0, 1)] * 2)[0]
    assert chisquare(cells.ravel()).pvalue > 1e-3
    neighbours = np.histogramdd(np.stack([numbers[:-1, 0], numbers[1:, 0]], 1), bins=10, range=[(0, 1)] * 2)[0]
    assert chisquare(neighbours.ravel()).pvalue > 1e-3


def test_nothing_is_done_without_names():
    assert augmented(IMAGES, INDICES, ONCE, (), 0) is IMAGES


def test_flip_exchanges_left_and_right_in_half_of_the_images():
    flipped = apply(INDICES, ("flip",))
    as_it_was, mirrored = ((flipped == of).flatten(1).all(1) for of in (IMAGES, IMAGES.flip(3)))
    assert (as_it_was ^ mirrored).all()
    assert 200 < mirrored.sum() < 312


def test_pad_crop_is_a_crop_of_the_padded_image_at_every_place():
    cropped, padded = apply(INDICES, ("pad_crop",)), torch.nn.functional.pad(IMAGES, (4, 4, 4, 4))
    places = set()
    for image, of in zip(cropped, padded):
        found = [(t, le) for t in range(9) for le in range(9) if torch.equal(of[:, t : t + 12, le : le + 12], image)]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) == 81
    assert torch.equal(pad_crop(IMAGES[:1], torch.full((1, 2), 0.5))[0], IMAGES[0])  # in the middle


def test_random_resized_crop_is_torchvisions_crop_resized():
    transforms = import_torchvision().transforms
    ramp = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"))[None]
    uniform = uniforms(0, INDICES, ONCE, 22)
    result = random_resized_crop(ramp.expand(COUNT, -1, -1, -1), uniform)
    # Across a ramp the pixels show the crop: their step is its size / 64, their mean its middle.
    rows, columns = result[:, 0].mean(2)[:, 16:48], result[:, 1].mean(1)[:, 16:48]
    tall, wide = ((r[:, -1] - r[:, 0]) / 31 * 64 for r in (rows, columns))
    top, left = (r.mean(1) + 0.5 - size / 2 for r, size in ((rows, tall), (columns, wide)))
    boxes = torch.stack([top, left, tall, wide], 1)
    assert (boxes - boxes.round()).abs().max() < 1e-3
    assert boxes.min() > -1e-3 and (boxes[:, :2] + boxes[:, 2:]).max() < 64 + 1e-3
    torch.manual_seed(0)
    theirs = [transforms.RandomResizedCrop.get_params(ramp[0], (0.7, 1.0), (3 / 4, 4 / 3)) for _ in range(2000)]
    theirs = torch.tensor(theirs).double()
    for column in range(4):
        assert kstest(boxes[:, column].round(), theirs[:, column]).pvalue > 1e-3
    whole = random_resized_crop(IMAGES, torch.cat([torch.ones(COUNT, 20) * 0.999999, torch.zeros(COUNT, 2)], 1))
    torch.testing.assert_close(whole, IMAGES.float(), atol=0.01, rtol=0)  # no try fits: the whole image


def test_an_example_drawn_twice_in_an_epoch_is_augmented_twice_and_alike_wherever_the_batch_ends():
    drawn = torch.tensor([5, 3, 5, 5, 9, 3])
    images, when = IMAGES[drawn], draw_ids(7, drawn)
    together = augmented(images, drawn, when, ALL, 0)
    assert not torch.equal(together[0], together[2]) and not torch.equal(together[2], together[3])
    for where in (slice(0, 2), slice(2, 6), slice(1, 6, 2)):
        assert torch.equal(augmented(images[where], drawn[where], when[where], ALL, 0), together[where])
    assert not torch.equal(augmented(images, drawn, draw_ids(8, drawn), ALL, 0), together)


def test_draws_of_an_example_are_numbered_in_order():
    order = torch.tensor([4, 1, 4, 4, 0, 1, 4])
    assert draw_numbers(order).tolist() == [0, 0, 1, 2, 0, 1, 3]
    assert draw_numbers(torch.randperm(50)).tolist() == [0] * 50
    assert draw_numbers(torch.tensor([], dtype=torch.int64)).tolist() == []


@pytest.mark.parametrize("name", ALL)
def test_augmented_images_are_contiguous(name):
    """The config's layout is that of the model's input, which `normaliser` makes of them."""
    assert apply(INDICES, (name,)).is_contiguous()


def theirs(space: dict, name: str, level: int | None, bins: int, sign: float, images: torch.Tensor) -> torch.Tensor:
    """Return the images after one operation of torchvision's class, at this level of its space of magnitudes."""
    import_torchvision()
    from torchvision.transforms import v2

    magnitudes_of, signed = space[name]
    magnitudes = magnitudes_of(bins, *images.shape[2:])
    magnitude = 0.0 if magnitudes is None or level is None else float(magnitudes[level])
    magnitude *= -1 if signed and sign < 0.5 else 1
    return v2.AutoAugment()._apply_image_or_video_transform(
        images, name, magnitude, interpolation=v2.InterpolationMode.NEAREST, fill={torch.Tensor: [float(FILL)]}
    )


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", [*OPERATIONS, "Invert"])
def test_every_operation_is_torchvisions_at_every_level(name, wide):
    import_torchvision()
    from torchvision.transforms import v2

    bins = BINS if wide else POLICY_BINS
    space = v2.AutoAugment._AUGMENTATION_SPACE | v2.RandAugment._AUGMENTATION_SPACE
    space |= v2.TrivialAugmentWide._AUGMENTATION_SPACE if wide else {}
    images = IMAGES[:3]
    for level in (0, 1, bins // 2, bins - 1):
        for sign in (0.2, 0.7):
            ours = transformed(images, *operation(name, level, bins, sign, images, wide=wide))
            assert torch.equal(ours, theirs(space, name, level, bins, sign, images))


@pytest.mark.parametrize("policy", ["cifar10", "imagenet"])
def test_auto_augment_applies_both_operations_of_the_drawn_policy(policy):
    import_torchvision()
    from torchvision.transforms import v2

    policies = v2.AutoAugment(v2.AutoAugmentPolicy(policy))._policies
    numbers = uniforms(5, INDICES[:64], ONCE[:64], 5)
    expected = []
    for image, (which, *draws_of) in zip(IMAGES, numbers.tolist()):
        one = image[None]
        for (name, probability, level), (chance, sign) in zip(
            policies[int(which * 25)], (draws_of[:2], draws_of[2:]), strict=True
        ):
            if chance < probability:
                one = theirs(v2.AutoAugment._AUGMENTATION_SPACE, name, level, 10, sign, one)
        expected.append(one)
    assert torch.equal(auto_augment(IMAGES[:64], numbers, policy), torch.cat(expected))


def test_random_policies_draw_every_operation_equally_often(monkeypatch):
    for function, count, steps in ((rand_augment, 4, 2), (trivial_augment, 3, 1)):
        drawn = []
        monkeypatch.setattr(
            "imbalance.data.images.policies.apply", lambda images, names, drawn=drawn: drawn.extend(names) or images
        )
        many = torch.arange(7000)
        function(IMAGES[:1], uniforms(0, many, 0 * many, count))
        counts = [sum(each.name == name for each in drawn) for name in OPERATIONS]
        assert sum(counts) == 7000 * steps and chisquare(counts).pvalue > 1e-3
        assert {each.magnitude for each in drawn if each.name == "Rotate"} == (
            {-9.0, 9.0} if steps == 2 else {s * 4.5 * i for i in range(31) for s in (1, -1)}
        )


def test_policies_round_images_that_a_crop_has_resized():
    numbers = torch.zeros(1, 3)  # the operation "Identity"
    result = trivial_augment(torch.tensor([-3.0, 0.4, 99.6, 300.0]).view(1, 1, 2, 2), numbers)
    assert result.dtype == torch.uint8 and result.flatten().tolist() == [0, 0, 100, 255]


def test_color_jitter_is_torchvisions_with_the_same_factors():
    functional = import_torchvision().transforms.v2.functional
    adjust = functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation
    numbers = uniforms(1, INDICES[:60], ONCE[:60], 4)
    ours = color_jitter(IMAGES[:60], numbers)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    seen = set()
    for image, result, (which, *shares) in zip(IMAGES, ours, numbers.tolist()):
        expected, order = image.float() / 255, orders[int(which * 6)]
        seen.add(order)
        for change in order:
            expected = adjust[change](expected, 0.6 + 0.8 * shares[change])
        torch.testing.assert_close(result / 255, expected, atol=1e-3, rtol=0)
    assert seen == set(orders)
    grey = IMAGES[:4, :1]
    assert color_jitter(grey, numbers[:4]).shape == grey.shape


def test_cutout_blackens_a_square_around_a_pixel_cut_at_the_edge():
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    hole = cutout(white, torch.tensor([[16.5 / 32, 10.5 / 32]]))[0, 0] == 0
    assert hole.sum() == 256 and hole[8:24, 2:18].all()
    corner = cutout(white, torch.zeros(1, 2))[0, 0] == 0
    assert corner.sum() == 64 and corner[:8, :8].all()


def test_random_erasing_draws_rectangles_as_torchvision_does():
    erasing = import_torchvision().transforms.RandomErasing
    white = torch.full((COUNT, 1, 64, 48), 255, dtype=torch.uint8)
    holes = random_erasing(white, uniforms(0, INDICES, ONCE, 23))[:, 0] == 0
    erased = holes.flatten(1).any(1)
    assert 200 < erased.sum() < 312
    rows, columns = holes[erased].any(2), holes[erased].any(1)
    boxes = torch.stack([rows.byte().argmax(1), columns.byte().argmax(1), rows.sum(1), columns.sum(1)], 1)
    assert (boxes[:, 2] * boxes[:, 3] == holes[erased].flatten(1).sum(1)).all()
    torch.manual_seed(0)
    params = [erasing.get_params(white[0], (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(2000)]
    for column in range(4):
        assert kstest(boxes[:, column], torch.tensor(params)[:, column]).pvalue > 1e-3
