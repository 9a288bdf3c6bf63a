"""What the registrations share: derivatives in both modes, at every level of torch.func, and rules for torch.vmap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import is_, itemgetter
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from boxops.ops.backend import SIGNATURES, check_integer, checked, plain_arguments

_library = torch.library.Library("boxops", "FRAGMENT")
_with_autograd_kernel: set[str] = set()


def _autograd_kernel(op: str, kernel: Callable) -> None:
    _library.impl(op, kernel, "Autograd", with_keyset=True)
    _with_autograd_kernel.add(op)


_COMPUTED_IN_FLOAT64 = {torch.float64, torch.int32, torch.uint32, torch.int64, torch.uint64}


def compute_type(*dtypes: torch.dtype) -> torch.dtype:
    """The type that measures of arrays of these dtypes come out in."""
    return torch.float32 if _COMPUTED_IN_FLOAT64.isdisjoint(dtypes) else torch.float64


def check_dims(op: str, words: str, tensor: Tensor, *dims: int) -> None:
    """Fake kernels see shapes before the operator has checked them."""
    if tensor.dim() not in dims:
        raise ValueError(f"{op}: expected {words}, got {[*tensor.shape]}")


# Derivatives. torch.library.register_autograd knows neither forward mode nor torch.func, so the kernel of the Autograd
# key is ours: like torch's own, it treats the one level of torch.func that called it, and hands on to the next.


def _below_autograd(operator: Any) -> Callable:
    redispatch, after = operator._handle.redispatch_boxed, torch._C._after_autograd_keyset

    def call(keyset, *args):
        with torch._C._AutoDispatchBelowAutograd():
            return redispatch(keyset & after, *args)

    return call


# Looked up once: they are asked in every call.
_any_requires_grad = torch._C._any_requires_grad
_transforms_active = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._is_torch_function_mode_enabled
_is_grad_enabled = torch.is_grad_enabled
_is_compiling = torch.compiler.is_dynamo_compiling


def _may_have_tangents() -> bool:
    # A compiled program enters a level without telling forward_ad: in a transform, or traced in dispatch modes.
    return forward_ad._current_level >= 0 or _transforms_active() or _dispatch_modes() > 0


def _may_differentiate(args: Iterable) -> bool:
    return _may_have_tangents() or (_is_grad_enabled() and _any_requires_grad(*args))


_PLAIN = frozenset((Tensor, torch.nn.Parameter, bool, int, float, str, type(None)))
_are_numbers = frozenset((int, float)).issuperset


def _as_torch_takes_them(arg: Any) -> bool:
    """Whether an argument is no list, or one of Python's own numbers: torch itself takes any numbers in lists."""
    return type(arg) is not tuple and (type(arg) is not list or _are_numbers(map(type, arg)))


def entry(op: str) -> Callable:
    """An operator, for callers of boxops: its plain arguments are checked, numbers of other kinds become Python's.

    An Autograd kernel is Python's and takes longer than a small op: where it would but hand on, it is passed over. Not
    where others' code may run: that of subclasses and modes.
    """
    operator = getattr(torch.ops.boxops, op).default
    plain, kinds = plain_arguments(op), {kind for kind, *_ in SIGNATURES[op].values()}
    has_lists = not kinds.isdisjoint(("ints", "floats")) and "arrays" not in kinds
    is_plain = (_PLAIN | {list} if has_lists else _PLAIN).issuperset
    integers = [place for place, _, check, *_ in plain if check is check_integer]
    of_integers = itemgetter(*integers, *integers) if integers else None  # of one place it would give no tuple
    below_autograd = torch._C._AutoDispatchBelowAutograd
    has_kernel = op in _with_autograd_kernel or op.endswith("_backward")

    def call(*args):
        if _is_compiling():
            return operator(*checked(op, plain, args))
        if has_lists and not all(map(_as_torch_takes_them, args)):
            args = checked(op, plain, args)
        if of_integers and Tensor in map(type, of_integers(args)):  # torch would cut off a fraction
            args = checked(op, plain, args)
        if not is_plain(map(type, args)):
            return operator(*checked(op, plain, args))
        try:  # torch itself looks at Python's own numbers, sooner than we do
            if not has_kernel or _function_modes() or _may_differentiate(args):
                return operator(*args)
            with below_autograd():
                return operator(*args)
        except Exception as error:
            refused = error
        try:  # outside of the handler, so that no error of torch's stands before ours
            values = checked(op, plain, args)
            if all(map(is_, values, args)):
                raise refused
            return operator(*values)
        finally:
            del refused

    return call


def _refuse_tangents(op: str) -> NoReturn:
    raise RuntimeError(
        f"{op}: expected tensors without tangents (no forward mode; detach() drops them), got a dual tensor"
    )


def keep_nothing(ctx, inputs, output) -> tuple[Tensor, ...]:
    return ()


def differentiable(op: str, keep: Callable, backward: Callable, jvp: Callable | None = None) -> None:
    """Registers an operator's derivatives. A tensor list may come first, its tensors then count one by one.

    keep(ctx, inputs, output) gives the tensors to keep as ctx.saved_tensors, and puts the rest on ctx;
    backward(ctx, *grads) gives the gradients of the first inputs, the others have none;
    jvp(ctx, *tangents), None where an input has none, gives the tangents of the outputs; without jvp, tangents raise.
    """
    operator = getattr(torch.ops.boxops, op).default
    arguments = operator._schema.arguments
    listed = str(arguments[0].type) == "List[Tensor]"
    below = _below_autograd(operator)

    def forward(ctx, *inputs):
        *inputs, keyset = inputs
        if listed:
            split = len(inputs) - len(arguments) + 1
            inputs = [inputs[:split], *inputs[split:]]
        if torch._C._are_functorch_transforms_active():  # the levels below have their own mind about gradients
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                output = below(keyset, *inputs)
        else:
            output = below(keyset, *inputs)
        tensors = keep(ctx, inputs, output)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)
        return output

    def all_gradients(ctx, *grads):
        some = () if all(grad is None for grad in grads) else backward(ctx, *grads)
        return *some, *[None] * (len(ctx.needs_input_grad) - len(some))

    def of_inputs(ctx, *tangents):
        if jvp is None:
            _refuse_tangents(op)
        *tangents, _ = tangents  # the last is the place of the keyset
        if not torch._C._are_functorch_transforms_active():
            return jvp(ctx, *tangents)
        # Forward mode is off in here, as the tensors kept still have their tangents, but the levels below need it.
        with forward_ad._set_fwd_grad_enabled(True):
            ctx.save_for_forward(*(t if t is None else _unpacked(t).primal for t in ctx.saved_tensors))
            return jvp(ctx, *tangents)

    functions = {"forward": forward, "backward": all_gradients, "jvp": of_inputs}
    function: Any = type(op, (_SingleLevelFunction,), {name: staticmethod(f) for name, f in functions.items()})

    def kernel(keyset, *args):
        if not _may_differentiate(args):
            return below(keyset, *args)
        leaves = (*args[0], *args[1:]) if listed else args
        if not torch._C._are_functorch_transforms_active():
            return function.apply(*leaves, keyset)
        with enable_single_level_autograd_function():
            return function.apply(*leaves, keyset)

    _autograd_kernel(op, kernel)


def differentiated_by(op: str, function: Callable) -> None:
    """Where a derivative may be asked for, a function with operators that have one computes the operator's result."""
    below = _below_autograd(getattr(torch.ops.boxops, op).default)

    def kernel(keyset, *args):
        return function(*args) if _may_differentiate(args) else below(keyset, *args)

    _autograd_kernel(op, kernel)


def contracted(rows: Iterable[Tensor], tangents: Iterable[Tensor | None]) -> Tensor:
    """Of each box its gradient times its tangent, summed over the inputs that have one."""
    products = [(row * t).sum(-1) for row, t in zip(rows, tangents, strict=False) if t is not None]
    return sum(products[1:], products[0])


def differentiable_once(words: str, *backwards: str) -> None:
    """For the operators that compute gradients: a derivative of these raises."""

    def raises(ctx, *grads):
        raise RuntimeError(f"{words}: expected one derivative at most, got a request for the second (not implemented)")

    for op in backwards:
        differentiable(op, keep_nothing, raises, raises)


def not_differentiable(*ops: str, refuse_tangents: bool = True) -> None:
    """Their results are constants to reverse mode, as indices are, even where they are floating."""
    for op in ops:
        constant(op, partial(_check_tangents, op) if refuse_tangents else None)


def constant(op: str, check_tangents: Callable | None = None) -> None:
    """The same for one operator; check_tangents(output, *args) is called where there may be some."""
    below = _below_autograd(getattr(torch.ops.boxops, op).default)

    def kernel(keyset, *args):
        output = below(keyset, *args)
        if check_tangents is not None and _may_have_tangents():
            check_tangents(output, *args)
        return output

    _autograd_kernel(op, kernel)


def _check_tangents(op: str, output: Tensor | tuple[Tensor, ...], *args) -> None:
    results = output if isinstance(output, tuple) else (output,)
    if any(result.is_floating_point() for result in results) and any(
        tangent_of(tensor) is not None for tensor in _tensors(args)
    ):
        _refuse_tangents(op)


def _tensors(args: Iterable) -> Iterable[Tensor]:
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, list):
            yield from _tensors(arg)


def _unpacked(tensor: Tensor) -> forward_ad.UnpackedDualTensor:
    return forward_ad.unpack_dual(tensor, level=0)


def tangent_of(tensor: Tensor) -> Tensor | None:
    return _unpacked(tensor).tangent


# Rules for torch.vmap


def batch_first(tensors: Iterable[Tensor], dims: Iterable[int | None]) -> list[Tensor]:
    """All with the mapped dim in front and of one rank, so that it broadcasts like any leading dim."""
    moved = [t.unsqueeze(0) if d is None else t.movedim(d, 0) for t, d in zip(tensors, dims, strict=True)]
    rank = max(t.dim() for t in moved)
    return [t.reshape(t.shape[0], *[1] * (rank - t.dim()), *t.shape[1:]) for t in moved]


def broadcast_over_batch(count: int, *ops: str) -> None:
    """For operators whose first `count` arguments have leading dims that broadcast: the mapped dim is one more."""
    for op in ops:
        operator = getattr(torch.ops.boxops, op).default

        def rule(info, in_dims, *args, operator=operator):
            return operator(*batch_first(args[:count], in_dims[:count]), *args[count:]), 0

        torch.library.register_vmap(f"boxops::{op}", rule)


def loop_over_batch(*ops: str) -> None:
    """For all others: a call for each, and their results stacked."""
    for op in ops:
        torch.library.register_vmap(f"boxops::{op}", _loop(op))


def _loop(op: str) -> Callable:
    operator = getattr(torch.ops.boxops, op).default

    def stacked(results: Iterable[Tensor]) -> Tensor:
        shapes = {(*result.shape,): None for result in results}
        if len(shapes) > 1:
            sizes = " and ".join(str([*shape]) for shape in list(shapes)[:2])
            raise RuntimeError(f"{op}: expected results of one shape under vmap, got {sizes}")
        return torch.stack([*results])

    def rule(info, in_dims, *args):
        if info.batch_size == 0:
            raise RuntimeError(f"{op}: expected a mapped dim of size >= 1 under vmap, got 0")
        results = [operator(*_picked(args, in_dims, i)) for i in range(info.batch_size)]
        if isinstance(results[0], tuple):
            return tuple(map(stacked, zip(*results, strict=True))), (0,) * len(results[0])
        return stacked(results), 0

    return rule


def _picked(args: Iterable, dims: Iterable, i: int) -> Iterable:
    for arg, dim in zip(args, dims, strict=True):
        if isinstance(arg, list):
            yield [*_picked(arg, dim, i)]
        else:
            yield arg if dim is None else arg.select(dim, i)
