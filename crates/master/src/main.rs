//! The `master` program.

/// Gives memory back when objects go; the C library's keeps what once held ten thousand pods.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads before anything else; `_RJEM_MALLOC_CONF` in the environment has the last word.
///
/// Pages nobody uses go back after five seconds instead of ten. Fewer arenas than the default of four a processor were
/// tried: they hold no less, and cost some of the throughput.
#[allow(unsafe_code, reason = "the name is jemalloc's own, and nothing else in the program has it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 20] = b"dirty_decay_ms:5000\0";

fn main() -> anyhow::Result<()> {
    master::run(std::env::args_os())
}
