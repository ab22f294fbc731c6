/*
 * Starts the Node.js of Debian 13 from the folder ROOT that it is unpacked in.
 *
 * Debian's node is a few lines around libnode.so, as this is. Linked with that
 * folder's loader and libraries it is a program like any other, so that what
 * Node.js starts by its own path (process.execPath) works; a node run as an
 * argument of ld.so would start ld.so instead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* int node::Start(int argc, char *argv[]) of libnode.so */
extern int node_start(int argc, char **argv) __asm__("_ZN4node5StartEiPPc");

int main(int argc, char **argv)
{
	return node_start(argc, argv);
}

typedef int open_function(void *loop, void *request, const char *path, int flags, int mode, void *done);

/*
 * Debian keeps some of Node.js's own modules as files and compiles in where
 * they are: /usr/share/nodejs. This stands before libuv's function of the same
 * name and looks for them below ROOT.
 */
int uv_fs_open(void *loop, void *request, const char *path, int flags, int mode, void *done)
{
	static const char own[] = "/usr/share/nodejs/";
	char below[4096];
	open_function *next = (open_function *)dlsym(RTLD_NEXT, "uv_fs_open");

	if (next == NULL)
		return -ENOSYS;
	if (strncmp(path, own, sizeof own - 1) == 0) {
		int length = snprintf(below, sizeof below, "%s%s", ROOT, path);

		if (length < 0 || (size_t)length >= sizeof below)
			return -ENAMETOOLONG;
		path = below;
	}
	return next(loop, request, path, flags, mode, done);
}
