"""Background: a thread that works when it is woken, for an object that it does not keep alive."""

import threading
import weakref
from collections.abc import Callable


class Background:
    """Calls a method of an object, in a thread of its own, after each time it is woken.

    The thread starts at the first call, and again in a forked child; it ends with the object, or
    when it is closed. What the method raises is kept until it is asked for.

    Parameters
    ----------
    method : bound method
        Called without arguments. Its object is held weakly.
    """

    def __init__(self, method: Callable[[], None]) -> None:
        self._method = weakref.WeakMethod(method)
        self._wake, self._idle, self._stopping = threading.Event(), threading.Event(), False
        self._idle.set()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(method.__self__, self.close)

    def wake(self) -> None:
        """Have the method called soon; calls that wait already count as one."""
        with self._lock:
            if self._stopping:
                return
            self._idle.clear()
            self._wake.set()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="halfspace-rebuild", daemon=True
                )
                self._thread.start()

    def raise_failure(self) -> None:
        """Raise what the method raised since this was last called, if anything."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise RuntimeError(f"rebuild in the background failed: {failure}") from failure

    def wait(self) -> None:
        """Wait until there is nothing left to do."""
        if self._thread is not None and self._thread.is_alive():
            self._idle.wait()

    def close(self) -> None:
        """Let a call that runs end, and the thread with it."""
        with self._lock:
            self._stopping = True
            self._wake.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def after_fork(self) -> None:
        """Forget the thread and what it may have held, in a child that has none."""
        self._lock, self._thread = threading.Lock(), None
        self._wake, self._idle = threading.Event(), threading.Event()
        self._idle.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if self._stopping:
                self._idle.set()
                return
            self._wake.clear()
            method = self._method()
            try:
                if method is not None:
                    method()
            except BaseException as error:  # raised by whoever writes next
                self._failure = error
            del method
            with self._lock:
                if not self._wake.is_set():
                    self._idle.set()
