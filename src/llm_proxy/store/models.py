"""The tables as peewee sees them; `migrations.py` makes them. Bound to a database per query."""

from __future__ import annotations

import peewee


class ProjectRow(peewee.Model):
    id = peewee.TextField(primary_key=True)
    name = peewee.TextField(unique=True)
    description = peewee.TextField()
    metadata = peewee.TextField()  # a JSON object
    is_active = peewee.BooleanField()
    deactivated_at = peewee.TextField(null=True)
    created_at = peewee.TextField()
    updated_at = peewee.TextField()
    rate_limit = peewee.TextField(null=True)
    rate_burst = peewee.BigIntegerField(null=True)
    max_concurrent = peewee.BigIntegerField(null=True)

    class Meta:
        table_name = "projects"


class ApiKeyRow(peewee.Model):
    project_id = peewee.TextField()
    api = peewee.TextField()
    encrypted = peewee.TextField()

    class Meta:
        table_name = "api_keys"
        primary_key = peewee.CompositeKey("project_id", "api")


class TokenRow(peewee.Model):
    id = peewee.TextField(primary_key=True)
    digest = peewee.TextField(unique=True)  # SHA-256 in hexadecimal
    previous_digest = peewee.TextField(unique=True, null=True)  # before the last rotation
    previous_valid_until = peewee.TextField(null=True)
    masked = peewee.TextField()
    name = peewee.TextField()
    project_id = peewee.TextField()
    expires_at = peewee.TextField(null=True)
    is_active = peewee.BooleanField()
    deactivated_at = peewee.TextField(null=True)
    max_requests = peewee.BigIntegerField(null=True)
    request_count = peewee.BigIntegerField(default=0)
    cache_hit_count = peewee.BigIntegerField(default=0)
    created_at = peewee.TextField()
    last_used_at = peewee.TextField(null=True)
    not_before = peewee.TextField(null=True)
    idle_timeout_s = peewee.BigIntegerField(null=True)
    scope = peewee.TextField(null=True)  # a JSON object
    reserved = peewee.BigIntegerField(default=0)
    rate_limit = peewee.TextField(null=True)
    rate_burst = peewee.BigIntegerField(null=True)
    max_concurrent = peewee.BigIntegerField(null=True)

    class Meta:
        table_name = "tokens"


class LeaseRow(peewee.Model):
    id = peewee.AutoField()
    token_id = peewee.TextField()
    host = peewee.TextField()
    holder = peewee.TextField()  # a worker, or what took it in one; never used again
    granted = peewee.BigIntegerField(null=True)  # permits in all; NULL: of a token without a cap
    settled = peewee.BigIntegerField(default=0)  # of these, what `request_count` holds
    taken_at = peewee.TextField()

    class Meta:
        table_name = "leases"


class ChangeRow(peewee.Model):
    id = peewee.AutoField()
    kind = peewee.TextField()
    object_id = peewee.TextField()
    at = peewee.TextField()

    class Meta:
        table_name = "changes"


class AuditRow(peewee.Model):
    id = peewee.TextField(primary_key=True)
    timestamp = peewee.TextField()
    chain = peewee.TextField()
    sequence = peewee.BigIntegerField()
    action = peewee.TextField()
    actor = peewee.TextField()
    outcome = peewee.TextField()
    client_ip = peewee.TextField(null=True)
    request_id = peewee.TextField(null=True)
    method = peewee.TextField(null=True)
    path = peewee.TextField(null=True)
    user_agent = peewee.TextField(null=True)
    project_id = peewee.TextField(null=True)
    token_id = peewee.TextField(null=True)
    reason = peewee.TextField(null=True)
    details = peewee.TextField()  # a JSON object
    previous_hash = peewee.TextField()
    hash = peewee.TextField()

    class Meta:
        table_name = "audit_records"


class AuditChainRow(peewee.Model):
    chain = peewee.TextField(primary_key=True)
    sequence = peewee.BigIntegerField()  # of its last record
    hash = peewee.TextField()  # of that, too: whether the end was cut off
    kept_from = peewee.BigIntegerField()  # the first that is in the table still

    class Meta:
        table_name = "audit_chains"


class MetaRow(peewee.Model):
    name = peewee.TextField(primary_key=True)
    value = peewee.TextField()

    class Meta:
        table_name = "meta"
