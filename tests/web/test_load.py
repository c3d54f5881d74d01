"""Fifty readers at once, while another process writes to the same store."""

from nasgraph.modelzoo import ZooEntry
from nasgraph.modelzoo.store import Zoo
from tests.web.loading import read_much, served, writing


def test_fifty_readers_meet_no_error_while_a_search_writes(tracking_uri: str, entry: ZooEntry) -> None:
    zoo = Zoo(tracking_uri)
    zoo.add(entry.path, "small")
    zoo.add(entry.path, "small")
    with served(tracking_uri) as port, writing(tracking_uri, entry.path, seconds=4) as written:
        traffic = read_much(port, readers=50, requests=4)
    assert not traffic.problems
    assert len(traffic.seconds) == 200
    assert written[0] >= 1
    names = {listing.name for listing in zoo.list_models("found-*")}
    assert names == {f"found-{number}" for number in range(written[0])}
