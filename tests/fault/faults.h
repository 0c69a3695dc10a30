#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>

/* Faults of the machine on demand. The test and relayd share the file that RELAYD_FAULTS names, in
 * the layout of struct faults (faults.c). Without it nothing ever fails. */

/* One more allocation, here: is it the one that is to fail? Any thread. */
bool fault_strikes(const char *file, int line);

/* Is the storage of SQLite read-only now? Any thread. */
bool fault_read_only(void);

/* Counts the waits for the disk, and makes this one last for as long as the test wants, 30 s at the most. */
void fault_wait_for_disk(void);

/* Puts a default VFS before SQLite's: while fault_read_only() it answers as the real one does when
 * the kernel says EROFS. */
void fault_replace_vfs(void);

#endif
