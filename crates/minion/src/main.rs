//! The `minion` program.

fn main() -> anyhow::Result<()> {
    one_heap();
    minion::run(std::env::args_os())
}

/// One heap for all threads. With one for each, every one keeps what the burst of a hundred pods that start left in it:
/// measured on Docker, 18.5 MB beyond an idle minion instead of 13.0.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "the C library's allocator cannot be told otherwise but in the environment")]
fn one_heap() {
    // SAFETY: sets a number of the allocator's; there is no other thread yet.
    let set = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
    debug_assert_eq!(set, 1, "the C library knows the parameter");
}

#[cfg(not(target_env = "gnu"))]
fn one_heap() {}
