"""Processes that make pairs beside a network."""

from __future__ import annotations

import torch


def one_thread(_: int) -> None:
    """A worker of several uses one core (torch's ``worker_init_fn``)."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
