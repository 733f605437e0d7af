"""What anybody may see of storage nodes: how they stand, since when and why, how much of the time they were there."""

from datetime import datetime, timedelta

import trio

from fsn.coord.database.node_states import change_status
from fsn.runtime.clock import system_clock
from tests.web.api.conftest import Api


async def test_a_node_s_status_comes_with_its_reason_and_its_past(api: Api) -> None:
    """The newest first, page by page."""
    node = api.network.nodes[0].node
    assert node is not None
    until = system_clock() + timedelta(hours=4)
    await change_status(
        api.network.services.db, node, "maintenance", reason="a new disk", at=system_clock(), until=until
    )
    view = (await api.http.get(f"/api/v1/nodes/{node}")).json()
    assert (view["status"], view["status_reason"]) == ("maintenance", "a new disk")
    assert datetime.fromisoformat(view["status_until"]) == until
    assert view["uptime"] is None or 0 <= view["uptime"] <= 1
    seen: list[tuple[str | None, str]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await api.http.get(f"/api/v1/nodes/{node}/transitions", params=query)).json()
        seen += [(each["from_status"], each["to_status"]) for each in page["transitions"]]
        cursor = page["next_cursor"]
    assert seen == [("online", "maintenance"), ("joining", "online"), (None, "joining")]


async def test_a_node_that_went_shows_as_offline(api: Api) -> None:
    """Within a second, with the reason."""
    gone = api.network.nodes[0]
    gone.kill()
    while True:
        view = (await api.http.get(f"/api/v1/nodes/{gone.node}")).json()
        if view["status_reason"] == "the connection was lost":
            break
        await trio.sleep(0.05)
    assert view["status"] == "offline"
    metrics = (await api.http.get("/metrics")).text
    assert 'fsn_nodes{state="offline"} 1.0' in metrics
    assert 'fsn_nodes{state="online"} 3.0' in metrics


async def test_transitions_of_nobody(api: Api) -> None:
    """An unknown node is not found, and a strange cursor is said to be one."""
    answer = await api.http.get("/api/v1/nodes/00000000-0000-0000-0000-000000000001/transitions")
    assert answer.status_code == 404
    node = api.network.nodes[0].node
    answer = await api.http.get(f"/api/v1/nodes/{node}/transitions", params={"cursor": "LTU"})
    assert answer.status_code == 400


async def test_how_a_node_s_proofs_have_ended(api: Api) -> None:
    """Reputation, rounds, and failures page by page with what is needed to judge them again."""
    node, db = api.network.nodes[0].node, api.network.services.db
    await db.execute("insert into proof_rounds values (7, now(), now(), null)")
    await db.execute("insert into proof_sums (round, node_id, asked, passed, failed) values (7, %s, 9, 6, 3)", [node])
    await db.execute(
        """insert into proof_failures
           select gen_random_uuid(), 7, %s, gen_random_uuid(), 'bad', sha256('s'), 4, sha256('r'), 100, 1, 'no proof', now()
           from generate_series(1, 3)""",
        [node],
    )
    path = f"/api/v1/nodes/{node}/proofs"
    first = (await api.http.get(path, params={"limit": "2"})).json()
    assert first["reputation"]["score"] == 1.0
    assert not first["reputation"]["vetted"]
    assert [(each["asked"], each["failed"]) for each in first["rounds"]] == [(9, 3)]
    second = (await api.http.get(path, params={"limit": "2", "cursor": first["next_cursor"]})).json()
    seen = [each["challenge_id"] for each in (*first["failures"], *second["failures"])]
    assert len(set(seen)) == 3
    assert second["next_cursor"] is None
    assert first["failures"][0]["seed"] == "043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89"
    assert (await api.http.get("/api/v1/nodes/00000000-0000-0000-0000-000000000001/proofs")).status_code == 404
