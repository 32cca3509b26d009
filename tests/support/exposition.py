"""Reads the numbers of ``/metrics``."""

import asyncio
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.client import PATIENCE

Samples = dict[tuple[str, ...], float]
"""By the sample's name and its labels' values, in the order of the labels' names."""


def samples(text: str) -> Samples:
    """The samples in a response of ``/metrics``."""
    exposed = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {(one.name, *(value for _, value in sorted(one.labels.items()))): one.value for one in exposed}


async def scrape(http: httpx.AsyncClient, url: str = "/metrics") -> Samples:
    """Request ``/metrics``; returns its samples."""
    response = await http.get(url)
    assert response.status_code == 200
    return samples(response.text)


async def eventually(http: httpx.AsyncClient, holds: Callable[[Samples], bool]) -> Samples:
    """Request the metrics until `holds` is true for them: the server counts an event some time after it happens."""
    async with asyncio.timeout(PATIENCE):
        while not holds(exposed := await scrape(http)):
            await asyncio.sleep(0.05)  # between two polls; there is no event to wait for in another process
    return exposed
