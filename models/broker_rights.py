"""What a user of Redis has to be allowed to do, so that workers work with it: found out without doing any of it."""

from collections.abc import Iterator, Sequence
from typing import Any

from redis.exceptions import NoPermissionError

RIGHTS = (
    "~scanomaly* ~_kombu.* ~unacked* ~*.pidbox* &/0.celery.pidbox &/0.celeryev/* "
    "-@all +@read +@write +@connection +@transaction +@pubsub +@scripting +time -@dangerous"
)
"""For `ACL SETUSER`, in database 0: whose number is in the names of the channels. Redis compares the pattern of a
subscription with that of the right letter by letter, so `&/0.*` would not do."""

_Command = tuple[str | int, ...]


def missing_right(channel: Any, queues: Sequence[str]) -> str | None:
    """What a user may not do that Celery, kombu and Scanomaly do with these queues.

    Redis looks at rights when a command is put into a transaction. So all are put into one, which is thrown away.

    Args:
        channel: kombu's, connected.
        queues: the names of Celery's queues.

    Returns:
        The first command that is refused, with what Redis says; None when there is none.

    Raises:
        redis.exceptions.RedisError: the server does not answer, or knows no transactions.
    """
    pool = channel.client.connection_pool
    connection = pool.get_connection()

    def ask(*command: str | int) -> str | None:
        connection.send_command(*command)
        try:
            connection.read_response()
        except NoPermissionError as error:
            return f"{command[0]}: {error}"
        return None

    try:
        refused = ask("MULTI")
        for command in [] if refused else _commands(channel.keyprefix_fanout, queues):
            refused = ask(*command)
            if refused:
                break
        return refused or ask("DISCARD")
    finally:
        connection.disconnect()  # whatever state the transaction is in
        pool.release(connection)


def _commands(fanout: str, queues: Sequence[str]) -> Iterator[_Command]:
    """All that was seen while a job was done, a worker was asked by `celery inspect`, and calls were restored."""
    for queue in queues:
        yield from (("LPUSH", queue, ""), ("RPUSH", queue, ""), ("BRPOP", queue, 1), ("LLEN", queue))
        yield from (("LRANGE", queue, 0, 0), ("SADD", f"_kombu.binding.{queue}", ""))
    for bindings in ("_kombu.binding.celery.pidbox", "_kombu.binding.reply.celery.pidbox"):
        yield from (("SADD", bindings, ""), ("SREM", bindings, ""), ("SMEMBERS", bindings))
    yield from (("ZADD", "_kombu.binding_deadlines", 0, ""), ("ZRANGEBYSCORE", "_kombu.binding_deadlines", 0, 0))
    yield from (("ZADD", "unacked_index", 0, ""), ("ZREM", "unacked_index", ""))
    yield from (("ZRANGEBYSCORE", "unacked_index", 0, 0), ("ZRANGE", "unacked_index", 0, 0))
    yield from (("HSET", "unacked", "", ""), ("HGET", "unacked", ""), ("HMGET", "unacked", ""))
    yield from (("HDEL", "unacked", ""), ("SET", "unacked_mutex", "", "NX"), ("GET", "unacked_mutex"))
    yield from (("DEL", "unacked_mutex"), ("SCRIPT", "LOAD", "return 1"), ("TIME",), ("PING",))
    yield from (("EVALSHA", "0" * 40, 1, "unacked_mutex"), ("SCRIPT", "EXISTS", "0" * 40))
    for mailbox in ("scanomaly@host.celery.pidbox", "id.reply.celery.pidbox"):
        yield from (("LPUSH", mailbox, ""), ("BRPOP", mailbox, 1), ("LLEN", mailbox), ("DEL", mailbox))
    yield from (("PUBLISH", f"{fanout}celery.pidbox", ""), ("PUBLISH", f"{fanout}celeryev/worker.heartbeat", ""))
    yield from (("PSUBSCRIBE", f"{fanout}celery.pidbox"), ("PUNSUBSCRIBE", f"{fanout}celery.pidbox"))
