"""What a month may cost, as the user decides."""

import pytest

from tests.web.api.conftest import Api

ME, BUDGET = "/api/v1/auth/me", "/api/v1/auth/budget"


async def test_a_budget_is_set_shown_and_taken_away(api: Api) -> None:
    """With what was spent; without one, nothing is shown."""
    user = await api.user()
    assert (await user.get(ME)).json()["monthly_budget"] is None
    found = (await user.put(BUDGET, json={"monthly_credits": "12.5"})).json()
    assert (found["monthly_budget"], found["spent_this_month"]) == ("12.50", "0.00")
    assert (await user.get(ME)).json() == found
    assert (await user.put(BUDGET, json={"monthly_credits": None})).json()["monthly_budget"] is None


@pytest.mark.parametrize("text", ["-1", "many", "1000000000001", "0.0000001"])
async def test_what_is_no_budget(api: Api, text: str) -> None:
    """Is refused with what is wanted, and changes nothing."""
    user = await api.user()
    await user.put(BUDGET, json={"monthly_credits": "3"})
    assert (await user.put(BUDGET, json={"monthly_credits": text})).status_code == 400
    assert (await user.get(ME)).json()["monthly_budget"] == "3.00"
