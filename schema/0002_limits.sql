-- What was set by `relayctl limit`; without a row the default holds. principal_id NULL: the tenant's own
-- limit; value NULL: none.
CREATE TABLE limits (
    tenant_id    INTEGER NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    principal_id INTEGER,
    name         TEXT NOT NULL,
    value        INTEGER CHECK (value >= 0),
    FOREIGN KEY (tenant_id, principal_id) REFERENCES principals (tenant_id, id) ON DELETE CASCADE
) STRICT;

CREATE UNIQUE INDEX limits_by_owner ON limits (tenant_id, coalesce(principal_id, 0), name);
CREATE INDEX limits_by_principal ON limits (principal_id) WHERE principal_id IS NOT NULL;
