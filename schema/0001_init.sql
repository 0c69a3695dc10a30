-- The registry: who may log in, and what they own. Times are UNIX seconds.
-- Ids are never reused (AUTOINCREMENT): a live session remembers the id of its principal and key.

CREATE TABLE tenants (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE principals (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id    INTEGER NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    kind         TEXT NOT NULL CHECK (kind IN ('device', 'client')),
    name         TEXT NOT NULL,
    expires      INTEGER,
    created      INTEGER NOT NULL,
    last_seen    INTEGER,
    last_address TEXT,
    UNIQUE (tenant_id, name),
    UNIQUE (tenant_id, id)
) STRICT;

-- blob is the base64 of the whole public key, as in authorized_keys. by_admin = 1: registered by
-- the relay's administrator; the oldest such row of a blob is the key's home.
CREATE TABLE keys (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id    INTEGER NOT NULL,
    principal_id INTEGER NOT NULL,
    type         TEXT NOT NULL,
    blob         TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    comment      TEXT NOT NULL,
    by_admin     INTEGER NOT NULL CHECK (by_admin IN (0, 1)),
    created      INTEGER NOT NULL,
    last_seen    INTEGER,
    UNIQUE (tenant_id, blob),
    FOREIGN KEY (tenant_id, principal_id) REFERENCES principals (tenant_id, id) ON DELETE CASCADE
) STRICT;

CREATE INDEX keys_by_blob ON keys (blob, by_admin, id);
CREATE INDEX keys_by_principal ON keys (principal_id);

-- rule is PATTERN[:PORTS]. It means `publish` for a device and `connect` for a client.
CREATE TABLE rules (
    principal_id INTEGER NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    rule         TEXT NOT NULL,
    PRIMARY KEY (principal_id, rule)
) STRICT, WITHOUT ROWID;

-- A name outside its device's own belongs to principal_id, all ports; a row under the device's own
-- name is history.
CREATE TABLE endpoints (
    tenant_id    INTEGER NOT NULL,
    name         TEXT NOT NULL,
    port         INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    principal_id INTEGER NOT NULL,
    created      INTEGER NOT NULL,
    last_seen    INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name, port),
    FOREIGN KEY (tenant_id, principal_id) REFERENCES principals (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX endpoints_by_principal ON endpoints (principal_id);

-- Keys that asked to be enrolled and that nobody has approved.
CREATE TABLE pending_keys (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id   INTEGER NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    type        TEXT NOT NULL,
    blob        TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    address     TEXT NOT NULL,
    hint        TEXT NOT NULL,
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    UNIQUE (tenant_id, blob)
) STRICT;

-- The audit trail. No foreign keys: it outlives what it tells of.
CREATE TABLE events (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    time      INTEGER NOT NULL,
    tenant    TEXT NOT NULL,
    principal TEXT NOT NULL,
    address   TEXT NOT NULL,
    event     TEXT NOT NULL,
    object    TEXT NOT NULL,
    reason    TEXT NOT NULL,
    count     INTEGER NOT NULL DEFAULT 1,
    details   TEXT NOT NULL DEFAULT '{}'
) STRICT;

CREATE INDEX events_by_tenant ON events (tenant, time);

INSERT INTO tenants (name, created) VALUES ('default', unixepoch());
