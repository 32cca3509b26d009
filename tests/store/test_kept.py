"""The list of collections with users' data is complete."""

import pytest

from chatstream.store.gate import Collection
from chatstream.store.kept import KEPT, OF_NOBODY, Kept
from chatstream.store.mongo import INDEXES, Mongo


def test_every_collection_is_in_the_list(mongo: Mongo) -> None:
    listed = {*OF_NOBODY, *(kept.name for kept in KEPT)}
    used = {one._collection.name for one in vars(mongo).values() if isinstance(one, Collection)}
    assert used == {*INDEXES} == listed


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.name)
def test_what_is_a_users_is_found_by_an_index(kept: Kept) -> None:
    whole = [index.document for index in INDEXES[kept.name] if "partialFilterExpression" not in index.document]
    assert any(next(iter(index["key"])) == kept.found for index in whole)
