"""What ``/metrics`` answers, as numbers."""

from prometheus_client.parser import text_string_to_metric_families


def samples(text: str) -> dict[tuple[str, ...], float]:
    """By the sample's name and its labels' values, in the order of the labels' names."""
    exposed = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {(one.name, *(value for _, value in sorted(one.labels.items()))): one.value for one in exposed}
