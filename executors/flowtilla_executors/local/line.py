"""A child process's end of its connection to the worker: calls come in, outcomes go out.

Once a stage asks whether it is to stop, or registers clean-up for that, a thread reads what the worker sends, so that
the word to stop arrives while the stage runs. Until then the child's main thread does, which costs less.
"""

import contextvars
import pickle
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

from flowtilla.cancellation import Cancellation
from flowtilla_executors.outcome import Outcome
from flowtilla_executors.values import Snapshot

#: The name of a call's value, and the call with its parents.
Order = tuple[str, Snapshot]

#: What travels beside orders and outcomes. To the worker: the call that runs will notice that it is to stop. To the
#: child: it is to stop.
WORD = pickle.dumps(None)


class Line:
    """The child's end.

    Args:
        connection: to the worker.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._orders: SimpleQueue[Order | None] | None = None
        self._running: Cancellation | None = None
        self._lock = threading.Lock()

    def next(self) -> tuple[Order, Cancellation]:
        """Waits for an order; returns it, and what asks its call to stop.

        Raises:
            EOFError: the worker is gone.
        """
        order: Order | None = self._receive() if self._orders is None else self._orders.get()
        if order is None:
            raise EOFError
        self._running = Cancellation(self._heeds)
        return order, self._running

    def reply(self, kept: Snapshot | None, outcome: Outcome) -> None:
        """Sends how the call ended."""
        content = pickle.dumps((kept, outcome))
        with self._lock:
            self._running = None
            self._connection.send_bytes(content)

    def _heeds(self, call: Cancellation) -> None:
        with self._lock:
            if call is not self._running:
                return  # a thread that outlived its stage asks
            if self._orders is None:
                self._orders = SimpleQueue()
                listener = threading.Thread(target=self._listen, args=(self._orders,), daemon=True)
                # It belongs to no stage.
                contextvars.Context().run(listener.start)
            self._connection.send_bytes(WORD)

    def _listen(self, orders: "SimpleQueue[Order | None]") -> None:
        while True:
            try:
                order = self._receive()
            except EOFError:
                orders.put(None)
                return
            if order is not None:
                orders.put(order)
            elif (running := self._running) is not None:
                running.request()

    def _receive(self) -> Order | None:
        received: Order | None = pickle.loads(self._connection.recv_bytes())
        return received
