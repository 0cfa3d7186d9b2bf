//! The first process of every pod: it holds the pod's namespaces open, reaps orphans and ends on SIGTERM or SIGINT.
//!
//! A static program without a standard library, made by `build.rs` and carried inside the kubelet, so that no registry
//! is needed for it. It blocks all signals and takes them one by one with `rt_sigtimedwait`, so no handler (and no
//! signal trampoline) is needed. What it does is what `build/pause/linux/pause.c` upstream does.
#![no_std]
#![no_main]

use core::arch::asm;

const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
/// Bytes of the kernel's signal set.
const SIGSET_BYTES: usize = 8;

#[cfg(target_arch = "x86_64")]
mod nr {
    pub const RT_SIGPROCMASK: usize = 14;
    pub const WAIT4: usize = 61;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod nr {
    pub const RT_SIGPROCMASK: usize = 135;
    pub const WAIT4: usize = 260;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const EXIT_GROUP: usize = 94;
}

#[cfg(target_arch = "x86_64")]
fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d,
            options(nostack)
        );
    }
    result
}

/// Blocks every signal, then takes them as they come: SIGTERM and SIGINT end the pod, everything else (SIGCHLD above
/// all) is a reason to reap.
#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! {
    let every: u64 = !0;
    let set = &raw const every as usize;
    syscall(nr::RT_SIGPROCMASK, SIG_BLOCK, set, 0, SIGSET_BYTES);
    loop {
        let signal = syscall(nr::RT_SIGTIMEDWAIT, set, 0, 0, SIGSET_BYTES);
        if signal == SIGTERM as isize || signal == SIGINT as isize {
            exit(0);
        }
        while syscall(nr::WAIT4, usize::MAX, 0, WNOHANG, 0) > 0 {}
    }
}

fn exit(code: usize) -> ! {
    loop {
        syscall(nr::EXIT_GROUP, code, 0, 0, 0);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(1)
}
