"""Flows by their registered names, behind learned maps and a fixed affine map if a suite asks for them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from indm.errors import ParamsError
from indm.flows.base import Batches, Flow, LogDet, Map
from indm.flows.fixed import FixedCurve, FixedFilter
from indm.flows.sources import Source
from indm.registry import FLOWS


class Affine(Flow):
    r"""A flow h' behind a fixed map of the data, the same for every pixel.

    .. math::
        h(x) = h'\Big(s\,\frac{x - m}{d}\Big), \qquad
        \log\Big|\det\frac{\partial h}{\partial x}\Big| = \log\Big|\det\frac{\partial h'}{\partial x'}\Big| + D\log\frac sd

    With the identity as h', it is the control that separates the gain of a flow from the gain of rescaling the latent. The
    three numbers belong to the model's description, not to its weights.

    Arguments:
        flow: the flow h'.
        scale: the scale s > 0.
        mean: the mean m.
        std: the standard deviation d > 0.
    """

    def __init__(self, flow: Flow, *, scale: float, mean: float, std: float) -> None:
        channels, size, _ = flow.image_shape
        super().__init__(channels, size)
        self.flow = flow
        self.factor = scale / std
        self.mean = mean

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        """Return z with shape (B, C, S, S) and log|det dh/dx| in nats with shape (B,); see :meth:`Flow.forward`."""
        z, value = self.flow(self.factor * (x - self.mean), log_det, generator)
        return z, value if log_det == "none" else value + x[0].numel() * math.log(self.factor)

    @torch.no_grad()
    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return x = h'^-1(z) d / s + m, (B, C, S, S) to (B, C, S, S); see :meth:`Flow.inverse`."""
        return self.flow.inverse(z, atol, max_iterations, generator) / self.factor + self.mean

    def bijection_at(self, x: Tensor, generator: Source = None) -> tuple[Map, Map]:
        """Return h and its inverse for images (B, C, S, S); see :meth:`Flow.bijection_at`."""
        there, back = self.flow.bijection_at(self.factor * (x - self.mean), generator)
        return lambda images: there(self.factor * (images - self.mean)), lambda z: back(z) / self.factor + self.mean

    def fit(self, batches: Batches) -> None:
        """Fit h' to the mapped training images, in batches (B, C, S, S); see :meth:`Flow.fit`."""
        self.flow.fit(lambda: (self.factor * (x - self.mean) for x in batches()))

    def log_gains(self) -> Tensor | None:
        """Return the log-gains of h' plus log(s / d), in nats, shape (C, S, S), or None; see :meth:`Flow.log_gains`."""
        found = self.flow.log_gains()
        return None if found is None else found + math.log(self.factor)

    @property
    def mean_terms(self) -> float:
        return self.flow.mean_terms

    def fix_terms(self, count: int) -> None:
        self.flow.fix_terms(count)

    def update_norms(self) -> None:
        self.flow.update_norms()


class Composed(Flow):
    r"""A flow behind another one, :math:`h = h_2 \circ h_1`, whose log-determinants add up.

    Arguments:
        first: the flow :math:`h_1` of the data.
        second: the flow :math:`h_2`.
    """

    def __init__(self, first: Flow, second: Flow) -> None:
        channels, size, _ = first.image_shape
        super().__init__(channels, size)
        self.first, self.second = first, second

    def forward(self, x: Tensor, log_det: LogDet, generator: Source = None) -> tuple[Tensor, Tensor]:
        """Return z = h_2(h_1(x)) with shape (B, C, S, S) and log|det dh/dx| in nats with shape (B,)."""
        between, value = self.first(x, log_det, generator)
        z, other = self.second(between, log_det, generator)
        return z, value + other

    @torch.no_grad()
    def inverse(
        self, z: Tensor, atol: float = 1e-6, max_iterations: int = 1000, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return x = h_1^-1(h_2^-1(z)), (B, C, S, S) to (B, C, S, S); see :meth:`Flow.inverse`."""
        return self.first.inverse(
            self.second.inverse(z, atol, max_iterations, generator), atol, max_iterations, generator
        )

    def bijection_at(self, x: Tensor, generator: Source = None) -> tuple[Map, Map]:
        """Return h and its inverse for images (B, C, S, S); see :meth:`Flow.bijection_at`."""
        first, back_first = self.first.bijection_at(x, generator)
        second, back_second = self.second.bijection_at(first(x), generator)
        return lambda images: second(first(images)), lambda z: back_first(back_second(z))

    @torch.no_grad()
    def fit(self, batches: Batches) -> None:
        """Fit h_1 to the training images x, in batches (B, C, S, S), and then h_2 to h_1(x); see :meth:`Flow.fit`."""
        self.first.fit(batches)
        self.second.fit(lambda: (self.first(x, "none")[0] for x in batches()))

    def log_gains(self) -> Tensor | None:
        """Return the sum of both flows' log-gains in nats, shape (C, S, S), or None; see :meth:`Flow.log_gains`."""
        first, second = self.first.log_gains(), self.second.log_gains()
        return None if first is None or second is None else first + second

    @property
    def mean_terms(self) -> float:
        return self.first.mean_terms + self.second.mean_terms

    def fix_terms(self, count: int) -> None:
        for flow in (self.first, self.second):
            flow.fix_terms(count)

    def update_norms(self) -> None:
        for flow in (self.first, self.second):
            flow.update_norms()


def build_flow(
    name: str,
    *,
    channels_in: int,
    image_size: int,
    behind: Sequence[str] = (),
    affine: Mapping[str, float] | None = None,
    fixed: Mapping[str, Any] | None = None,
    **options: Any,
) -> Flow:
    """Build the flow registered under ``name`` for images of shape (channels_in, image_size, image_size).

    Arguments:
        behind: registered names of flows without options in front of it, the one of the data first.
        affine: scale, mean and std of an :class:`Affine` map in front of all, or ``None``.
        fixed: the maps between these and the affine map that come from the training images, by :meth:`Flow.fit`: ``curve``,
            whether there is a fixed curve, and ``exponent`` and ``spectrum`` (exact, if it is left out) of the fixed filter; or
            ``None``.

    Raises:
        ParamsError: if the name is not registered.
    """
    if unknown := [each for each in (*behind, name) if each not in FLOWS]:
        raise ParamsError(f"unknown flow {unknown[0]!r}: expected one of {', '.join(FLOWS)}")
    flow = FLOWS[name](channels_in, image_size, **options)
    for each in reversed(behind):
        flow = Composed(FLOWS[each](channels_in, image_size), flow)
    if fixed is not None:
        curve, of_filter = fixed["curve"], {key: value for key, value in fixed.items() if key != "curve"}
        flow = Composed(FixedFilter(channels_in, image_size, **of_filter), flow)
        flow = Composed(FixedCurve(channels_in, image_size), flow) if curve else flow
    return flow if affine is None else Affine(flow, **affine)
