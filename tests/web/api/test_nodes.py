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
