"""Build modules without initializing weights that are about to be loaded."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_skipping: ContextVar[bool] = ContextVar("skipping", default=False)


class skip_init(TorchFunctionMode):
    """Inside a ``with`` block, torch's layers keep their uninitialized memory instead of drawing random weights.

    Initializing takes as long as the rest of loading a checkpoint. ``torch.nn.utils.skip_init`` builds only single
    modules whose constructors take a device, so no LSTM. The meta device, torch's other way, is slower.
    """

    def __enter__(self) -> skip_init:
        self._token = _skipping.set(True)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        _skipping.reset(self._token)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def is_skipping() -> bool:
    """Whether a ``skip_init`` block is open, so that a model need not initialize its weights."""
    return _skipping.get()


_DRAWS = (Tensor.uniform_, Tensor.normal_, nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_)
