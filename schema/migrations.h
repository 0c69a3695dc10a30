#ifndef SCHEMA_MIGRATIONS_H
#define SCHEMA_MIGRATIONS_H

/* schema_migrations[N] is the SQL that brings a database from user_version N to N + 1; the array
 * has schema_version elements. Made at build time from schema/NNNN_*.sql. */
extern const char *const schema_migrations[];
extern const int schema_version;

#endif
