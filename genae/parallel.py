"""One run on several processes, each with a GPU or some processors of its own: how they meet, and who does what.

Process 0 leads: it alone looks for work, decides, measures and writes. The others hear from it what to train, all that it
starts from, and before each step that there is one. In a step all have the whole batch, with the same draws, and share the
work of its networks out (genae/rows.py).
"""

import io
import os
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genae.rows import sharing, span

MEETING = timedelta(minutes=10)  # for all processes to come up
STEP = timedelta(minutes=30)  # within a training step nobody is waited for longer, compiling included
EVER = timedelta(days=365)  # between steps process 0 may measure for hours; that it died is noticed at once
GRACE = timedelta(seconds=10)  # for an error to be everyone's

END, GO_ON = 0, -1  # what a message's length says where it has no content


class Broken(RuntimeError):
    """The processes of a run have lost one another: none can go on, and each ends."""


class _Ended(Exception):
    """Process 0 has ended what it is helped with."""


class Group:
    """The processes that train one run together; `rank` 0 leads. A group of one does nothing, and costs nothing.

    store: where they leave notes.  host: for messages, which may be long in coming; what is computed goes through torch's
    default group.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None, host: Any = None) -> None:
        self.rank = rank
        self.size = size
        self.broken = False
        self._store = store
        self._host = host
        self._steps = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    # Between steps: process 0 tells the others what to do.

    def tell(self, message: Any) -> None:
        """From process 0 to all others: plain values and tensors."""
        if self.size == 1:
            return
        packed = io.BytesIO()
        torch.save(message, packed)
        content = torch.frombuffer(packed.getbuffer(), dtype=torch.uint8)
        self._send(len(content))
        self._on_host(dist.broadcast, content, src=0)

    def hear(self) -> Any:
        """What process 0 tells, on the CPU; None where it only says to go on."""
        length = torch.empty((), dtype=torch.int64)
        self._on_host(dist.broadcast, length, src=0)
        if length == END:
            raise _Ended
        if length == GO_ON:
            return None
        content = torch.empty(int(length), dtype=torch.uint8)
        self._on_host(dist.broadcast, content, src=0)
        return torch.load(io.BytesIO(content.numpy()), map_location="cpu", weights_only=True)

    def go_on(self) -> None:
        """From process 0: take the next step."""
        if self.size > 1:
            self._send(GO_ON)

    @contextmanager
    def task(self, message: Any = None) -> Iterator[None]:
        """One thing that all do together. Process 0 gives the message that begins it, and however it ends there, it ends.

        The others `hear` on within; what fails for them alone is theirs to tell (`agreement`).
        """
        if self.leads:
            if message is not None:
                self.tell(message)
            try:
                yield
            finally:
                self.end()
            return
        try:
            yield
        except _Ended:
            return
        except Exception as error:
            if self.broken:
                raise
            traceback.print_exception(error)  # process 0 keeps its first line
        with suppress(_Ended):
            while True:
                self.hear()

    def end(self) -> None:
        """From process 0: what was under way has ended."""
        if self.size > 1 and not self.broken:
            self._send(END)

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """What fails here on one process fails on all, which may then do something else together."""
        mine = None
        try:
            yield
        except Exception as error:
            if self.size == 1 or self.broken:
                raise
            mine = error
        if self.size == 1:
            return
        found: list[str | None] = [None] * self.size
        self._on_host(dist.all_gather_object, found, None if mine is None else self._signed(mine))
        if mine is not None:
            raise mine
        if any(found):
            raise RuntimeError(next(filter(None, found)))

    def _send(self, number: int) -> None:
        self._on_host(dist.broadcast, torch.tensor(number), src=0)

    def _on_host(self, collective: Callable[..., Any], *arguments: Any, **settings: Any) -> None:
        if self.broken:
            raise Broken("the processes of this run have lost one another")
        try:
            collective(*arguments, **settings, group=self._host)
        except RuntimeError as error:
            self.broken = True
            raise Broken(f"process {self.rank} of {self.size} lost the others: {_first_line(error)}") from error

    def _signed(self, error: Exception) -> str:
        place = f"process {self.rank} of {self.size} on {socket.gethostname()}"
        return f"{place}: {type(error).__name__}: {_first_line(error)}"

    # In a step.

    @contextmanager
    def step(self) -> Iterator[None]:
        """A training step, within which `by_rows` shares the work out; everything else runs as on one process.

        An error that all processes meet passes through; one that only some meet leaves the others waiting and ends them all:
        it is raised as Broken.
        """
        if self.size == 1:
            yield
            return
        self._steps += 1
        try:
            with sharing(self.rank, self.size):
                yield
        except Exception as error:
            reason = self._reason(self._signed(error))
            if reason is None:
                raise
            self.broken = True
            raise Broken(reason) from error

    def _reason(self, mine: str) -> str | None:
        """None where every process failed in this step; else why the first did that found itself alone."""
        names = [f"failed/{self._steps}/{rank}" for rank in range(self.size)]
        try:
            self._store.set(names[self.rank], mine)
            with suppress(RuntimeError):
                self._store.wait(names, GRACE)
                if not self._store.check(["broken"]):
                    return None
            return self._store.compare_set("broken", "", mine).decode()  # as it stands already, where it does
        except RuntimeError:  # the notes went with process 0
            return mine

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """The gradients of parameters, averaged over the processes."""
        if self.size == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in by_type.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            flat /= self.size
            for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def span(self, model: nn.Module) -> None:
        """Let torch's own layers of `model` look at whole batches and draw for them (rows.span)."""
        if self.size > 1:
            span(model)


ALONE = Group()


# How processes find one another.


@contextmanager
def join() -> Iterator[Group]:
    """The group that this process belongs to, by torchrun's environment or that of a submitit job; ALONE where it has none.

    gloo on a CPU, nccl on a GPU, of which each process takes its own. At the end the others hear from process 0 to leave.
    Raises ValueError where a node has several GPUs, and fewer than processes.
    """
    found = _place()
    if found is None:
        yield ALONE
        return
    rank, size, local_rank, local_size, store = found
    num_gpus = torch.cuda.device_count()
    if 1 < num_gpus < local_size:
        raise ValueError(f"{local_size} processes on {socket.gethostname()}, which has {num_gpus} GPUs")
    if num_gpus:
        torch.cuda.set_device(local_rank % num_gpus)
    backend = "cpu:gloo,cuda:nccl" if num_gpus else "gloo"
    dist.init_process_group(backend, store=dist.PrefixStore("groups", store), rank=rank, world_size=size, timeout=STEP)
    host = dist.new_group(backend="gloo", timeout=EVER)
    group = Group(rank, size, dist.PrefixStore("notes", store), host)
    try:
        yield group
    finally:
        if group.leads:
            with suppress(Broken):  # what process 0 did stands, whatever became of the others
                group.end()
        if not group.broken:  # else some hang in what can only be ended with the process
            dist.destroy_process_group()


def _place() -> tuple[int, int, int, int, Any] | None:
    """Rank, number of processes, both again on this node, and the store where they meet; None for a process by itself."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # torchrun, or whoever sets its variables
        store, rank, size = next(dist.rendezvous("env://", timeout=MEETING))
        return rank, size, int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size)), store
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    import submitit
    from submitit.helpers import TorchDistributedEnvironment

    job = submitit.JobEnvironment()
    if job.num_tasks == 1:
        return None
    found = TorchDistributedEnvironment()
    host = "127.0.0.1" if job.num_nodes == 1 else os.environ.get("MASTER_ADDR", found.master_addr)
    leads = found.rank == 0
    store = dist.TCPStore(host, found.master_port, found.world_size, is_master=leads, timeout=MEETING)
    return found.rank, found.world_size, found.local_rank, found.local_world_size, store


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
