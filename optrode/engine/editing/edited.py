"""`with model.edited(edit) as receipt:` installs edits for the current context and says what they did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

from ...activations import numbers, unrouted
from ...edits.adapter import AdapterEdit
from ...edits.base import Edit, Provenance, SiteEdit, SiteEditBase
from ...edits.conditional import conditionals
from ...edits.conditions import Condition
from ...edits.operators import Knockout
from ...edits.part import PartEdit
from ...edits.policy import PolicyEdit
from ...edits.prefix import PrefixEdit
from ...edits.rows import RowsEdit, rows_edits, selections
from ...edits.together import Together, flat
from ...edits.trainable import Trainable
from ...errors import BadInput, EditDidNothing, NotFinite, NotSupported, WrongShape
from ...host import Host, SiteInfo
from ..experts import layer_of, of_experts, routed_to
from ..generating.policies import policy_edit
from ..twin import refuse_compiled
from .active import listed
from .adapters import adapter_edit
from .identity import check_model
from .part_edits import part_edit
from .receipt import Receipt, SiteReceipt
from .scope import scoped
from .session import Session
from .undo import sure


@dataclass(eq=False)
class Prefix:
    """A prefix edit of the context. `over` outlives the block in contexts that were copied inside it."""

    host: Host
    edit: PrefixEdit
    receipt: Receipt
    over: bool = False


# Prefix edits of the context, outermost first.
PREFIXES: ContextVar[tuple[Prefix, ...]] = ContextVar("optrode_prefixes", default=())

# Sites that hold the stream or a part of it: their width is known before any forward.
_STREAM = ("in", "out", "mid", "attn.in", "attn.out", "mlp.in", "mlp.out", "embed", "final")


@contextmanager
def edited(host: Host, *edits: Edit | Trainable) -> Iterator[Receipt]:
    """Edits of any kind, active in this context until the block ends; later ones see what earlier ones left.

    Raises `UnknownSite`, `WrongModel` and `WrongShape` before anything runs; `EditDidNothing` at the end of the block
    when an edit never fired or selected no position; `NotFinite` when it made NaN or infinity. An edit of strength 0
    installs nothing, so that the network stays bit-equal.
    """
    if not edits:
        raise EditDidNothing("no edit was given: pass at least one to model.edited")
    with ExitStack() as stack:
        receipts = []
        for edit in _each(edits):
            receipts.append(stack.enter_context(_enter(host, edit)))
            stack.enter_context(listed(host, edit, receipts[-1]))
        scope = stack.enter_context(scoped())
        for receipt in receipts:
            receipt.scope = scope
        if len(receipts) == 1:
            yield receipts[0]
        else:
            merged = Receipt(scope=scope)
            merged.sites = {
                f"{number}: {name}": site
                for number, receipt in enumerate(receipts)
                for name, site in receipt.sites.items()
            }
            yield merged
            merged.forwards = max(receipt.forwards for receipt in receipts)
            merged.layers_run, merged.layers_skipped = receipts[-1].layers_run, receipts[-1].layers_skipped
            merged.first_layer = receipts[-1].first_layer
            merged.notes = [note for receipt in receipts for note in receipt.notes]
            for receipt in receipts:
                merged.tokens_by_expert |= receipt.tokens_by_expert


def _each(edits: tuple[Edit | Trainable, ...]) -> Iterator[Edit | Trainable]:
    """The edits one by one, those that go together too, as they are now where they are being trained."""
    for edit in edits:
        inner = edit.edit if isinstance(edit, Trainable) else edit
        yield from flat([inner]) if isinstance(inner, Together) else [edit]


def _enter(host: Host, edit: Edit | Trainable):  # type: ignore[no-untyped-def]
    if isinstance(edit, Trainable):
        edit.meet(lambda: _met(host, edit.edit))
        return _enter(host, edit.edit)
    if isinstance(edit, SiteEditBase):
        return _site_edit(host, edit)
    if isinstance(edit, PrefixEdit):
        return _prefix_edit(host, edit)
    if isinstance(edit, AdapterEdit):
        return adapter_edit(host, edit)
    if isinstance(edit, PartEdit):
        return part_edit(host, edit)
    if isinstance(edit, PolicyEdit):
        return policy_edit(host, edit)
    kind = getattr(edit, "kind", "") or type(edit).__name__
    raise NotSupported(f"edits of kind '{kind}' cannot be entered: use a site, prefix, adapter or policy edit")


def _met(host: Host, edit: Edit) -> Provenance:
    """What an edit that was trained on this network takes along."""
    patterns = edit.patterns() if isinstance(edit, SiteEditBase) else []
    sites = {site.address: site.equation for pattern in patterns for site in host.match(pattern)}
    return Provenance({"name": host.name, **host.fingerprint}, equations=sites)


@contextmanager
def _prefix_edit(host: Host, edit: PrefixEdit) -> Iterator[Receipt]:
    if not host.is_chat and edit.turns:
        raise NotSupported(
            f"{host.name} has no chat template, so example turns cannot be put in front: use a system text"
        )
    receipt = Receipt(sites={"prefix": SiteReceipt("prefix")})
    prefix = Prefix(host, edit, receipt)

    def leave() -> None:
        prefix.over = True
        PREFIXES.set(tuple(other for other in PREFIXES.get() if other is not prefix))

    with sure(leave):
        PREFIXES.set((*PREFIXES.get(), prefix))
        yield receipt
    if not receipt.calls:
        raise EditDidNothing("the prefix edit never fired: no prompt was encoded inside the block")


@contextmanager
def _site_edit(host: Host, edit: SiteEditBase) -> Iterator[Receipt]:
    refuse_compiled(host)
    session = bind(host, edit)
    if not session.edits and not session.sums:
        session.receipt.note("strength 0: nothing was installed")
        yield session.receipt
        return
    with session.active():
        yield session.receipt
    for line in unrouted(session.receipt.tokens_by_expert):
        session.receipt.note(line)
    judge(edit, session.receipt, host)


def bind(host: Host, edit: SiteEditBase) -> Session:
    """The session of an edit on a network: every matched site with its change. Runs nothing."""
    check_model(host, [leaf.provenance for leaf in edit.leaves()])
    session = Session(host)
    session.positions = selections(edit)
    sites: dict[str, SiteInfo] = {}
    for leaf in edit.leaves():
        for site in host.match(leaf.site):
            _refuse_router_output(host, site)
            if site.port.read_only:
                raise NotSupported(f"{site.address} cannot be written: {site.port.read_only}")
            _check_heads(leaf, site)
            _check_keys(leaf, site)
            _check_experts(host, leaf, site)
            _check_width(host, leaf, site)
            sites[site.address] = site

    for one in edit.watches():
        _watch(host, edit, one, sites)
    selected: dict[str, set[str]] = {}

    def matches(pattern: str, address: str) -> bool:
        if pattern not in selected:
            selected[pattern] = {site.address for site in host.match(pattern)}
        return address in selected[pattern]

    for site in sorted(sites.values(), key=partial(_order, host)):
        change = edit.at(site.address, matches)
        if change is not None:
            receipt = SiteReceipt(site.address)
            session.receipt.sites[site.address] = receipt
            trained = any(leaf.operator.trained and matches(leaf.site, site.address) for leaf in edit.leaves())
            session.add_edit(site, change, receipt, trained)
    return session


def _watch(host: Host, edit: SiteEditBase, one: Condition, sites: dict[str, SiteInfo]) -> None:
    """Add the site that a condition is read at, which must be known before the sites where its edit acts."""
    found = host.match(one.site)
    if len(found) != 1:
        raise BadInput(f"the condition at '{one.site}' selects {len(found)} sites: give each its own, joined by | or &")
    site = found[0]
    if site.port.axes != ("example", "token", "feature") or site.rank is None:
        raise NotSupported(
            f"a condition cannot be read at {site.address}: choose a named site of tokens, such as layers.N.out"
        )
    for name, tensor in one.measure.tensors().items():
        width = host.of(site).width
        if site.name in _STREAM and width is not None and tensor.shape[-1] != width:
            raise WrongShape(
                f"the {name} of the condition has width {tensor.shape[-1]}, but {site.address} of {host.name} has "
                f"{width}"
            )
    for conditional in conditionals(edit):
        if one not in conditional.condition.leaves():
            continue
        for leaf in conditional.leaves():
            for acted in host.match(leaf.site):
                if acted.tower != site.tower or _order(host, acted) < _order(host, site):
                    raise NotSupported(
                        f"the condition at {site.address} is decided after {acted.address}, where the edit acts: read "
                        "the condition earlier, or act later"
                    )
    sites.setdefault(site.address, site)


def _order(host: Host, site: SiteInfo) -> tuple[int, tuple[int, int]]:
    """When a site runs: its tower, and its place therein; module paths come last."""
    return list(host.layers_by_tower).index(site.tower), site.rank or (host.layers + 2, 0)


def judge(edit: SiteEditBase, receipt: Receipt, host: Host) -> None:
    """Raise where an edit silently did nothing, or did something that is no number."""
    for site in receipt.sites.values():
        if site.calls and not site.finite:
            raise NotFinite(
                f"the edit made NaN or infinity at {site.address}: lower its strength, or check the vector it adds"
            )
    if not receipt.forwards and not receipt.calls:
        raise EditDidNothing("the edit never fired: no forward of the model ran inside the block")
    idle = _idle(edit, receipt)
    for leaf in edit.leaves():
        if leaf.strength == 0 or leaf in idle:
            continue
        own = [receipt.sites[site.address] for site in host.match(leaf.site) if site.address in receipt.sites]
        if own and not any(site.calls for site in own):
            raise EditDidNothing(
                f"the edit at {leaf.site} never fired: the forwards stopped after {receipt.layers_run} layers, "
                "before its site, or the network does not call that module"
            )
        if own and not any(site.selected_by(leaf.positions) for site in own):
            raise EditDidNothing(
                f"the edit at {leaf.site} touched no position: '{leaf.positions}' selected nothing in these inputs"
            )
        _judge_experts(host, leaf, receipt, own)
    for by_row in rows_edits(edit):
        _judge_rows(host, by_row, receipt)


def _idle(edit: SiteEditBase, receipt: Receipt) -> list[SiteEdit]:
    """Leaves whose condition no prompt met: that is an answer, not a mistake, and the receipt notes it."""
    found = []
    for one in conditionals(edit):
        for condition in one.watches():
            if not any(condition in site.decided for site in receipt.sites.values()):
                raise EditDidNothing(
                    f"the condition at {condition.site} was never read: the forwards stopped after "
                    f"{receipt.layers_run} layers, or brought no prompt"
                )
        if one.watches() and not receipt.acted_on(one):
            receipt.note(f"no prompt met the condition, so nothing was changed: {one.condition}")
            found += one.leaves()
    return found


def _judge_rows(host: Host, edit: RowsEdit, receipt: Receipt) -> None:
    """Each prompt that has an edit must have met it: a busy row does not hide an idle one."""
    for number, part in edit.parts():
        unmet = [leaf for one in conditionals(part) if number not in receipt.acted_on(one) for leaf in one.leaves()]
        leaves = [leaf for leaf in part.leaves() if leaf.strength and leaf not in unmet]
        sites = {site.address for leaf in leaves for site in host.match(leaf.site)}
        counts = [receipt.sites[address].row_counts for address in sites if address in receipt.sites]
        if counts and not any(count and count.selected_by(edit, number) for count in counts):
            ran = any(count and number in count.ran for count in counts)
            texts = " and ".join(f"'{text}'" for text in dict.fromkeys(leaf.positions.text for leaf in leaves))
            raise EditDidNothing(
                f"row {number} of the edit by row touched no position: "
                + (f"{texts} selected nothing in prompt {number}" if ran else f"prompt {number} was never run")
            )


def _judge_experts(host: Host, leaf: SiteEdit, receipt: Receipt, own: list[SiteReceipt]) -> None:
    own = [site for site in own if "rank" in host.table[site.address].port.axes] if leaf.experts is not None else []
    if own and leaf.experts and not any(site.routed_by(leaf.experts, leaf.positions) for site in own):
        raise EditDidNothing(
            f"the edit at {leaf.site} touched nothing: no selected token chose {numbers(leaf.experts)}; "
            f"in {layer_of(own[0].address)} {routed_to(receipt, own[0].address)}"
        )


def _check_heads(leaf: SiteEdit, site: SiteInfo) -> None:
    """Without a head axis, numbers of heads would pick among the tokens."""
    if leaf.heads is not None and "head" not in site.port.axes:
        raise WrongShape(f"{site.address} has no heads, so heads={leaf.heads} has no meaning: use layers.N.attn.heads")


def _check_keys(leaf: SiteEdit, site: SiteInfo) -> None:
    if leaf.keys is not None and "key" not in site.port.axes:
        raise WrongShape(f"{site.address} has no keys, so keys='{leaf.keys}' has no meaning: use layers.N.attn.scores")
    if isinstance(leaf.operator, Knockout) and site.port.side != "scores":
        raise NotSupported(f"a knockout makes scores minus infinity, not {site.address}: use layers.N.attn.scores")


def _refuse_router_output(host: Host, site: SiteInfo) -> None:
    """The scores that a router returns have been used already: writing them would change nothing."""
    if not site.address.startswith("module:") or site.port.side != "out":
        return
    for named in host.table.values():
        if named.port.reruns and named.module == site.module:
            raise NotSupported(f"{site.address} returns scores after the choice was made: edit {named.address}")


def _check_experts(host: Host, leaf: SiteEdit, site: SiteInfo) -> None:
    if leaf.experts is None:
        return
    if not of_experts(site.port):
        raise WrongShape(
            f"{site.address} is not divided by expert, so experts={leaf.experts} has no meaning: use mlp.experts.out, "
            "mlp.experts.hidden, mlp.weights or mlp.router"
        )
    if leaf.features is not None and "expert" in site.port.axes:
        raise WrongShape(f"the features of {site.address} are its experts: give features or experts, not both")
    count = host.submodule(site.module).num_experts
    if not leaf.experts or not all(0 <= expert < count for expert in leaf.experts):  # type: ignore[operator]
        raise WrongShape(f"experts={leaf.experts}: {site.address} has experts 0 to {count - 1}")  # type: ignore[operator]


def _check_width(host: Host, leaf: SiteEdit, site: SiteInfo) -> None:
    width = host.of(site).width
    if site.name not in _STREAM or width is None or leaf.features is not None:
        return
    for name, tensor in leaf.operator.tensors().items():
        if leaf.operator.elementwise and tensor.dim() > 1:
            raise WrongShape(
                f"the {name} of the edit has shape {tuple(tensor.shape)}, but {site.address} takes one of [width]: "
                "use add_by_position for one vector per position"
            )
        if tensor.dim() and name not in leaf.operator.by_rank and tensor.shape[-1] != width:
            raise WrongShape(
                f"the {name} of the edit has width {tensor.shape[-1]}, but {site.address} of {host.name} has {width}"
            )
