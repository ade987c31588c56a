import pytest
import torch

from inlay.objective.loss import loss_per_sample


def test_weighted_mean_square_of_each_sample():
    output = torch.tensor([[[1.0, 2.0]], [[0.0, 4.0]]])
    losses = loss_per_sample(output, torch.zeros(2, 1, 2), torch.tensor([1.0, 0.5]))
    assert losses.tolist() == [2.5, 4.0]


def test_half_precision_is_squared_in_float32():
    output, target = torch.full((1, 64), 300.0, dtype=torch.float16), torch.zeros(1, 64, dtype=torch.float16)
    losses = loss_per_sample(output, target, torch.ones(1))
    assert losses.dtype == torch.float32
    assert losses.item() == 90000.0


def test_weights_scale_the_gradient_of_their_sample_only():
    output = torch.ones(2, 3, requires_grad=True)
    loss_per_sample(output, torch.zeros(2, 3), torch.tensor([3.0, 0.0])).sum().backward()
    assert output.grad is not None
    torch.testing.assert_close(output.grad, torch.tensor([[2.0] * 3, [0.0] * 3]))


@pytest.mark.parametrize(
    ("output", "target", "weights"),
    [((4, 3), (4, 1), (4,)), ((4, 3), (4, 3), (2,)), ((4, 3), (4, 3), (4, 1)), ((4, 3), (4, 3), ())],
)
def test_shapes_that_would_broadcast_are_refused(output, target, weights):
    with pytest.raises(ValueError, match="must be"):
        loss_per_sample(torch.zeros(output), torch.zeros(target), torch.zeros(weights))


def test_places_weigh_squares_before_they_are_averaged():
    output = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # [1, 2, 1, 2]
    places = torch.tensor([[[[0.5, 1.5]]]])
    losses = loss_per_sample(output, torch.zeros(1, 2, 1, 2), torch.tensor([2.0]), places)
    assert losses.tolist() == [2 * (0.5 * 1 + 1.5 * 4 + 0.5 * 9 + 0) / 4]


@pytest.mark.parametrize("places", [(1, 2, 1, 2), (1, 1, 2, 1), (2, 1, 1, 2), (1, 2)])
def test_places_of_another_shape_are_refused(places):
    with pytest.raises(ValueError, match="places"):
        loss_per_sample(torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2), torch.ones(1), torch.ones(places))
