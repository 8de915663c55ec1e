"""Sect. 3.3: synchronous data parallelism, by processes that `torchrun` starts, on one machine or several.

Each process computes the gradient of its share of a batch; the shares' gradients are summed while the backward pass
still runs, so that every process takes the step that one process would take on the whole batch. This is the only room
that knows `torch.distributed`.

torchrun starts this program several times and tells each in its environment who it is; where it does not, there is
one process, and none of this is imported.
"""

from __future__ import annotations

import gc
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

from .errors import ToldElsewhere, VerydeepError
from .heartbeat import Pulse, ends, to_the_log
from .team import SingleProcess, Team, share_of

T = TypeVar("T")
TIMEOUT = timedelta(days=2)  # shares of a test may take hours more than others; the pulse tells who hangs
PEER_TIMEOUT = 300.0
PATIENCE = 600.0  # seconds for all processes of a job to arrive


def processes() -> int:
    """How many processes torchrun started for this job; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def speaks() -> bool:
    """Whether this process is the one to tell what all of a job would: the first, or the only one."""
    return processes() == 1 or os.environ.get("RANK") == "0"


@contextmanager
def joined(peer_timeout: float = PEER_TIMEOUT, tell: Callable[[str], object] = to_the_log) -> Iterator[Team]:
    """The team of this process: with the others that torchrun started, or alone.

    A mistake that several processes find is told by the first of them; the others raise `ToldElsewhere`.

    Args:
        peer_timeout: seconds that another process may be silent: hanging, stopped, or on a machine that is gone. This
            one then ends with status 2, as it would wait for the other without end.
        tell: is told the sentence of that, by the first process that finds it.
    """
    if processes() == 1:
        yield SingleProcess(_restarted())
        return
    team = DistributedTeam(peer_timeout, tell)
    try:
        yield team
    except VerydeepError as mistake:
        if not team.first_to_tell(str(mistake)):
            raise ToldElsewhere(str(mistake)) from None
        raise
    finally:
        team.leave()


def _restarted() -> bool:
    """Whether torchrun began this job again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def peer_is_gone(fault: BaseException) -> bool:
    """Whether an error came of another process's end."""
    from torch.distributed import DistError

    words = ("closed by peer", "reset by peer", "Broken pipe", "Socket Timeout", "Timed out", "Connection refused")
    return isinstance(fault, DistError) or any(word in str(fault) for word in words)


class DistributedTeam:
    """This process among those that torchrun started; see `verydeep.core.team.Team`."""

    def __init__(self, peer_timeout: float, tell: Callable[[str], object]) -> None:
        import torch
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        self._torch, self._distributed = torch, distributed
        self.restarted = _restarted()
        if torch.cuda.is_available():
            torch.cuda.set_device(min(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count() - 1))
        self._agents, self.rank, self.size = next(rendezvous("env://"))
        store, self._attempt = _meet(self._agents, self.rank)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)
        self._pulse = self._pulse_of(peer_timeout, tell)
        self._pulse.start()
        self.restarted = self.all_reduce(float(self.restarted))[0] > 0  # each machine counts its own

    def _pulse_of(self, limit: float, tell: Callable[[str], object]) -> Pulse:
        """torchrun keeps the store of its agents while any process of ours hangs."""
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        mine, telling = PrefixStore(self._attempt, self._agents.clone()), self._agents.clone()
        for store in (mine, telling):
            store.set_timeout(timedelta(seconds=limit))

        def tell_first(sentence: str) -> None:
            if telling.add(f"{self._attempt}/silence", 1) == 1:
                tell(sentence)

        return Pulse(mine, self.rank, self.size, limit, ends(tell_first))

    @property
    def is_main(self) -> bool:
        return bool(self.rank == 0)

    def shard(self, count: int) -> range:
        return share_of(count, self.rank, self.size)

    def mark(self, name: str) -> None:
        self._agents.set(f"verydeep/marked/{name}", "yes")

    def marked(self, name: str) -> bool:
        return bool(self._agents.check([f"verydeep/marked/{name}"]))

    def all_reduce(self, *values: float) -> list[float]:
        sums = self._torch.tensor(values, dtype=self._torch.float64)
        self._distributed.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def all_gather(self, mine: T) -> list[T]:
        found: list[Any] = [None] * self.size
        self._distributed.all_gather_object(found, mine)
        return found

    def wrap_ddp(self, net: Callable[..., Any], bf16: bool) -> Callable[..., Any]:
        from torch.nn.parallel import DistributedDataParallel

        assert isinstance(net, self._torch.nn.Module)
        device = next(net.parameters()).device
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        if device.type == "cuda" and here > self._torch.cuda.device_count():
            raise VerydeepError(
                f"{here} processes on a machine of {self._torch.cuda.device_count()} GPUs: start one a GPU "
                "(--nproc-per-node), or say --device cpu."
            )
        wrapped = DistributedDataParallel(net, gradient_as_bucket_view=True)
        if bf16:
            wrapped.register_comm_hook(self.size, _averaged_in_bf16())
        return wrapped

    def no_sync(self, net: Callable[..., Any], last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else net.no_sync()  # type: ignore[attr-defined]

    def first_to_tell(self, sentence: str) -> bool:
        """Whether no process of this team has told it yet."""
        return bool(self._agents.add(f"{self._attempt}/{sentence}", 1) == 1)

    def leave(self) -> None:
        """Nothing is sent after this."""
        self._pulse.leave()
        gc.collect()  # what still holds the group would keep its threads alive, into Python's own end
        self._distributed.destroy_process_group()


def _meet(agents: Any, rank: int) -> tuple[Any, str]:
    """A store of this attempt's own, which the first process keeps, and a name for the attempt.

    torchrun's store outlives a job that it begins again, with the addresses of the dead in it, so it serves only to
    tell where the first process is: who reads what a dead one told finds nobody there, and asks again.
    """
    from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

    host = os.environ["MASTER_ADDR"]
    if rank == 0:
        name = uuid.uuid4().hex
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        store.set("name", name)
        agents.set("verydeep/first", f"{store.port} {name}")
        return store, name
    until = time.monotonic() + PATIENCE
    while True:
        port, name = agents.get("verydeep/first").decode().split()
        try:
            store = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=2))
            if store.get("name").decode() == name:
                store.set_timeout(timedelta(seconds=PATIENCE))
                return store, name
        except DistError:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


def _averaged_in_bf16() -> Callable[[int, Any], Any]:
    """DDP's hook that averages a bucket of gradients as bf16; PyTorch's own asks for NCCL."""
    import torch
    from torch import distributed

    # DDP reads annotations, and refuses those that are text, as all here are.
    def hook(size, bucket):  # type: ignore[no-untyped-def]
        mine = bucket.buffer()
        sent = mine.to(torch.bfloat16).div_(size)
        done = distributed.all_reduce(sent, async_op=True).get_future()
        return done.then(lambda future: mine.copy_(future.value()[0]))

    return hook
