//! The system calls that the process may make once it serves, as programs that the kernel runs at each call
//! (seccomp(2), bpf(4)).

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, c_long,
};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};
use seccompiler::{apply_filter, sock_filter};

/// Restricts the calls of this thread from now on. False: the kernel does not have that.
///
/// The first filter ends the process at a call that only an intruder makes. The second refuses whatever is
/// not known to be needed: a C library that is newer than this program tries a call and goes on without it,
/// where the end of the process would be the end of the service.
pub(super) fn restrict(reads_files: bool, binds: bool) -> bool {
    let [deadly, needed] = filters(getpid(), reads_files, binds);
    // The second one refuses the calls that install a filter, too.
    apply_filter(&deadly).is_ok() && apply_filter(&needed).is_ok()
}

/// Refuses this thread to hide its memory, as a sandbox around the process may.
#[cfg(test)]
pub(super) fn refuse_to_hide() {
    let dumpable = libc::PR_SET_DUMPABLE.cast_unsigned();
    let hide = [Call(libc::SYS_prctl, &[Condition::is(0, dumpable)])];
    let refused = SECCOMP_RET_ERRNO | Errno::PERM.raw_os_error().unsigned_abs();
    apply_filter(&filter(&hide, refused, SECCOMP_RET_ALLOW)).unwrap();
}

fn filters(own: Pid, reads_files: bool, binds: bool) -> [Vec<sock_filter>; 2] {
    // An abort is a signal to oneself.
    let to_itself = [Condition::is(0, own.as_raw_nonzero().get().cast_unsigned())];
    let reading = if reads_files { READING } else { &[] };
    let binding = if binds { BINDING } else { &[] };
    let needed = [NEEDED, &[Call(libc::SYS_tgkill, &to_itself)], reading, binding].concat();
    let refused = SECCOMP_RET_ERRNO | Errno::PERM.raw_os_error().unsigned_abs();
    [
        filter(DEADLY, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW),
        filter(&needed, SECCOMP_RET_ALLOW, refused),
    ]
}

/// A call, and all of what its arguments must be.
#[derive(Clone, Copy)]
struct Call<'a>(c_long, &'a [Condition]);

/// The argument of this index has this value in the bits of the mask.
#[derive(Clone, Copy)]
struct Condition {
    argument: u32,
    mask: u32,
    value: u32,
}

impl Condition {
    const fn is(argument: u32, value: u32) -> Self {
        Self { argument, mask: u32::MAX, value }
    }

    const fn lacks(argument: u32, bits: u32) -> Self {
        Self { argument, mask: bits, value: 0 }
    }
}

/// Other programs, threads, the memory of other processes, and what changes the system.
const DEADLY: &[Call<'_>] = &[
    Call(libc::SYS_execve, &[]),
    Call(libc::SYS_execveat, &[]),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_fork, &[]),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_vfork, &[]),
    Call(libc::SYS_clone, &[]),
    Call(libc::SYS_clone3, &[]),
    Call(libc::SYS_ptrace, &[]),
    Call(libc::SYS_process_vm_readv, &[]),
    Call(libc::SYS_process_vm_writev, &[]),
    Call(libc::SYS_mount, &[]),
    Call(libc::SYS_bpf, &[]),
    Call(libc::SYS_keyctl, &[]),
    Call(libc::SYS_init_module, &[]),
    Call(libc::SYS_finit_module, &[]),
    Call(libc::SYS_delete_module, &[]),
];

/// What serving takes, and what the C library may do beside it. Those that matter most come first.
const NEEDED: &[Call<'_>] = &[
    // The event loop.
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_epoll_wait, &[]),
    Call(libc::SYS_epoll_pwait, &[]),
    Call(libc::SYS_epoll_ctl, &[]),
    // Sockets. New ones are for connections to upstreams.
    Call(libc::SYS_recvmmsg, &[]),
    Call(libc::SYS_sendmmsg, &[Condition::lacks(3, MSG_FASTOPEN)]),
    Call(libc::SYS_recvfrom, &[]),
    Call(libc::SYS_sendto, &[Condition::lacks(3, MSG_FASTOPEN)]),
    Call(libc::SYS_recvmsg, &[]),
    Call(libc::SYS_sendmsg, &[Condition::lacks(2, MSG_FASTOPEN)]),
    Call(libc::SYS_accept4, &[]),
    Call(libc::SYS_socket, TCP_SOCKET),
    Call(libc::SYS_connect, &[]),
    Call(libc::SYS_shutdown, &[]),
    Call(libc::SYS_getsockopt, &[]),
    Call(libc::SYS_setsockopt, &[]),
    Call(libc::SYS_getsockname, &[]),
    Call(libc::SYS_getpeername, &[]),
    // What is open: stderr, and the sockets again.
    Call(libc::SYS_read, &[]),
    // How much memory the process has, for metrics, from a file of the kernel.
    Call(libc::SYS_pread64, &[]),
    Call(libc::SYS_write, &[]),
    Call(libc::SYS_ppoll, &[]),
    Call(libc::SYS_fcntl, &[Condition::lacks(1, !FCNTL_COMMANDS)]),
    Call(libc::SYS_close, &[]),
    // Memory, where no code is made.
    Call(libc::SYS_brk, &[]),
    Call(libc::SYS_mmap, &[Condition::lacks(2, PROT_EXEC)]),
    Call(libc::SYS_mprotect, &[Condition::lacks(2, PROT_EXEC)]),
    Call(libc::SYS_mremap, &[]),
    Call(libc::SYS_munmap, &[]),
    Call(libc::SYS_madvise, &[]),
    // Random numbers, and clocks where the kernel does not have them in memory.
    Call(libc::SYS_getrandom, &[]),
    Call(libc::SYS_clock_gettime, &[]),
    // Signals, and the end.
    Call(libc::SYS_rt_sigaction, &[]),
    Call(libc::SYS_rt_sigprocmask, &[]),
    Call(libc::SYS_rt_sigreturn, &[]),
    Call(libc::SYS_sigaltstack, &[]),
    Call(libc::SYS_restart_syscall, &[]),
    Call(libc::SYS_getpid, &[]),
    Call(libc::SYS_gettid, &[]),
    Call(libc::SYS_futex, &[]),
    Call(libc::SYS_rseq, &[]),
    // A C library that cannot end a thread tries again without end.
    Call(libc::SYS_exit, &[]),
    Call(libc::SYS_exit_group, &[]),
];

/// What it takes to read files again.
const READING: &[Call<'_>] = &[
    Call(libc::SYS_openat, &[Condition::lacks(2, OPENS_TO_WRITE)]),
    Call(libc::SYS_statx, &[]),
    Call(libc::SYS_newfstatat, &[]),
    // Why one cannot be read.
    Call(libc::SYS_faccessat, &[]),
    Call(libc::SYS_fstat, &[]),
    Call(libc::SYS_lseek, &[]),
];

/// What it takes to connect from an address that was chosen. New sockets are for TCP, of which none listens later.
const BINDING: &[Call<'_>] = &[Call(libc::SYS_bind, &[])];

/// A file may be opened to be read, and not otherwise.
const OPENS_TO_WRITE: u32 = (libc::O_WRONLY
    | libc::O_RDWR
    | libc::O_CREAT
    | libc::O_TRUNC
    | (libc::O_TMPFILE & !libc::O_DIRECTORY))
    .cast_unsigned();

/// IPv4 or IPv6, and nothing else than TCP.
const TCP_SOCKET: &[Condition] = &[
    Condition { argument: 0, mask: !(AF_INET ^ AF_INET6), value: AF_INET & AF_INET6 },
    Condition { argument: 1, mask: !SOCK_FLAGS, value: libc::SOCK_STREAM.cast_unsigned() },
    Condition::is(2, libc::IPPROTO_TCP.cast_unsigned()),
];

// They differ in one bit, so that one comparison tells both from all others.
const AF_INET: u32 = libc::AF_INET.cast_unsigned();
const AF_INET6: u32 = libc::AF_INET6.cast_unsigned();
const _: () = assert!((AF_INET ^ AF_INET6).is_power_of_two());

const SOCK_FLAGS: u32 = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).cast_unsigned();

/// It connects, past Landlock, which looks at connect(2).
const MSG_FASTOPEN: u32 = libc::MSG_FASTOPEN.cast_unsigned();

/// The commands of fcntl(2) up to this one are about flags and locks. Those above have the kernel signal any
/// process of the user when something comes (`F_SETOWN`, `F_SETSIG`).
const FCNTL_COMMANDS: u32 = 7;

const PROT_EXEC: u32 = libc::PROT_EXEC.cast_unsigned();

/// A program that returns `listed` at these calls, if their arguments are as they must be, and `other` at all
/// others. A call by the numbers of another architecture ends the process.
fn filter(calls: &[Call<'_>], listed: u32, other: u32) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE_AT),
        skip_if(ARCHITECTURE, 1, 0),
        give(SECCOMP_RET_KILL_PROCESS),
        load(NUMBER_AT),
    ];
    for Call(number, conditions) in calls {
        let len = conditions.len() * PER_CONDITION + 1;
        program.push(skip_if(number.cast_unsigned() as u32, 0, len as u8));
        for Condition { argument, mask, value } in *conditions {
            program.extend([
                load(ARGUMENTS_AT + 8 * argument),
                instruction(BPF_ALU | BPF_AND | BPF_K, *mask),
                skip_if(*value, 1, 0),
                give(other),
            ]);
        }
        program.push(give(listed));
    }
    program.push(give(other));
    program
}

/// Instructions that look at an argument.
const PER_CONDITION: usize = 4;

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn give(result: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, result)
}

/// Passes over so many instructions if what was loaded is `value`, and over so many if not.
fn skip_if(value: u32, if_so: u8, if_not: u8) -> sock_filter {
    sock_filter { jt: if_so, jf: if_not, ..instruction(BPF_JMP | BPF_JEQ | BPF_K, value) }
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

// Where `struct seccomp_data` has what is looked at. Of arguments it is the lower half, which comes first; the
// calls whose arguments are looked at take no more of them.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const _: () = assert!(cfg!(target_endian = "little"));

/// `AUDIT_ARCH_X86_64` of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
/// `AUDIT_ARCH_AARCH64` of `linux/audit.h`.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: i32 = 77;

    /// What the kernel would make of a call: the stricter one of both filters decides.
    fn verdict(architecture: u32, number: u32, arguments: [u32; 4]) -> u32 {
        verdict_of((false, false), architecture, number, arguments)
    }

    fn verdict_of(
        (reads_files, binds): (bool, bool),
        architecture: u32,
        number: u32,
        arguments: [u32; 4],
    ) -> u32 {
        let [deadly, needed] = filters(Pid::from_raw(OWN).unwrap(), reads_files, binds);
        let result = run(&deadly, architecture, number, arguments);
        if result == SECCOMP_RET_ALLOW {
            run(&needed, architecture, number, arguments)
        } else {
            result
        }
    }

    /// Runs a program as the kernel does.
    fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u32; 4]) -> u32 {
        const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
        const MASK: u32 = BPF_ALU | BPF_AND | BPF_K;
        const COMPARE: u32 = BPF_JMP | BPF_JEQ | BPF_K;
        const GIVE: u32 = BPF_RET | BPF_K;

        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) {
                LOAD => {
                    loaded = match k {
                        NUMBER_AT => number,
                        ARCHITECTURE_AT => architecture,
                        argument => arguments[(argument - ARGUMENTS_AT) as usize / 8],
                    }
                }
                MASK => loaded &= k,
                COMPARE => at += usize::from(if loaded == k { jt } else { jf }),
                GIVE => return k,
                code => panic!("{code}"),
            }
        }
    }

    const REFUSED: u32 = SECCOMP_RET_ERRNO | 1;

    #[test]
    fn calls_and_what_becomes_of_them() {
        let of = |number: c_long, arguments| {
            verdict(ARCHITECTURE, number.cast_unsigned() as u32, arguments)
        };
        for Call(number, _) in DEADLY {
            assert_eq!(of(*number, [0; 4]), SECCOMP_RET_KILL_PROCESS, "{number}");
        }
        for Call(number, conditions) in NEEDED {
            let expected = if conditions.len() > 1 { REFUSED } else { SECCOMP_RET_ALLOW };
            assert_eq!(of(*number, [0; 4]), expected, "{number}");
        }
        for number in [
            libc::SYS_openat,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_kill,
            libc::SYS_ioctl,
            libc::SYS_prctl,
            libc::SYS_seccomp,
            libc::SYS_setresuid,
            libc::SYS_io_uring_setup,
            libc::SYS_memfd_create,
            libc::SYS_unshare,
            100_000,
        ] {
            assert_eq!(of(number, [0; 4]), REFUSED, "{number}");
        }
    }

    #[test]
    fn arguments_and_what_becomes_of_the_call() {
        const RW: u32 = (libc::PROT_READ | libc::PROT_WRITE).cast_unsigned();
        const NOSIGNAL: u32 = libc::MSG_NOSIGNAL.cast_unsigned();
        /// Of `linux/fcntl.h`.
        const F_SETSIG: u32 = 10;
        let flags = SOCK_FLAGS;
        for (number, arguments, is_allowed) in [
            (libc::SYS_socket, [2, 1 | flags, 6, 0], true),
            (libc::SYS_socket, [10, 1 | flags, 6, 0], true),
            (libc::SYS_socket, [2, 1, 6, 0], true),
            // UDP, raw, any protocol, Multipath TCP.
            (libc::SYS_socket, [2, 2 | flags, 17, 0], false),
            (libc::SYS_socket, [2, 3, 6, 0], false),
            (libc::SYS_socket, [2, 1, 0, 0], false),
            (libc::SYS_socket, [2, 1, 262, 0], false),
            // Sockets of this host, of the kernel, of the link layer.
            (libc::SYS_socket, [1, 1, 6, 0], false),
            (libc::SYS_socket, [16, 3, 0, 0], false),
            (libc::SYS_socket, [17, 3, 0, 0], false),
            (libc::SYS_tgkill, [OWN.cast_unsigned(), 1, 6, 0], true),
            (libc::SYS_tgkill, [1, 1, 6, 0], false),
            (libc::SYS_sendto, [3, 0, 1, NOSIGNAL], true),
            (libc::SYS_sendto, [3, 0, 1, NOSIGNAL | MSG_FASTOPEN], false),
            (libc::SYS_sendmmsg, [3, 0, 1, NOSIGNAL], true),
            (libc::SYS_sendmmsg, [3, 0, 1, MSG_FASTOPEN], false),
            (libc::SYS_sendmsg, [3, 0, NOSIGNAL, MSG_FASTOPEN], true),
            (libc::SYS_sendmsg, [3, 0, MSG_FASTOPEN, 0], false),
            (libc::SYS_fcntl, [3, libc::F_GETFD.cast_unsigned(), 0, 0], true),
            (libc::SYS_fcntl, [3, libc::F_GETFL.cast_unsigned(), 0, 0], true),
            (libc::SYS_fcntl, [3, libc::F_SETFL.cast_unsigned(), 0, 0], true),
            (libc::SYS_fcntl, [3, libc::F_SETOWN.cast_unsigned(), 1, 0], false),
            (libc::SYS_fcntl, [3, F_SETSIG, 9, 0], false),
            (libc::SYS_mmap, [0, 4096, RW, 0], true),
            (libc::SYS_mmap, [0, 4096, RW | PROT_EXEC, 0], false),
            (libc::SYS_mprotect, [0, 4096, RW, 0], true),
            (libc::SYS_mprotect, [0, 4096, PROT_EXEC, 0], false),
        ] {
            let expected = if is_allowed { SECCOMP_RET_ALLOW } else { REFUSED };
            let result = verdict(ARCHITECTURE, number.cast_unsigned() as u32, arguments);
            assert_eq!(result, expected, "{number} {arguments:x?}");
        }
    }

    #[test]
    fn files_are_opened_to_be_read_where_they_are_read_again() {
        const READ: u32 = (libc::O_CLOEXEC | libc::O_NONBLOCK).cast_unsigned();
        let number = libc::SYS_openat as u32;
        for (reads_files, flags, expected) in [
            (false, READ, REFUSED),
            (true, READ, SECCOMP_RET_ALLOW),
            (true, READ | libc::O_WRONLY.cast_unsigned(), REFUSED),
            (true, READ | libc::O_RDWR.cast_unsigned(), REFUSED),
            (true, READ | libc::O_CREAT.cast_unsigned(), REFUSED),
            (true, READ | libc::O_TMPFILE.cast_unsigned(), REFUSED),
        ] {
            let result = verdict_of((reads_files, false), ARCHITECTURE, number, [0, 0, flags, 0]);
            assert_eq!(result, expected, "{reads_files} {flags:x}");
        }
    }

    #[test]
    fn a_port_is_bound_where_connections_leave_from_an_address_that_was_chosen() {
        for (binds, number, expected) in [
            (false, libc::SYS_bind, REFUSED),
            (true, libc::SYS_bind, SECCOMP_RET_ALLOW),
            (true, libc::SYS_listen, REFUSED),
        ] {
            let result = verdict_of(
                (false, binds),
                ARCHITECTURE,
                number.cast_unsigned() as u32,
                [3, 0, 16, 0],
            );
            assert_eq!(result, expected, "{binds} {number}");
        }
    }

    #[test]
    fn numbers_of_other_architectures_are_not_mistaken() {
        let number = libc::SYS_recvfrom as u32;
        for (architecture, number, expected) in [
            (ARCHITECTURE, number, SECCOMP_RET_ALLOW),
            // i386, which a program for x86-64 can call.
            (0x4000_0003, number, SECCOMP_RET_KILL_PROCESS),
            // x32, by its bit.
            (ARCHITECTURE, number | 0x4000_0000, REFUSED),
        ] {
            assert_eq!(
                verdict(architecture, number, [0; 4]),
                expected,
                "{architecture:x} {number}"
            );
        }
    }
}
