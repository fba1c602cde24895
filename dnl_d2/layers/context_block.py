"""The contract of a context block, and the registry that config systems name blocks by."""

import contextlib
import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers.common import check_count

# (row, column) queries, or flat indices (Q,), -> maps by term.
AttentionRows = Callable[[Sequence[Sequence[int]]], dict[str, Tensor]]
MapRows = Callable[[Tensor | None], dict[str, Tensor]]


class ContextBlock(nn.Module):
    """A block that relates every position of a feature map to all others.

    ``(N, C, *S) -> (N, C, *S)`` for maps of rank 1 (sequences), 2 (images) and 3 (clips), by the
    same parameters. Subclasses implement :meth:`transform` and :meth:`attention_maps`, take
    ``in_channels`` first and everything else by keyword.

    Attributes:
        identity_at_init: whether a fresh block returns its input bit for bit, so that it can be
            inserted into a pretrained network without changing its outputs.
    """

    identity_at_init: bool = False

    def __init__(self, in_channels: int):
        super().__init__()
        check_count(in_channels=in_channels)
        self.in_channels = in_channels

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """Applies the block.

        Args:
            x: ``(N, C, *S)``, rank of S 1 to 3. It is not modified.
            key_padding_mask: boolean ``(N, *S)``, True at padded positions; they are left out of
                every mean, softmax and pool of the block. Their values must be finite, and norm
                layers in training still count them.

        Returns:
            ``(N, C, *S)``.

        Raises:
            UsageError: wrong number of axes or channels, or a mask of another shape or dtype.
        """
        self._check(x, key_padding_mask)
        return self.transform(x, key_padding_mask)

    @torch.no_grad()
    def attention(
        self,
        x: Tensor,
        queries: Sequence[Sequence[int]] | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Attention maps for figures, computed without hooks and as in evaluation mode.

        Args:
            x: as in :meth:`forward`.
            queries: positions such as ``[(row, column), ...]``; None stands for every position in
                row-major order, which takes memory quadratic in L.
            key_padding_mask: as in :meth:`forward`.

        Returns:
            ``"pairwise"``: ``(N, Q, *S)`` weights of each query over all positions, and
            ``"unary"``: ``(N, *S)`` the map that all queries share; a block has one or both. With
            ``sub_sample`` S is the pooled size.

        Raises:
            UsageError: as in :meth:`forward`, or a query outside the map.
        """
        self._check(x, key_padding_mask)
        with evaluating(self):
            return self.attention_maps(
                x, flat_index(queries, x.shape[2:], x.device), key_padding_mask
            )

    def attention_rows(
        self, x: Tensor, key_padding_mask: Tensor | None = None, **inputs: Tensor
    ) -> AttentionRows:
        """Attention maps of one query after another, to look into what a block has learned.

        What all queries share is computed here, once; a row then takes time and memory linear in L.

        Args:
            x: as in :meth:`forward`.
            key_padding_mask: as in :meth:`forward`.
            inputs: further inputs that the block's own :meth:`forward` takes, by keyword.

        Returns:
            A function of ``queries``, as :meth:`attention` takes them, that returns ``(N, Q, *S)``
            weights by term, and ``(N, *S)`` of what all queries share. All are as fine as the map
            that keys come from, pooled or not. Of a block that takes a softmax of q_i.k_j

            * ``"pairwise"``: that softmax,
            * ``"whitened"``: the same with the means of queries and keys taken out,
            * ``"unary"``: the part that all queries share,

            see :func:`~dnl_d2.layers.functional.split_softmax`. Unlike in :meth:`attention`
            ``"pairwise"`` is the raw softmax of a disentangled block too, which itself computes
            with ``"whitened"``. Other blocks have the maps of :meth:`attention`, and so has a
            class that changes :meth:`attention_maps` or :meth:`attention` of a block.

        Raises:
            UsageError: as in :meth:`forward`; the class has no :meth:`attention` that takes
                ``inputs``; and, by the function, a query outside the map.
        """
        if inputs and type(self).attention is ContextBlock.attention:
            raise UsageError(
                f"{type(self).__name__} has no attention(x, queries, key_padding_mask, "
                f"{', '.join(inputs)}): it cannot show its maps"
            )
        source = _most_derived(type(self), "map_rows", "attention_maps", "attention")
        if inputs or source == "attention":
            return lambda queries: self.attention(x, queries, key_padding_mask, **inputs)
        self._check(x, key_padding_mask)
        kind = type(self) if source == "map_rows" else ContextBlock
        return self._rows_of(x, lambda: kind.map_rows(self, x, key_padding_mask))

    @torch.no_grad()
    def query_key(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Query and key tokens of a block that takes a softmax of their products.

        Before any whitening, so that :func:`~dnl_d2.layers.functional.split_softmax` and its terms
        can be followed: arXiv 2006.06668, eq. 3 to 6.

        Args:
            x: as in :meth:`forward`.

        Returns:
            ``(N, L, C')`` and ``(N, Lk, C')``; None of a block that computes otherwise.

        Raises:
            UsageError: as in :meth:`forward`.
        """
        self._check(x, None)
        with evaluating(self):
            return self._softmax_operands(x)

    def _softmax_operands(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        return None

    def _rows_of(self, x: Tensor, prepare: Callable[[], MapRows]) -> AttentionRows:
        """Rows by query positions of ``x`` from rows by flat index, in evaluation mode."""
        with torch.no_grad(), evaluating(self):
            maps = prepare()
        spatial, device = x.shape[2:], x.device  # not x itself, which would be kept

        @torch.no_grad()
        def rows(queries: Sequence[Sequence[int]]) -> dict[str, Tensor]:
            index = flat_index(queries, spatial, device)
            with evaluating(self):
                return maps(index)

        return rows

    def map_rows(self, x: Tensor, mask: Tensor | None) -> MapRows:
        """What :meth:`attention_rows` returns, for flat query indices; by default the maps."""
        return lambda index: self.attention_maps(x, index, mask)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The block's function; inputs are already checked.

        Raises:
            UsageError: the class has neither this nor a ``forward`` of its own.
        """
        raise UsageError(f"{type(self).__name__} has no transform(x, mask): write what it computes")

    def attention_maps(
        self, x: Tensor, index: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """The maps of :meth:`attention` for flat query indices ``(Q,)``, or None for all.

        Raises:
            UsageError: the class has none.
        """
        raise UsageError(f"{type(self).__name__} has no attention_maps: it cannot show them")

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        name, shape = type(self).__name__, x.shape
        if not 3 <= len(shape) <= 5:
            raise UsageError(f"{name} takes (N, C, *S) with 1 to 3 axes S, got {tuple(shape)}")
        if shape[1] != self.in_channels:
            raise UsageError(f"{name} was built for {self.in_channels} channels, got {shape[1]}")
        if 0 in shape[2:]:
            raise UsageError(f"{name}: a map of size {tuple(shape[2:])} has no positions")
        check_mask(name, x, mask)


def _most_derived(kind: type, *methods: str) -> str:
    """Which of a few methods comes from the class nearest to ``kind``; the first of several."""
    return next(name for base in kind.__mro__ for name in methods if name in vars(base))


def flat_index(
    queries: Sequence[Sequence[int]] | None, spatial: Sequence[int], device: torch.device
) -> Tensor | None:
    """Row-major indices ``(Q,)`` of positions of a map of size ``spatial``; of None, None.

    Raises:
        UsageError: a query is no position of the map.
    """
    if queries is None:
        return None
    flat = []
    for query in queries:
        inside = (
            isinstance(query, Sequence)
            and len(query) == len(spatial)
            and all(int(q) == q and 0 <= q < s for q, s in zip(query, spatial, strict=True))
        )
        if not inside:
            raise UsageError(f"query {query!r} is not a position of a map of size {tuple(spatial)}")
        index = 0
        for q, s in zip(query, spatial, strict=True):
            index = index * s + int(q)
        flat.append(index)
    return torch.tensor(flat, dtype=torch.long, device=device)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the context, so that norms keep their statistics; then as before."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def check_mask(name: str, x: Tensor, mask: Tensor | None) -> None:
    """Raises :class:`UsageError` unless ``mask`` is None or a boolean ``(N, *S)`` for ``x``."""
    if mask is None:
        return
    expected = (x.shape[0], *x.shape[2:])
    if mask.dtype != torch.bool or tuple(mask.shape) != expected:
        raise UsageError(
            f"{name}: key_padding_mask must be a boolean {expected} tensor (True = padding), "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )


class ContextBlockRegistry:
    """Context blocks by short name (``dnl``) or class name (``DisentangledNonLocalBlock``).

    Looks names up whatever their case. Iterating gives the short names.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, type[ContextBlock]] = {}

    def register(self, name: str) -> Callable[[type[ContextBlock]], type[ContextBlock]]:
        """Class decorator; a short or class name already taken by another class is an error."""

        def add(block: type[ContextBlock]) -> type[ContextBlock]:
            for key in (name, block.__name__):
                if key in self:
                    raise UsageError(f"context block name {key!r} is already registered")
            self._blocks[name.lower()] = block
            return block

        return add

    def get(self, name: str) -> type[ContextBlock]:
        """The class of that name.

        Raises:
            UsageError: unknown name; the message lists those that exist.
        """
        wanted = str(name).lower()
        for short, block in self._blocks.items():
            if wanted in (short, block.__name__.lower()):
                return block
        raise UsageError(f"unknown context block {name!r}; {choices(wanted, list(self._blocks))}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __contains__(self, name: object) -> bool:
        return any(str(name).lower() in (s, b.__name__.lower()) for s, b in self._blocks.items())

    def __len__(self) -> int:
        return len(self._blocks)


CONTEXT_BLOCKS = ContextBlockRegistry()


def block_arguments(block: type[ContextBlock]) -> list[str]:
    """Names of the keyword arguments of a block class, ``in_channels`` left out."""
    return [p for p in inspect.signature(block).parameters if p != "in_channels"]


def build_context_block(
    spec: str | Mapping[str, Any] | ContextBlock | None, in_channels: int
) -> ContextBlock | None:
    """Builds a block from what a config says.

    Args:
        spec: a registered name; a mapping with ``name`` and the block's keyword arguments, such as
            ``{"name": "dnl", "temperature": 0.1}``; a finished block, which is returned as it is;
            or None for no block.
        in_channels: channels of the map that the block will see.

    Raises:
        UsageError: unknown name or argument, or a finished block for other channels.
    """
    if spec is None:
        return None
    if isinstance(spec, ContextBlock):
        if spec.in_channels != in_channels:
            raise UsageError(
                f"the given {type(spec).__name__} is for {spec.in_channels} channels, "
                f"but the map has {in_channels}"
            )
        return spec
    if not isinstance(spec, str | Mapping):
        raise UsageError(f"a context block is a name or a mapping with a name, got {spec!r}")
    arguments = {"name": spec} if isinstance(spec, str) else dict(spec)
    if not arguments.get("name"):
        raise UsageError(f"a context block needs a name; {choices('', list(CONTEXT_BLOCKS))}")
    name = arguments.pop("name")
    block = CONTEXT_BLOCKS.get(name)
    known = block_arguments(block)
    for key in arguments:
        if key not in known:
            raise UsageError(
                f"context block {name!r} has no argument {key!r}; {choices(key, known)}"
            )
    return block(in_channels, **arguments)


def choices(wrong: str, known: list[str]) -> str:
    """The end of a message about a wrong name: the closest known one, and all of them."""
    close = difflib.get_close_matches(wrong, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(known)}"
