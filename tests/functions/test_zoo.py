"""Finding a function, describing it, making it a module, and making one of your own."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch

import optrode as op
from optrode.errors import BadInput, UnknownName
from optrode.functions.table import find, rows


def test_all_rows_of_high_or_medium_confidence_can_be_used() -> None:
    sure = [*op.functions.names(confidence="high"), *op.functions.names(confidence="medium")]
    assert len(sure) == 566
    x = torch.linspace(-1.5, 1.5, 2 * 8 * 4 * 4).reshape(2, 8, 4, 4)
    for name in sure:
        assert isinstance(op.functions.get(name), op.functions.Function), name
    for name in op.functions.names(elementwise=True):
        assert op.functions.get(name)(x).shape == x.shape, name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("golu", "ExpExpish"), ("GoLU", "ExpExpish"), ("gelu_new", "GELU-tanh"), ("leaky_relu", "LReLU"),
        ("hardswish", "hard swish"), ("relu", "ReLU"), ("swish", "swish"), ("dReLU", "dReLU-GLU"), ("DReLU", "DReLU"),
        ("L-ReLU", "L-ReLU"), ("lrelu", "LReLU"), ("quick gelu", "quick GELU"), ("SMU-1", "SMU-1"),
    ],
)  # fmt: skip
def test_names_and_aliases(spelling: str, name: str) -> None:
    assert op.functions.get(spelling).name == name


def test_every_name_finds_its_own_row() -> None:
    for name in rows():
        assert find(name).name == name


def test_misspelt_names() -> None:
    with pytest.raises(UnknownName, match="did you mean gelu"):
        op.functions.get("gellu")
    with pytest.raises(UnknownName, match="means several functions: say PLU or PWLU"):
        op.functions.get("piecewise linear unit")
    with pytest.raises(UnknownName, match="has no parameter 'alpha': did you mean a"):
        op.functions.get("elu")(torch.zeros(1), alpha=2.0)
    with pytest.raises(BadInput, match="floating point"):
        op.functions.get("elu")(torch.zeros(1, dtype=torch.int64))


def test_listing_loads_no_torch() -> None:
    code = (
        "import optrode.functions as f, sys; f.names(); assert 'torch' not in sys.modules; f.get; f.table.find('elu')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_function_says_of_itself() -> None:
    elu = op.functions.get("elu")
    assert elu.parameters["a"].default == 1 and elu.confidence == "high" and "ELU" in elu.name and elu.source
    assert repr(op.functions.get("golu")) == "ExpExpish: x*exp(-exp(-x))" and repr(op.functions.get("GLU")).startswith(
        "GLU: "
    )
    assert elu.shape.monotony == "increasing" and elu.shape.range == (-1.0, torch.inf)
    assert op.functions.get("gelu").shape.monotony == "neither"
    assert op.functions.get("tanh").shape.odd and op.functions.get("cos").shape.even
    assert op.functions.get("sigmoid").shape.range == (0.0, 1.0)
    low, high = op.functions.get("SBAF").shape.domain
    assert 0 <= low < 0.01 and 0.99 < high <= 1
    assert op.functions.get("prelu").trained("a") and not op.functions.get("leaky relu").trained("a")


def test_shapes_are_measured() -> None:
    for name in op.functions.names(elementwise=True)[::6]:
        shape = op.functions.get(name).shape
        assert shape.range[0] <= shape.range[1], name


# Modules -------------------------------------------------------------------------------------------------------------


def test_granularity() -> None:
    prelu, x = op.functions.get("prelu"), torch.randn(4, 6, 5, 5)
    assert prelu.module()(x).shape == x.shape
    per_channel = prelu.module(6, per="channel", axis=1, parameters={"a": torch.linspace(0, 1, 6)})
    assert torch.allclose(per_channel(x), torch.nn.functional.prelu(x, torch.linspace(0, 1, 6)))
    per_neuron = prelu.module((6, 5, 5), per="neuron")
    assert per_neuron.a.shape == (6, 5, 5)
    per_neuron(x).sum().backward()
    assert torch.allclose(per_neuron.a.grad, x.clamp(max=0).sum(0), atol=1e-5)
    coefficients = op.functions.get("ABU").module(6, per="channel")
    assert coefficients.a.shape == (6, 5)
    with pytest.raises(BadInput, match="need a width"):
        prelu.module(per="channel")
    with pytest.raises(BadInput, match="did you mean layer"):
        prelu.module(6, per="layr")


def test_trained_or_fixed() -> None:
    assert [name for name, _ in op.functions.get("prelu").module().named_parameters()] == ["a"]
    assert not list(op.functions.get("prelu").module(trainable=False).parameters())
    assert [name for name, _ in op.functions.get("elu").module(trainable=True).named_parameters()] == ["a"]
    assert float(op.functions.get("elu").module(parameters={"a": 0.5}).a) == 0.5
    with pytest.raises(UnknownName, match="did you mean a"):
        op.functions.get("elu").module(parameters={"alpha": 0.5})


def test_modules_are_copied_and_replayed() -> None:
    module = op.functions.get("rrelu").module(seed=1).train()
    x = torch.randn(3, 4)
    first = module(x)
    assert torch.equal(copy.deepcopy(module)(x), first)
    assert torch.equal(module.replay(1)(x), first)
    gelu = op.functions.get("gelu").module()
    assert not gelu.state_dict() and "GELU" in repr(gelu)


def test_under_vmap_and_functional_gradients() -> None:
    mish = op.functions.get("mish")
    x = torch.randn(5, 3, dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.grad(lambda row: mish(row).sum()))(x)
    assert torch.allclose(slopes, mish.derivative(x))


# A formula of one's own ----------------------------------------------------------------------------------------------


def test_own_formulas() -> None:
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    own = op.functions.from_formula("x * sigmoid(b*x)", parameters={"b": 1.0}, name="mine")
    assert torch.equal(own(x), op.functions.get("silu")(x)) and own.name == "mine" and own.trained("b")
    pieces = op.functions.from_formula("x<-1: -1; -1<=x<=1: x^3; 1")
    assert torch.equal(pieces(x), (x**3).clamp(-1, 1))
    assert torch.allclose(op.functions.from_formula("u + v where u = sin(v), v = x*x")(x), torch.sin(x * x) + x * x)
    custom = op.functions.from_formula("sgn(x)", derivative="1/(1+x^2)")
    assert torch.allclose(custom.derivative(x), 1 / (1 + x * x))
    assert torch.allclose(op.functions.from_formula("-x^2")(x), -(x**2)), "the power binds before the sign"
    assert torch.allclose(op.functions.from_formula("2^-x")(x), 2**-x)
    assert torch.allclose(op.functions.from_formula("8/4/2*x")(x), x)
    assert torch.allclose(op.functions.from_formula("1-2-3+x")(x), x - 4)
    assert torch.allclose(op.functions.from_formula("max(x, 0, 1)")(x), x.clamp(min=1))
    with_number = op.functions.from_formula("3")
    assert torch.equal(with_number(x), torch.full_like(x, 3)) and torch.equal(with_number.derivative(x), 0 * x)


def test_forms_that_lose_digits_are_replaced() -> None:
    x = torch.tensor(40.0, dtype=torch.float64)
    small = torch.tensor(1e-18, dtype=torch.float64)
    for formula, at, true in (
        ("1 - sigmoid(x)", x, math.exp(-40)),
        ("exp(x) - 1", small, 1e-18),
        ("1 - exp(-x)", small, 1e-18),
        ("ln(1 + x)", small, 1e-18),
        ("ln(1 + exp(-x))", x, math.exp(-40)),
        ("ln(sigmoid(x))", -20 * x, -800.0),
        ("ln(cosh(x))", 20 * x, 800 - math.log(2)),
        ("sqrt(x^2 + 4)", torch.tensor(1e200, dtype=torch.float64), 1e200),
    ):
        assert float(op.functions.from_formula(formula)(at)) == pytest.approx(true, rel=1e-14), formula


@pytest.mark.parametrize(
    ("formula", "error", "says"),
    [
        ("x * sigmod(x)", UnknownName, "did you mean sigmoid"),
        ("a*x", BadInput, "uses 'a', which has no value"),
        ("x +", BadInput, "ends too early"),
        ("(x", BadInput, "a '\\)' is missing"),
        ("x $ 2", BadInput, "place 2|place 3"),
        ("x) ", BadInput, "follows where the formula should end"),
        ("tanh(x, x)", BadInput, "takes 1 arguments"),
        ("x>0 x; 0", BadInput, "followed by ':'"),
        ("x; x", BadInput, "only the last piece"),
        ("u where u = u + x", BadInput, "defined by itself"),
        ("__import__('os')", BadInput, "character"),
        ("x.real", BadInput, "character"),
        ("(" * 5000 + "x" + ")" * 5000, BadInput, "characters"),
        ("(" * 200 + "x" + ")" * 200, BadInput, "nested"),
        ("-" * 500 + "x", BadInput, "nested"),
        ("a where a=b+b, b=c+c, c=d", BadInput, "uses 'd'"),
    ],
)
def test_formulas_that_are_refused(formula: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        op.functions.from_formula(formula)


def test_a_formula_cannot_explode() -> None:
    """Doubling names fifty times is a small tree, since equal parts are one object."""
    chain = ", ".join(f"v{k} = v{k + 1} + v{k + 1}" for k in range(50))
    function = op.functions.from_formula(f"v0 where {chain}, v50 = x")
    assert float(function(torch.tensor(1.0, dtype=torch.float64))) == 2.0**50


def test_parameter_names_that_are_refused() -> None:
    for bad in ("x", "sin", "a b", "where"):
        with pytest.raises(UnknownName, match="cannot be called"):
            op.functions.from_formula("x", parameters={bad: 1.0})
    with pytest.raises(BadInput, match="a module cannot have"):
        op.functions.from_formula("type*x", parameters={"type": 1.0}).module()
