from typing import Any

import pytest
import torch

from distill.distances import DISTANCES, cka, distance_matrix, ln_mse, softmax_mse, weight_l1


def features(seed: int, tokens: int = 40, width: int = 16) -> torch.Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [*DISTANCES])
def test_the_distance_to_itself_is_nothing_and_to_others_it_is_something(name: Any):
    ours = features(0)
    assert DISTANCES[name](ours, ours).item() == pytest.approx(0, abs=1e-6)
    assert DISTANCES[name](ours, features(1)) > 1e-4


@pytest.mark.parametrize("name", ["ln_mse", "cosine", "softmax_mse"])
def test_a_distance_is_a_mean_over_tokens(name: Any):
    ours, theirs = features(0), features(1)
    first, second = (
        DISTANCES[name](ours[part], theirs[part]) for part in (slice(20), slice(20, 40))
    )
    mean = (first + second).item() / 2
    assert DISTANCES[name](ours, theirs).item() == pytest.approx(mean, rel=1e-5)


def test_scale_and_offset_of_a_token_do_not_count_in_ln_mse():
    assert ln_mse(features(0), 3 * features(0) + 1).item() == pytest.approx(0, abs=1e-4)


def test_kernel_alignment_ignores_rotation_and_takes_other_widths():
    rotation = torch.linalg.qr(features(5, 16, 16)).Q
    assert cka(features(0), features(0) @ rotation).item() == pytest.approx(0, abs=1e-5)
    wide = features(0) @ torch.linalg.qr(features(6, 32, 16)).Q.T
    assert cka(features(0), wide).item() == pytest.approx(0, abs=1e-5)
    assert cka(features(0, 1), features(1, 1)) == 1


def test_the_papers_distance_hardly_has_a_gradient():
    """Defect 10 of the released code: next to the KL term it teaches next to nothing."""
    found = {}
    for measure in (softmax_mse, ln_mse):
        ours = features(0, width=2048).requires_grad_()
        measure(ours, features(1, width=2048)).backward()
        found[measure] = torch.as_tensor(ours.grad).norm(dim=-1).mean()
    assert found[ln_mse] > 20 * found[softmax_mse] > 0


def test_distances_of_all_pairs_are_a_matrix_without_gradient():
    ours = [features(i).requires_grad_() for i in range(2)]
    theirs = [features(0), features(7), features(1)]
    matrix = distance_matrix(ours, theirs, ln_mse)
    assert matrix.shape == (2, 3)
    assert not matrix.requires_grad
    assert matrix.argmin(1).tolist() == [0, 2]
    assert matrix[0, 1] == ln_mse(ours[0], theirs[1])


def test_weights_are_compared_by_their_softmaxed_columns():
    ours, theirs = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]])
    assert weight_l1(ours, theirs).item() == pytest.approx(0.5)
