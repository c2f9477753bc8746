"""Fixtures of the ops: numbers of threads, and an op's CUDA text as host C++."""

from collections.abc import Callable, Iterator

import pytest
import torch

from .cuda_on_host import Host


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads; what it was before comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The CUDA text of the op that the module names as ``OP``."""
    return Host(request.module.OP, tmp_path_factory.mktemp("cuda_on_host"))


@pytest.fixture
def host(library: Host) -> Iterator[Host]:
    with library.standing_in():
        yield library
