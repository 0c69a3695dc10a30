# RELAYD_CHECK_LIBSSH
#
# Finds libssh 0.12.2 or newer that withstands a second confirmation of a channel: in the prefix given
# by --with-libssh, else in deps/libssh of the source or build folder (scripts/deps.sh makes it), else the
# system's. A libssh whose libssh.pc does not name relayd's fixes must pass the probe in tests/libssh.
#
# Substitutes LIBSSH_CFLAGS, LIBSSH_LIBS and LIBSSH_PREFIX (absolute; empty: the system's), so that
# --with-libssh=$(LIBSSH_PREFIX) finds the same again. Defines LIBSSH_ORIGIN, for relayd --version.

m4_define([_RELAYD_LIBSSH_OLDEST], [0.12.2])
m4_define([_RELAYD_LIBSSH_TESTED], [0.12])

AC_DEFUN([RELAYD_CHECK_LIBSSH], [
AC_REQUIRE([PKG_PROG_PKG_CONFIG])
AC_REQUIRE([AC_PROG_CC])
AC_ARG_WITH([libssh],
  [AS_HELP_STRING([--with-libssh=PREFIX], [libssh in PREFIX @<:@deps/libssh, else the system's@:>@])],
  [], [with_libssh=])
AC_ARG_WITH([system-libssh],
  [AS_HELP_STRING([--with-system-libssh],
    [a libssh that lacks relayd's fixes too; without --with-libssh, the system's])],
  [], [with_system_libssh=no])

AC_MSG_CHECKING([for libssh])
AS_CASE([$with_libssh],
  [yes|no], [AC_MSG_ERROR([--with-libssh needs a folder, and relayd needs libssh])])
_RELAYD_FIND_LIBSSH
relayd_libssh_version=`$PKG_CONFIG --modversion "$relayd_libssh_pc" 2>/dev/null`
AS_IF([test -z "$relayd_libssh_version"],
  [AC_MSG_RESULT([no])
  AC_MSG_ERROR([libssh not found: run scripts/deps.sh])])
AC_MSG_RESULT([$relayd_libssh_version in ${LIBSSH_PREFIX:-the system}])
AS_IF([$PKG_CONFIG --atleast-version=_RELAYD_LIBSSH_OLDEST "$relayd_libssh_pc"], [],
  [AC_MSG_ERROR([libssh $relayd_libssh_version is too old, relayd needs _RELAYD_LIBSSH_OLDEST: run scripts/deps.sh])])
AS_CASE([$relayd_libssh_version], [_RELAYD_LIBSSH_TESTED.*], [],
  [AC_MSG_WARN([relayd is tested with libssh _RELAYD_LIBSSH_TESTED only])])
LIBSSH_CFLAGS=`$PKG_CONFIG --cflags "$relayd_libssh_pc"`
LIBSSH_LIBS=`$PKG_CONFIG --libs "$relayd_libssh_pc"`
_RELAYD_LINK_LIBSSH
_RELAYD_JUDGE_LIBSSH

AC_SUBST([LIBSSH_CFLAGS])
AC_SUBST([LIBSSH_LIBS])
AC_SUBST([LIBSSH_PREFIX])
AC_DEFINE_UNQUOTED([LIBSSH_ORIGIN], ["$relayd_libssh_version, $relayd_libssh_kind"],
  [libssh's version at build time, and where it came from])
])

# Sets LIBSSH_PREFIX and relayd_libssh_pc: a file, or the module name for the system's.
AC_DEFUN([_RELAYD_FIND_LIBSSH], [
LIBSSH_PREFIX=
relayd_libssh_pc=libssh
relayd_libssh_tries=$with_libssh
AS_IF([test -z "$with_libssh" && test "$with_system_libssh" = no],
  [relayd_libssh_tries="$srcdir/deps/libssh deps/libssh"])
for relayd_try in $relayd_libssh_tries; do
  for relayd_pc in "$relayd_try"/lib/pkgconfig "$relayd_try"/lib64/pkgconfig "$relayd_try"/lib/*/pkgconfig; do
    AS_IF([test -z "$LIBSSH_PREFIX" && test -r "$relayd_pc/libssh.pc"],
      [LIBSSH_PREFIX=`cd "$relayd_try" && pwd`
      relayd_libssh_pc=`cd "$relayd_pc" && pwd`/libssh.pc])
  done
done
AS_IF([test -n "$with_libssh" && test -z "$LIBSSH_PREFIX"],
  [AC_MSG_RESULT([no])
  AC_MSG_ERROR([there is no libssh.pc below $with_libssh: run scripts/deps.sh])])
])

AC_DEFUN([_RELAYD_LINK_LIBSSH], [
AC_MSG_CHECKING([whether it links])
relayd_save_CFLAGS=$CFLAGS relayd_save_LIBS=$LIBS
CFLAGS="$CFLAGS $LIBSSH_CFLAGS" LIBS="$LIBSSH_LIBS $LIBS"
AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <libssh/libssh.h>]], [[return ssh_init();]])],
  [AC_MSG_RESULT([yes])],
  [AC_MSG_RESULT([no])
  AC_MSG_ERROR([a program with libssh $relayd_libssh_version does not link (see config.log): run scripts/deps.sh])])
CFLAGS=$relayd_save_CFLAGS LIBS=$relayd_save_LIBS
])

# Sets relayd_libssh_kind, or refuses.
AC_DEFUN([_RELAYD_JUDGE_LIBSSH], [
AC_MSG_CHECKING([whether it has relayd's fixes])
relayd_libssh_kind="${LIBSSH_PREFIX:-the system's}"
AS_CASE([,`$PKG_CONFIG --variable=relayd_fixes "$relayd_libssh_pc"`,],
  [*,confirm-once,*],
    [AC_MSG_RESULT([yes])
    relayd_libssh_kind="static, with relayd's fixes"],
  [AS_IF([test "$cross_compiling" = no &&
      $CC $CPPFLAGS $CFLAGS $LIBSSH_CFLAGS -o conftest$EXEEXT "$srcdir/tests/libssh/probe.c" \
        $LDFLAGS $LIBSSH_LIBS $LIBS -lpthread >&AS_MESSAGE_LOG_FD 2>&1 &&
      ./conftest$EXEEXT confirm 2>&AS_MESSAGE_LOG_FD],
    [AC_MSG_RESULT([it passes the probe])],
    [AC_MSG_RESULT([no])
    relayd_libssh_kind="$relayd_libssh_kind, without relayd's fixes"
    AS_IF([test "$with_system_libssh" = no],
      [AC_MSG_ERROR([with this libssh $relayd_libssh_version one logged-in peer can stall relayd: run scripts/deps.sh (or take it as it is: --with-system-libssh)])],
      [AC_MSG_WARN([with this libssh $relayd_libssh_version one logged-in peer can stall relayd])])])
  rm -f conftest$EXEEXT])
])
