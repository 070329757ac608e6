"""Ends a container when its lifetime is over, and says why any container has ended.

Without it a sandbox that nobody closes would run for ever; and one that has waited for its session
would have that much less time for it than was promised.
"""

import asyncio

from orchestrator.errors import SandboxLostError
from orchestrator.ports import Container


class Lifetime:
    """How long one container may live, whatever happens in it."""

    def __init__(self, length_s: float) -> None:
        """Begins to count once somebody learns the end."""
        self._length_s = length_s
        self._ending: asyncio.Timeout | None = None

    def begin_again(self) -> None:
        """Counts from now; does nothing for a container that has ended."""
        if self._ending is not None and not self._ending.expired():
            self._ending.reschedule(asyncio.get_running_loop().time() + self._length_s)

    async def learn_end(self, container: Container) -> str:
        """Waits for the container's end, or brings it about when time is over; says why."""
        try:
            async with asyncio.timeout(self._length_s) as self._ending:
                await container.wait_for_exit()
        except TimeoutError:
            await container.destroy()
            return f"Its lifetime of {self._length_s:,.0f} s is over."
        except SandboxLostError as error:
            return str(error)
        finally:
            self._ending = None
        return await container.obituary()
