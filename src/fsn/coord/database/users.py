"""Users in the catalogue."""

from psycopg.errors import UniqueViolation

from fsn.coord.catalog import User
from fsn.coord.database.base import Connection
from fsn.coord.database.pool import Pool
from fsn.core.errors import Conflict
from fsn.core.ids import UserId

__all__ = ["insert_user", "user_by_email", "user_by_id"]


async def insert_user(db: Connection, user: User) -> None:
    """Add `user`. Raises Conflict (`email_taken`) when the address is registered already, in whatever case."""
    try:
        await db.execute(
            "insert into users (id, email, password_hash, created_at) values (%s, %s, %s, %s)",
            [user.id, user.email, user.password_hash, user.created_at],
        )
    except UniqueViolation as error:
        raise Conflict("an account with this email exists already: log in", code="email_taken") from error


async def user_by_email(db: Pool, email: str) -> User | None:
    """The user with this address, whatever its case."""
    sql = "select id, email, password_hash, created_at from users where lower(email) = lower(%s)"
    return await db.fetch_one(sql, [email], row=User)


async def user_by_id(db: Pool, user: UserId) -> User | None:
    """The user with this id."""
    return await db.fetch_one("select id, email, password_hash, created_at from users where id = %s", [user], row=User)
