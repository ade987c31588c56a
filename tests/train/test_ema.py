import pytest
import torch

from inlay.errors import ArtifactError
from inlay.train.ema import EMA


def parameters(dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in ((3, 4), (5,), ())]


def move(values):
    with torch.no_grad():
        for value in values:
            value.add_(torch.randn(value.shape).to(value.dtype))


@pytest.mark.parametrize("warmup", [False, True])
def test_averages_follow_the_recurrence(warmup):
    values = parameters()
    ema = EMA(values, decay=0.6, warmup=warmup)
    expected = [value.detach().double() for value in values]
    for update in range(1, 30):
        move(values)
        ema.update()
        decay = min(0.6, update / (update + 9)) if warmup else 0.6
        expected = [decay * e + (1 - decay) * v.detach().double() for e, v in zip(expected, values, strict=True)]
    for index, value in enumerate(expected):
        torch.testing.assert_close(ema.state()[str(index)].double(), value, rtol=1e-5, atol=1e-6)


def test_warm_up_forgets_the_first_weights_soon():
    value = torch.nn.Parameter(torch.zeros(()))
    averages = {warmup: EMA([value], decay=0.9999, warmup=warmup) for warmup in (False, True)}
    torch.nn.init.ones_(value)
    for _ in range(50):
        for ema in averages.values():
            ema.update()
    assert float(averages[False].state()["0"]) < 0.01
    assert float(averages[True].state()["0"]) > 0.999


def test_half_precision_parameters_are_averaged_in_float32():
    value = torch.nn.Parameter(torch.ones((), dtype=torch.bfloat16))
    ema = EMA([value], decay=0.999, warmup=False)
    torch.nn.init.zeros_(value)
    for _ in range(10):
        ema.update()
    # bfloat16 could not hold steps of a thousandth below 1.
    assert ema.state()["0"].dtype == torch.float32
    assert float(ema.state()["0"]) == pytest.approx(0.999**10)


def test_averages_do_not_alias_the_parameters():
    values = parameters()
    ema = EMA(values)
    before = ema.state()["0"].clone()
    move(values)
    assert torch.equal(ema.state()["0"], before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swapped_shows_the_averages_and_restores_bit_for_bit(dtype):
    values = parameters(dtype)
    ema = EMA(values, decay=0.5, warmup=False)
    move(values)
    ema.update()
    before = [value.detach().clone() for value in values]
    with ema.swapped():
        assert torch.is_grad_enabled()
        for index, value in enumerate(values):
            assert torch.equal(value.detach(), ema.state()[str(index)].to(dtype))
            assert not torch.equal(value.detach(), before[index])
    assert all(torch.equal(value.detach(), kept) for value, kept in zip(values, before, strict=True))


def test_swapped_restores_when_its_block_fails():
    values = parameters()
    ema = EMA(values)
    move(values)
    before = [value.detach().clone() for value in values]

    def fail_inside():
        with ema.swapped():
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert all(torch.equal(value.detach(), kept) for value, kept in zip(values, before, strict=True))


def test_a_loaded_state_continues_as_if_uninterrupted():
    values = parameters()
    ema = EMA(values, decay=0.9)
    for _ in range(5):
        move(values)
        ema.update()
    resumed = EMA(values, decay=0.9)
    resumed.load({name: value.clone() for name, value in ema.state().items()})
    move(values)
    ema.update()
    resumed.update()
    assert resumed.updates == 6
    for name, value in ema.state().items():
        assert torch.equal(resumed.state()[name], value)


def test_a_state_of_other_parameters_is_refused_and_changes_nothing():
    values = parameters()
    ema = EMA(values)
    before = {name: value.clone() for name, value in ema.state().items()}
    for other in (values[:2], [values[1], values[0], values[2]]):
        with pytest.raises(ArtifactError, match=r"do not fit these 3 parameters: entry '[02]' has shape"):
            ema.load(EMA(other).state())
    assert all(torch.equal(ema.state()[name], value) for name, value in before.items())


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_impossible_decays_are_refused(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        EMA(parameters(), decay=decay)


def test_nothing_to_average_is_fine():
    ema = EMA([])
    ema.update()
    with ema.swapped():
        assert ema.updates == 1
