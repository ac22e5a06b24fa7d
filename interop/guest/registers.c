/*
 * Hands the guest kernel's process registers to this machine in the size that it wants.
 *
 * User-mode Linux saves the extended registers of its processes in a buffer of fixed size, smaller than a CPU with a large register state (AMX)
 * takes back: PTRACE_SETREGSET fails and the guest dies. Preloaded, this pads what is set with what is there; tile state, which the guest never
 * has, is said to be unused.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    XSTATE = 0x202,    /* NT_X86_XSTATE */
    XSTATE_BV = 512,   /* where the header says which parts are used */
    TILE = 3u << 17,   /* XTILECFG and XTILEDATA */
};

static unsigned char whole[1 << 16] __attribute__((aligned(64)));

static long set_registers(long pid, struct iovec *given)
{
    struct iovec want = { whole, sizeof whole };
    uint64_t used;

    if (given->iov_len >= sizeof whole || syscall(SYS_ptrace, PTRACE_GETREGSET, pid, XSTATE, &want) != 0 ||
        want.iov_len <= given->iov_len)
        return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, XSTATE, given);
    memset(whole + given->iov_len, 0, want.iov_len - given->iov_len);
    memcpy(whole, given->iov_base, given->iov_len);
    memcpy(&used, whole + XSTATE_BV, sizeof used);
    used &= ~(uint64_t)TILE;
    memcpy(whole + XSTATE_BV, &used, sizeof used);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, XSTATE, &want);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    long pid, address, data, word = 0;

    va_start(arguments, request);
    pid = va_arg(arguments, int);
    address = va_arg(arguments, long);
    data = va_arg(arguments, long);
    va_end(arguments);
    if (request == PTRACE_SETREGSET && address == XSTATE)
        return set_registers(pid, (struct iovec *)data);
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        /* the system call writes the word, the library's function returns it */
        long status = syscall(SYS_ptrace, request, pid, address, &word);
        return status < 0 ? status : word;
    }
    return syscall(SYS_ptrace, request, pid, address, data);
}
