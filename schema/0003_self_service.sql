-- Administrators of a tenant.
ALTER TABLE principals ADD COLUMN admin INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1));

-- What an endpoint was given by `relayctl set-endpoint`, published or not: it stays with the name while
-- somebody owns that. principal_id is the owner. proxy_protocol is its version; 0: none.
CREATE TABLE endpoint_settings (
    tenant_id      INTEGER NOT NULL,
    name           TEXT NOT NULL,
    port           INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    principal_id   INTEGER NOT NULL,
    note           TEXT NOT NULL,
    proxy_protocol INTEGER NOT NULL CHECK (proxy_protocol IN (0, 2)),
    PRIMARY KEY (tenant_id, name, port),
    FOREIGN KEY (tenant_id, principal_id) REFERENCES principals (tenant_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- To whom the request is laid: an IPv4 address or a /64. address is where it last came from, hint the
-- peer's own words.
ALTER TABLE pending_keys ADD COLUMN source TEXT NOT NULL DEFAULT '';
CREATE INDEX endpoint_settings_by_principal ON endpoint_settings (principal_id);

CREATE INDEX pending_keys_by_expiry ON pending_keys (expires);

-- The audit trail, by id and by name: ids keep a new tenant or principal of an old name from reading of
-- its namesake; there are no foreign keys, for the trail outlives what it tells of. tenant_id 0: the relay's
-- own; -1: of whom has not logged in. reason is what its subject may know, cause what is true, for
-- administrators. number is what a tenant has for an id: it grows, and shows nothing of how much happens elsewhere.
DROP TABLE events;

CREATE TABLE events (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    time         INTEGER NOT NULL, -- UNIX seconds
    tenant_id    INTEGER NOT NULL,
    number       INTEGER NOT NULL, -- 1000 times the time, or the next one that is free
    tenant       TEXT NOT NULL,
    principal_id INTEGER,
    principal    TEXT NOT NULL,
    address      TEXT NOT NULL,
    event        TEXT NOT NULL,
    object       TEXT NOT NULL,
    peer         TEXT NOT NULL, -- the other end of a bridge; of a command whom it concerns
    reason       TEXT NOT NULL, -- '': it was done
    cause        TEXT NOT NULL,
    count        INTEGER NOT NULL CHECK (count > 0),
    bytes_up     INTEGER NOT NULL,
    bytes_down   INTEGER NOT NULL,
    duration     INTEGER NOT NULL -- milliseconds
) STRICT;

CREATE UNIQUE INDEX events_by_tenant ON events (tenant_id, number);
CREATE INDEX events_by_time ON events (time);
CREATE INDEX events_by_principal ON events (principal_id, id) WHERE principal_id IS NOT NULL;
CREATE INDEX refusals_by_principal ON events (principal_id, id) WHERE principal_id IS NOT NULL AND reason <> '';
