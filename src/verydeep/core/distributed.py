"""Sect. 3.3: synchronous data parallelism, by processes that `torchrun` starts, on one machine or several.

Each process computes the gradient of its share of a batch; gradients are all-reduced during the backward pass, so that
every process takes the step that one process would take on the whole batch. Only this module uses `torch.distributed`.

torchrun starts the program several times and passes rank and size in environment variables; without it there is one
process, and PyTorch is not imported here.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, TypeVar

from .errors import ToldElsewhere, VerydeepError
from .heartbeat import Heartbeat
from .team import Team

T = TypeVar("T")
TIMEOUT = timedelta(days=2)  # one share of an evaluation may take hours longer; heartbeats detect hangs
MESSAGE_TIMEOUT = 5.0  # seconds in which the first process to notice a silence is agreed on
PEER_TIMEOUT = 300.0
CONNECT_TIMEOUT = 600.0  # seconds for all processes of a job to connect
_log = logging.getLogger(__name__).critical


def processes() -> int:
    """The number of processes that torchrun started for this job; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def speaks() -> bool:
    """Whether this process prints the messages of the whole job: it is the first, or the only one."""
    return processes() == 1 or os.environ.get("RANK") == "0"


@contextmanager
def joined(peer_timeout: float = PEER_TIMEOUT, tell: Callable[[str], object] = _log) -> Iterator[Team]:
    """Connects to the other processes that torchrun started, if any.

    An error that several processes meet is raised as it is by the first of them; the others raise `ToldElsewhere`.

    Args:
        peer_timeout: seconds that another process may be unresponsive: it hangs, is stopped, or its machine is gone.
            This process then exits with status 2, as it would wait for the other forever.
        tell: is passed the message of that, by the first process that notices it.
    """
    if processes() == 1:
        yield Team(_restarted())
        return
    team = DistributedTeam(peer_timeout, tell)
    try:
        yield team
    except VerydeepError as error:
        if not team.is_first(str(error)):
            raise ToldElsewhere(str(error)) from None
        raise
    finally:
        team.leave()


def _restarted() -> bool:
    """Whether torchrun has restarted this job."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def peer_is_gone(fault: BaseException) -> bool:
    """Whether an error was caused by another process that ended."""
    from torch.distributed import DistError

    words = ("closed by peer", "reset by peer", "Broken pipe", "Socket Timeout", "Timed out", "Connection refused")
    return isinstance(fault, DistError) or any(word in str(fault) for word in words)


class DistributedTeam(Team):
    """This process among those that torchrun started."""

    def __init__(self, peer_timeout: float, tell: Callable[[str], object]) -> None:
        import torch
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        super().__init__(_restarted())
        self._torch, self._distributed = torch, distributed
        if torch.cuda.is_available():
            torch.cuda.set_device(min(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count() - 1))
        self._agents, self.rank, self.size = next(rendezvous("env://"))
        store, self._attempt = _connect(self._agents, self.rank)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)
        self._heartbeat = self._create_heartbeat(peer_timeout, tell)
        self._heartbeat.start()
        self.restarted = self.all_reduce(float(self.restarted))[0] > 0  # each machine counts its own restarts

    def _create_heartbeat(self, limit: float, tell: Callable[[str], object]) -> Heartbeat:
        """Heartbeats use the store of torchrun's agents, which outlives any process of the job that hangs."""
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        beats, messages = PrefixStore(self._attempt, self._agents.clone()), self._agents.clone()
        for store in (beats, messages):
            store.set_timeout(timedelta(seconds=limit))
        numbers: list[int] = []

        def take_number() -> None:
            with suppress(RuntimeError):
                numbers.append(messages.add(f"{self._attempt}/silence", 1))

        def exit_process(message: str) -> None:
            taking = threading.Thread(target=take_number, daemon=True)
            taking.start()
            taking.join(MESSAGE_TIMEOUT)
            if numbers in ([1], []):  # the first to notice, or the link to the store is cut
                tell(message)
            os._exit(2)  # nothing else ends a process inside an all-reduce

        return Heartbeat(beats, self.rank, self.size, limit, exit_process)

    def mark(self, name: str) -> None:
        self._agents.set(f"verydeep/marked/{name}", "yes")

    def marked(self, name: str) -> bool:
        return bool(self._agents.check([f"verydeep/marked/{name}"]))

    def all_reduce(self, *values: float) -> list[float]:
        sums = self._torch.tensor(values, dtype=self._torch.float64)
        self._distributed.all_reduce(sums)
        return [float(value) for value in sums]

    def all_gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        self._distributed.all_gather_object(values, value)
        return values

    def wrap_ddp(self, net: Callable[..., Any], bf16: bool) -> Callable[..., Any]:
        from torch.nn.parallel import DistributedDataParallel

        assert isinstance(net, self._torch.nn.Module)
        device = next(net.parameters()).device
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        if device.type == "cuda" and local > self._torch.cuda.device_count():
            raise VerydeepError(
                f"{local} processes on a machine with {self._torch.cuda.device_count()} GPUs: start one per GPU "
                "(--nproc-per-node), or use --device cpu."
            )
        wrapped = DistributedDataParallel(net, gradient_as_bucket_view=True)
        if bf16:
            wrapped.register_comm_hook(self.size, _averaged_in_bf16())
        return wrapped

    def no_sync(self, net: Callable[..., Any], last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else net.no_sync()  # type: ignore[attr-defined]

    def is_first(self, message: str) -> bool:
        """Whether no other process of this team has called this with the same message."""
        return bool(self._agents.add(f"{self._attempt}/{message}", 1) == 1)

    def leave(self) -> None:
        """Disconnects from the other processes."""
        self._heartbeat.leave()
        gc.collect()  # remaining references to the group would keep its threads alive until Python exits
        self._distributed.destroy_process_group()


def _connect(agents: Any, rank: int) -> tuple[Any, str]:
    """A store of this attempt, which the first process serves, and a name for the attempt.

    torchrun's store outlives a restart and then still holds addresses of dead processes. So it is only used to find the
    first process: a process that reads an outdated address cannot connect, and reads again.
    """
    from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

    host = os.environ["MASTER_ADDR"]
    if rank == 0:
        name = uuid.uuid4().hex
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        store.set("name", name)
        agents.set("verydeep/first", f"{store.port} {name}")
        return store, name
    until = time.monotonic() + CONNECT_TIMEOUT
    while True:
        port, name = agents.get("verydeep/first").decode().split()
        try:
            store = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=2))
            if store.get("name").decode() == name:
                store.set_timeout(timedelta(seconds=CONNECT_TIMEOUT))
                return store, name
        except DistError:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


def _averaged_in_bf16() -> Callable[[int, Any], Any]:
    """A DDP hook that averages a bucket of gradients as bf16; PyTorch's own needs NCCL."""
    import torch
    from torch import distributed

    # DDP reads annotations and refuses postponed ones, which are strings.
    def hook(size, bucket):  # type: ignore[no-untyped-def]
        gradients = bucket.buffer()
        halves = gradients.to(torch.bfloat16).div_(size)
        done = distributed.all_reduce(halves, async_op=True).get_future()
        return done.then(lambda future: gradients.copy_(future.value()[0]))

    return hook
